"""The tasks of a Label Studio project, page by page; one that cannot be had holds up no other."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence

from alc_backend.common.types import Json
from alc_backend.errors import AnswerTooLargeError, LabelStudioError

log = logging.getLogger(__name__)

PAGE = 100
"""Tasks in one answer."""

SMALLER = 4
"""How many times fewer tasks are asked for after a page that cannot be had."""

FAILED_IN_A_ROW = 20
"""When Label Studio answers 500 to so many tasks one after the other, it is not for the tasks."""

LeaveOut = Callable[[int, LabelStudioError], None]
"""Is told of a task (its id) that cannot be had, and why."""


class LeftOut(dict[int, LabelStudioError]):
    """Why tasks (by id) were left out; to be given as ``leave_out``."""

    def __call__(self, task: int, error: LabelStudioError) -> None:
        """Note, and log, that a task was left out."""
        log.warning("%s", error)
        self[task] = error


def raise_it(task: int, error: LabelStudioError) -> None:
    """Leave no task out."""
    raise error


class TaskPages:
    """Reads the tasks of a project that pass one of several groups of filters, by id.

    ``get`` is that of a client, ``parameters`` are sent with each request. A page that is too
    large, or that Label Studio answers with 500, is asked for in smaller ones; of a task that
    cannot be had alone ``leave_out`` is told.
    """

    def __init__(
        self,
        get: Callable[..., Json],
        project: int,
        groups: Sequence[Sequence[Json]],
        leave_out: LeaveOut,
        parameters: Json,
    ) -> None:
        self._get, self._project, self._leave_out = get, project, leave_out
        self._groups = groups
        self._parameters = {"fields": "all", "page_size": PAGE, **parameters}
        self._failed = 0

    def __iter__(self) -> Iterator[Json]:
        after: int | None = 0
        while after is not None:
            found: dict[int, Json | LabelStudioError] = {}
            ends: list[int] = []
            for group in self._groups:
                page, goes_on = self._page(group, after)
                found.update(page)
                if goes_on:
                    ends.append(max(page))
            after = min(ends, default=None)
            for number in sorted(n for n in found if after is None or n <= after):
                task = found[number]
                if isinstance(task, LabelStudioError):
                    self._leave_out(number, task)
                else:
                    yield task

    def _page(
        self, group: Sequence[Json], after: int
    ) -> tuple[dict[int, Json | LabelStudioError], bool]:
        """The next tasks by id, or why the next one cannot be had; whether there are more."""
        size = int(self._parameters["page_size"])
        while True:
            try:
                answer = self._ask(group, after, page_size=size)
            except LabelStudioError as error:
                if not _is_about_tasks(error):
                    raise
                if size == 1:
                    return self._name(group, after, error)
                size = max(size // SMALLER, 1)
            else:
                self._failed = 0
                page = answer["tasks"]  # a task comes once for each annotation that passes
                return {int(task["id"]): task for task in page}, answer["total"] > len(page)

    def _name(
        self, group: Sequence[Json], after: int, error: LabelStudioError
    ) -> tuple[dict[int, Json | LabelStudioError], bool]:
        """Which task it is that cannot be had; raises ``error`` where that is not for the task."""
        self._failed += error.status == 500
        if self._failed >= FAILED_IN_A_ROW:
            raise error
        answer = self._ask(group, after, page_size=1, fields="task_only", include="id")
        found: dict[int, Json | LabelStudioError] = {}
        for task in answer["tasks"]:
            about = f"task {task['id']} of Label Studio project {self._project} cannot be had"
            found[int(task["id"])] = type(error)(f"{about} ({error})", error.status)
        return found, bool(found)

    def _ask(self, group: Sequence[Json], after: int, **parameters: int | str) -> Json:
        beyond = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number"}
        items = [*group, {**beyond, "value": after}]
        query = {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}
        return self._get(
            "/api/tasks/",
            project=self._project,
            query=json.dumps(query),
            **{**self._parameters, **parameters},
        )


def _is_about_tasks(error: LabelStudioError) -> bool:
    """Whether fewer tasks may be had where these cannot."""
    return isinstance(error, AnswerTooLargeError) or error.status == 500
