"""Where annotators work, Label Studio or CVAT: what the loop needs of it, and which a project has.

Touches nothing itself: what each does is in ``publishing`` and ``annotations``, and in
``alc_backend.loop.cvat``. Called by ``executor`` and ``preparation``, by commands and the service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from alc_backend.common.types import Progress
from alc_backend.cvat.client import Cvat as CvatServer
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import reconciliation, webhooks
from alc_backend.loop.cvat import answers, masks, questions
from alc_backend.loop.rounds import publishing, selection
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store.cvat import CvatProject
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Round
from alc_backend.store.warnings import warn


def _no_check() -> None:
    """Nothing is checked before a change."""


def _no_progress(done: int, total: int, message: str) -> None:
    """Nobody is told."""


class Platform(Protocol):
    """The place where the annotators of a project work.

    ``name`` is how people call it. Its methods raise PlatformError for what is refused there and
    PlatformAwayError while nothing answers; what was under way is finished by calling them again.
    ``before_change`` is called before each change there. Masks come in, with the images, when a
    project is made, each place having its own way of that.
    """

    name: str

    def is_connected(self, project_id: int) -> bool:
        """Whether a project has been set up there, and the settings say how to reach it."""

    def collect(
        self,
        project_id: int,
        *,
        full: bool = False,
        accept_deletions: bool = False,
        before_change: Callable[[], object] = _no_check,
        progress: Progress = _no_progress,
    ) -> Counter[str]:
        """Bring the ledger to what annotators answered; counts what became of each answer.

        ``full`` looks at everything, not only at what changed; ``accept_deletions`` withdraws
        answers even when a large share of them is gone.
        """

    def ask(self, round_: Round, report: Reporter) -> None:
        """Choose a round's questions and bring them to the annotators, in order."""

    def write_masks(
        self,
        project_id: int,
        *,
        before_change: Callable[[], object] = _no_check,
        progress: Progress = _no_progress,
    ) -> list[str]:
        """Show the corrected masks there; a sentence for each image whose masks could not be."""


class LabelStudio:
    """Label Studio: tasks of two projects, answers by webhooks and reconciling.

    Its alone are pages of look-alikes, answers by several annotators and asking again what they
    disagree about, direct edits of masks, and making a lost store again.
    """

    name = "Label Studio"

    def __init__(self, store: Store) -> None:
        self._store = store

    def is_connected(self, project_id: int) -> bool:
        """Whether a project has its query project, and there is a token."""
        with self._store.reading() as session:
            number = session.get_one(Project, project_id).query_project
        return number is not None and self._store.settings.label_studio_api_key is not None

    def collect(
        self,
        project_id: int,
        *,
        full: bool = False,
        accept_deletions: bool = False,
        before_change: Callable[[], object] = _no_check,
        progress: Progress = _no_progress,
    ) -> Counter[str]:
        """Read what webhooks named, then what they did not."""
        with Client.from_settings(self._store.settings) as client:
            client.before_change = before_change
            counts = webhooks.drain(self._store, lambda: client)
            return counts + reconciliation.reconcile(
                self._store,
                client,
                project_id,
                full=full,
                accept_deletions=accept_deletions,
                progress=progress,
            )

    def ask(self, round_: Round, report: Reporter) -> None:
        """Put the round's queue into the query project."""
        publishing.publish_round(self._store, round_, report)

    def write_masks(
        self,
        project_id: int,
        *,
        before_change: Callable[[], object] = _no_check,
        progress: Progress = _no_progress,
    ) -> list[str]:
        """Nothing is to be done: Label Studio asks for the present masks of an image itself."""
        return []


class Cvat:
    """CVAT: one task for each round, answers when a job of it is finished."""

    name = "CVAT"

    def __init__(self, store: Store) -> None:
        self._store = store

    def is_connected(self, project_id: int) -> bool:
        """Whether a project has one for its questions in CVAT, and CVAT's address is known."""
        with self._store.reading() as session:
            number = session.get_one(CvatProject, project_id).questions
        return number is not None and self._store.settings.cvat_url is not None

    def collect(
        self,
        project_id: int,
        *,
        full: bool = False,
        accept_deletions: bool = False,
        before_change: Callable[[], object] = _no_check,
        progress: Progress = _no_progress,
    ) -> Counter[str]:
        """Read the finished jobs; what was answered in a task that is gone stays in any case."""
        with CvatServer.from_settings(self._store.settings) as server:
            return answers.collect(self._store, server, project_id, full=full, progress=progress)

    def ask(self, round_: Round, report: Reporter) -> None:
        """Make the round's task; nothing happens once its questions are in force."""
        if round_.switched_at is not None:
            return
        with CvatServer.from_settings(self._store.settings) as server:
            server.before_change = report.check
            if not questions.is_brought(self._store, server, round_):
                report(0, 3, "choosing the batch")
                warning = selection.choose_batch(self._store, round_, report)
                questions.plan(report.session, round_)
                if warning:
                    with report.session() as session:
                        warn(session, round_.id, warning)
            questions.bring(self._store, server, round_, report.session, report)

    def write_masks(
        self,
        project_id: int,
        *,
        before_change: Callable[[], object] = _no_check,
        progress: Progress = _no_progress,
    ) -> list[str]:
        """Replace the masks of the frames that the images came from."""
        with CvatServer.from_settings(self._store.settings) as server:
            server.before_change = before_change
            return masks.write_masks(self._store, server, project_id, progress)


def platform_of(store: Store, project_id: int) -> Platform:
    """Where the annotators of a project work."""
    with store.reading() as session:
        in_cvat = session.get(CvatProject, project_id) is not None
    return Cvat(store) if in_cvat else LabelStudio(store)
