"""`ALCBackend` on stand-ins of label-studio-ml's base class, as its two versions construct it.

The servers themselves are in tests/e2e/test_label_studio_ml.py.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import ClassVar

import pytest
from sqlalchemy import select

from alc_backend.store.incoming import Event
from alc_backend.store.models import Image, Project, Round
from tests.annotations import asked_project
from tests.fake_label_studio import FakeLabelStudio


class Old:
    """As 1.0.9 has it."""

    def __init__(self, label_config=None, train_output=None, **kwargs):
        self.label_config = label_config


class New:
    """As 2.x has it: made anew for each request."""

    kept: ClassVar[dict] = {}

    def __init__(self, project_id=None, label_config=None):
        self.project_id, self.label_config = project_id or "", label_config
        self.setup()

    def set(self, key, value):
        self.kept[self.project_id, key] = value


@pytest.fixture
def adapter(monkeypatch, settings, redis):
    """The module, imported with one of the base classes."""
    FakeLabelStudio().serve(monkeypatch)
    modules = []

    def load(base):
        package, module = types.ModuleType("label_studio_ml"), types.ModuleType("model")
        module.LabelStudioMLBase = base
        monkeypatch.setitem(sys.modules, "label_studio_ml", package)
        monkeypatch.setitem(sys.modules, "label_studio_ml.model", module)
        monkeypatch.delitem(sys.modules, "alc_backend.service.ml_backend", raising=False)
        loaded = importlib.import_module("alc_backend.service.ml_backend")
        monkeypatch.delitem(sys.modules, "alc_backend.service.ml_backend")
        monkeypatch.setattr(loaded, "settings", lambda: settings)
        modules.append(loaded)
        return loaded.ALCBackend

    yield load
    for module in modules:  # their threads would go on reading a store that is gone
        module._process.rest()
        module._process.forget()


@pytest.fixture
def project(store, dataset):
    project_id = asked_project(store, dataset)
    with store.reading() as session:
        return session.get_one(Project, project_id)


def created(project):
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": project.query_project},
        "annotation": {"id": 5, "task": 77},
        "task": {"id": 77},
    }


def events(store):
    with store.reading() as session:
        return session.scalars(select(Event)).all()


def tasks_of(store, project):
    with store.reading() as session:
        images = session.scalars(select(Image).order_by(Image.id)).all()
    return [{"id": image.dataset_task, "project": project.dataset_project} for image in images]


def test_1_0_9_is_told_by_each_task_which_project_it_is_of(adapter, store, project):
    model = adapter(Old)(label_config="<View/>", access_token="x")
    known = tasks_of(store, project)
    asked = [known[0], {"id": 1, "project": 999}, {"id": 2}, known[1]]
    found = model.predict(asked, login="a", password="b")
    assert [bool(answer) for answer in found] == [True, False, False, True]
    assert found[0]["result"][0]["type"] == "brushlabels"
    assert found[0]["model_version"]


def test_2_x_says_which_project_it_is_made_for(adapter, store, project):
    model = adapter(New)(str(project.dataset_project), label_config="")
    assert New.kept[str(project.dataset_project), "model_version"]
    found = model.predict([{"id": task["id"]} for task in tasks_of(store, project)], {})
    assert all(answer["result"] for answer in found)
    assert adapter(New)("").predict([{"id": 1}]) == [[]]  # before it is connected


def test_events_go_into_the_inbox(adapter, store, project, tmp_path):
    (tmp_path / "1700000000").mkdir()
    old = adapter(Old)()
    payload = created(project)
    given = {"workdir": str(tmp_path / "1700000000")}
    assert old.process_event(payload["action"], payload, "1700000000", given) is None
    assert not list(tmp_path.glob("17*"))
    assert len(events(store)) == 1
    assert old.process_event(payload["action"], payload, "1700000000", {}) is None
    taken = adapter(New)("").fit(payload["action"], payload)
    assert taken == {"event": events(store)[-1].id}


@pytest.mark.parametrize("base", [Old, New])
def test_start_training_starts_a_round(adapter, store, project, base):
    payload = {"project": {"id": project.query_project, "label_config": "<View/>"}}
    for _ in range(2):
        if base is Old:
            adapter(base)().process_event("START_TRAINING", payload, "1", {})
        else:
            assert adapter(base)("").fit("START_TRAINING", payload)["job"]
    with store.reading() as session:
        started = [r for r in session.scalars(select(Round)) if r.state != "open"]
    assert len(started) == 1


@pytest.mark.parametrize(
    ("event", "data", "answer"),
    [
        ("START_TRAINING", {"project": 999}, {"error"}),
        ("ANNOTATION_CREATED", {"project": {"id": "x"}}, {"ignored"}),
        ("ANNOTATION_CREATED", {}, {"ignored"}),
        ([], "/tmp", set()),
        ("PROJECT_UPDATED", {"project": 12}, {"ignored"}),
    ],
)
def test_what_cannot_be_taken_is_answered(adapter, project, event, data, answer):
    assert set(adapter(New)("").fit(event, data)) == answer


def test_an_event_without_an_annotation_is_answered(adapter, project):
    data = {"project": {"id": project.query_project}, "annotation": 7}
    assert "annotation" in adapter(New)("").fit("ANNOTATION_CREATED", data)["error"]


def test_a_forked_process_opens_its_own(adapter, store, project):
    """As gunicorn forks its workers, after a request was answered in the parent."""
    model = adapter(New)("")
    assert model.fit("ANNOTATION_CREATED", created(project))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if "event" in model.fit("ANNOTATION_CREATED", created(project)) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(events(store)) == 2
    assert model.fit("ANNOTATION_CREATED", created(project))
