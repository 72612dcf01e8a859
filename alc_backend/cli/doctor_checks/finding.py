"""What a check finds, and how checks are run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from alc_backend.common.types import Json, TextEnum
from alc_backend.errors import AlcError


class State(TextEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should look at it."""
    PROBLEM = "problem"
    REPAIRED = "repaired"
    """There was a problem, which was repaired."""
    SKIPPED = "skipped"
    """It could not be checked."""


@dataclass(frozen=True)
class Result:
    """What a check says: the state, the detail, and what to do (empty where nothing is)."""

    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """Something to look at: its name, and the function that looks.

    ``repair`` mends a problem where that is safe: nothing an annotator did is touched by it.
    ``project`` names the project that the check is about, if it is about one.
    """

    name: str
    look: Callable[[], Result]
    repair: Callable[[], object] | None = None
    project: str | None = None


@dataclass(frozen=True)
class Finding:
    """The result of the check called ``check``, as it is reported.

    ``remedy`` says what to do, and is empty where nothing is; ``project`` names the project that
    it is about, if it is about one.
    """

    check: str
    state: State
    detail: str
    remedy: str = ""
    project: str | None = None

    def as_dict(self) -> Json:
        """The finding as JSON types."""
        return asdict(self)


def ok(detail: str) -> Result:
    """Nothing to do."""
    return Result(State.OK, detail)


def warning(detail: str, remedy: str) -> Result:
    """It works, but somebody should look at it."""
    return Result(State.WARNING, detail, remedy)


def problem(detail: str, remedy: str) -> Result:
    """It does not work."""
    return Result(State.PROBLEM, detail, remedy)


def skipped(detail: str) -> Result:
    """It could not be checked."""
    return Result(State.SKIPPED, detail)


def run_checks(checks: Iterable[Check], *, fix: bool) -> Iterator[Finding]:
    """The finding of each check, in order; with ``fix`` problems are repaired where possible."""
    for check in checks:
        found = _look(check)
        if fix and check.repair is not None and found.state == State.PROBLEM:
            found = _repair(check, found)
        yield Finding(check.name, found.state, found.detail, found.remedy, check.project)


def _look(check: Check) -> Result:
    """What a check says; a problem when it fails, so that the others still have their say."""
    try:
        return check.look()
    except AlcError as error:
        return problem(str(error), "")
    except Exception as error:
        return problem(f"it could not be checked: {error!r}", "please report this, with the log")


def _repair(check: Check, found: Result) -> Result:
    """Repair a problem that was found, and look again."""
    assert check.repair is not None
    try:
        check.repair()
    except AlcError as error:
        return replace(found, remedy=f"it could not be repaired: {error}")
    again = _look(check)
    if again.state == State.PROBLEM:
        return again
    return Result(State.REPAIRED, found.detail)
