"""``ALCBackend``: this product behind label-studio-ml's own server, of version 1.0.9 and of 2.x.

For teams whose ML backends all run that way; `alc serve` needs none of it, and can do more. The two
versions construct and call models differently, which this class evens out. Workers (`alc worker`)
train and publish as ever; the inbox is read by threads of the server's processes.

Those processes come into being in many ways: gunicorn forks them once everything is imported, and
1.0.9 starts one for every event. So nothing is opened before a request needs it, once in each
process.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from alc_backend.common.types import Json
from alc_backend.errors import AlcError
from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.service.web.ingest import Ingest
from alc_backend.service.web.model import ALCModel
from alc_backend.settings import settings
from alc_backend.store.database import Store

log = logging.getLogger(__name__)


class _Opened:
    """What a process has open: the store, the queues and, where it serves, the inbox's threads."""

    def __init__(self) -> None:
        chosen = settings()
        self.store = Store(chosen)
        self.jobs = Jobs(chosen, connect(chosen))
        self.ingest: Ingest | None = None

    def serve(self) -> None:
        """Read the inbox in the background from now on."""
        if self.ingest is None:
            self.ingest = Ingest(self.store, self.jobs)
            self.ingest.__enter__()  # for as long as the process lives: its threads are daemons

    def rest(self) -> bool:
        """Read the inbox no more; whether it was read."""
        ingest, self.ingest = self.ingest, None
        if ingest is not None:
            ingest.__exit__()
        return ingest is not None


class _Process:
    """What this process has open, if anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._rested = False

    def opened(self, *, serves: bool) -> _Opened:
        with self._lock:
            if self._opened is None:
                self._opened = _Opened()
            if serves:
                self._opened.serve()
            return self._opened

    def rest(self) -> None:
        """Before a fork: let no thread be in the database, whose locks the child would inherit."""
        self._lock.acquire()
        self._rested = self._opened is not None and self._opened.rest()

    def go_on(self) -> None:
        """After a fork, in the parent."""
        if self._opened is not None and self._rested:
            self._opened.serve()
        self._lock.release()

    def forget(self) -> None:
        """In a process that was just forked: leave the parent's connections to the parent."""
        if self._opened is not None:
            self._opened.store.engine.dispose(close=False)
        self._opened = None
        self._lock = threading.Lock()  # the other one was held during the fork


_process = _Process()
os.register_at_fork(
    before=_process.rest, after_in_parent=_process.go_on, after_in_child=_process.forget
)


class ALCBackend(LabelStudioMLBase):  # type: ignore[misc]  # label-studio-ml is not typed
    """Label Studio's protocol as label-studio-ml's server passes it on.

    Projects are made by `alc init`: the server of 1.0.9 asks for no password, so that nobody may
    make one by calling it.
    """

    def setup(self) -> None:
        """Called by 2.x for each request: take over the version of the last published round."""
        number = _number(self.project_id)
        if number is not None:
            model = self._model(number, _process.opened(serves=True))
            self.set("model_version", model.model_version)

    def predict(
        self, tasks: Sequence[Json], context: Json | None = None, **kwargs: Any
    ) -> list[Json | list[Json]]:
        """One prediction for each task, in their order, as :meth:`ALCModel.predict` makes them.

        1.0.9 does not say which project it is asked about; each task does.
        """
        del context, kwargs  # the answer does not depend on them
        project = _number(getattr(self, "project_id", None))
        wanted = [_number(task.get("project")) or project for task in tasks]
        answers: list[Json | list[Json]] = [[] for _ in tasks]
        for number in sorted({one for one in wanted if one is not None}):
            places = [place for place, one in enumerate(wanted) if one == number]
            model = self._model(number, _process.opened(serves=True))
            config = self.label_config if project is not None else ""  # 1.0.9 keeps another's
            found = model.predict([tasks[place] for place in places], label_config=config)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def process_event(self, event: str, data: Json, job_id: str, additional_params: Json) -> None:
        """Called by 1.0.9, in a process of its own, for every event, START_TRAINING included.

        What its base class passes on to ``fit`` are some events alone. Nothing is left behind of
        the folder that it makes for each, whose name two events of one second share.
        """
        try:
            self._take(event, data, serves=False)
        finally:
            folder = additional_params.get("workdir")
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def fit(self, event: Any, data: Any = None, **kwargs: Any) -> Json:
        """Called by 2.x for an event: it goes into the inbox, or starts a round."""
        del kwargs
        if not isinstance(event, str) or not isinstance(data, dict):
            return {}  # /train of 1.0.9, which Label Studio calls no more
        return self._take(event, data, serves=True)

    def _take(self, event: str, data: Json, *, serves: bool) -> Json:
        """Record an event; what is wrong with it is logged and answered, not raised."""
        project = data.get("project")
        number = _number(project.get("id") if isinstance(project, dict) else project)
        if number is None:
            return {"ignored": event}
        opened = _process.opened(serves=serves)
        try:
            with webhooks.Letterbox(opened.store) as letterbox:
                model = ALCModel(opened.store, opened.jobs, letterbox, number)
                taken = model.fit(event, data)
        except (AlcError, ValueError) as error:
            log.warning("%s of project %s was not taken: %s", event, number, error)
            return {"error": str(error)}
        if opened.ingest is not None:
            opened.ingest.notice()
        return taken

    @staticmethod
    def _model(number: int, opened: _Opened) -> ALCModel:
        """What answers about a project; it takes no events."""
        return ALCModel(opened.store, opened.jobs, webhooks.Letterbox(opened.store), number)


def _number(project: Any) -> int | None:
    """The id in a project key of Label Studio (``"12.1700000000"``); None for anything else."""
    number = str(project).partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 10 else None
