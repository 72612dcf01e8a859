"""What a check finds, and how checks are run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from alc_backend.errors import AlcError

OK, WARNING, PROBLEM, REPAIRED, SKIPPED = "ok", "warning", "problem", "repaired", "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    ``check`` is its name; ``state`` OK, WARNING (works, but look at it), PROBLEM, REPAIRED or
    SKIPPED (it could not be looked at); ``remedy`` says what to do, and is empty where nothing is;
    ``project`` names the project it is about.
    """

    check: str
    state: str
    detail: str
    remedy: str = ""
    project: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """Something to look at; ``look`` answers with state, detail and remedy.

    ``repair`` mends a PROBLEM where that is safe: nothing an annotator did is touched by it.
    """

    name: str
    look: Callable[[], tuple[str, str, str]]
    repair: Callable[[], object] | None = None
    project: str | None = None


def run(checks: Iterable[Check], *, fix: bool) -> Iterator[Finding]:
    """Look at everything, in order; with ``fix`` repair what can be, and look again."""
    for check in checks:
        found = _look(check)
        if fix and check.repair is not None and found.state == PROBLEM:
            try:
                check.repair()
            except AlcError as error:
                yield replace(found, remedy=f"it could not be repaired: {error}")
                continue
            again = _look(check)
            found = replace(found, state=REPAIRED, remedy="") if again.state != PROBLEM else again
        yield found


def _look(check: Check) -> Finding:
    try:
        state, detail, remedy = check.look()
    except AlcError as error:
        state, detail, remedy = PROBLEM, str(error), ""
    except Exception as error:  # one check that fails must not hide what the others would say
        state, detail = PROBLEM, f"it could not be checked: {error!r}"
        remedy = "please report this, with the log"
    return Finding(check.name, state, detail, remedy, check.project)


def ok(detail: str) -> tuple[str, str, str]:
    """Nothing to do."""
    return OK, detail, ""
