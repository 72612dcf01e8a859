"""Checks of each project that is asked in CVAT: its questions, its webhook, its finished jobs."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select

from alc_backend.cli.doctor_checks.finding import Check, Result, ok, problem, warning
from alc_backend.cvat.client import Cvat
from alc_backend.loop.cvat import projects
from alc_backend.store.cvat import CvatJob, CvatProject, CvatTask
from alc_backend.store.database import Store
from alc_backend.store.models import Project


class CvatChecks:
    """Checks of one project that is asked in CVAT."""

    def __init__(self, store: Store, project: Project) -> None:
        self._store, self._project = store, project
        with store.reading() as session:
            self._row = session.get_one(CvatProject, project.id)

    def checks(self) -> Iterator[Check]:
        """The checks; the webhook can be repaired."""
        name, row = self._project.name, self._row
        again = f"run `alc init --cvat-{row.source} {row.number}` again"
        if row.questions is None:
            nothing = problem("there is no project for the questions in CVAT", again)
            yield Check("questions in CVAT", lambda: nothing, project=name)
            return
        number = row.questions
        yield Check("questions in CVAT", lambda: self._questions(number, again), project=name)
        yield Check(
            "webhook in CVAT",
            lambda: self._webhook(number),
            lambda: projects.reconnect(self._store, self._project.id),
            project=name,
        )
        yield Check("finished jobs in CVAT", self._jobs, project=name)

    def _questions(self, number: int, again: str) -> Result:
        with Cvat.from_settings(self._store.settings) as server:
            if not projects.is_there(server, number):
                return problem(f"CVAT no longer has project {number}, of the questions", again)
        return ok(f"project {number}")

    def _webhook(self, number: int) -> Result:
        wanted = projects.webhook_address(self._store.settings, number)
        with Cvat.from_settings(self._store.settings) as server:
            if wanted in server.webhooks(number):
                return ok(f"it reports to {wanted}")
        return problem(
            f"none reports to {wanted}; answers come by reconciling alone", "`alc doctor --fix`"
        )

    def _jobs(self) -> Result:
        with self._store.reading() as session:
            problems = session.scalars(
                select(CvatJob.problem)
                .join(CvatTask, CvatTask.id == CvatJob.cvat_task_id)
                .where(CvatTask.project_id == self._project.id, CvatJob.problem.is_not(None))
            ).all()
        if problems:
            said = f"{len(problems)} could not be read in yet (one of them: {problems[0]})"
            return warning(said, "run `alc reconcile` once CVAT answers")
        return ok("all are read in")
