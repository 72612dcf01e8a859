"""label-studio-ml's own server with a real Label Studio, a real Redis and a real worker.

It has an environment of its own, which `make test-label-studio-ml` makes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from alc_backend.cli.demo.labeler import answer_queries
from alc_backend.service.jobs.processes import start_redis
from alc_backend.store.incoming import Event
from alc_backend.store.models import LedgerEntry, Round
from tests.conftest import wait_for
from tests.docs.blocks import ROOT
from tests.e2e.conftest import demonstration
from tests.e2e.demonstration import alc, is_up, project_row, retrieve_predictions, wait_open

pytestmark = [pytest.mark.ls, pytest.mark.slow]

ENVIRONMENTS = {
    "1.0.9": ROOT / ".venv-label-studio-ml",
    "2.x": ROOT / ".venv-label-studio-ml-2",
}


@pytest.fixture(params=list(ENVIRONMENTS))
def program(request):
    """The version of label-studio-ml, and its program."""
    found = ENVIRONMENTS[request.param] / "bin/label-studio-ml"
    if not found.is_file():
        pytest.skip(f"{found.parents[1].name} is not there: see `make test-label-studio-ml`")
    return request.param, found


@pytest.fixture
def served(program, tmp_path):
    """The demonstration behind label-studio-ml: no `alc serve`, but Redis and a worker."""
    version, command = program
    folder = shutil.copytree(ROOT / "docker/label-studio-ml", tmp_path / "served")

    def start(processes, settings):
        start_redis(processes, settings)
        (tmp_path / "events").mkdir()
        environment = {**settings.environment(), "PYTHONPATH": str(ROOT)}
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        events = {"PATH": path, "MODEL_DIR": str(tmp_path / "events")}
        line = f"{shlex.quote(str(command))} start {folder} --port {settings.port}"
        processes.start("served", ["sh", "-c", f"exec {line}"], environment=environment | events)
        url = f"http://127.0.0.1:{settings.port}/health"
        processes.wait_for(lambda: is_up(url), "label-studio-ml", 60)
        worker = [sys.executable, "-m", "alc_backend.cli", "worker"]
        processes.start("worker", worker, environment=settings.environment(), restart=True)

    with demonstration(tmp_path / "demo", start) as (demo, processes):
        yield version, demo, processes, tmp_path / "events"


def rows(demo, what):
    with demo.store.reading() as session:
        return session.scalars(select(what)).all()


def test_masks_appear_a_round_starts_and_an_answer_reaches_the_ledger(served):
    version, demo, processes, events = served
    project = project_row(demo)
    backend = demo.settings.backend

    # Label Studio has connected it, and shows the masks of an image.
    (entry,) = demo.client.get("/api/ml", project=project.dataset_project)
    assert (entry["url"], entry["state"]) == (backend, "CO")
    (task, *_) = demo.client.tasks(project.dataset_project)
    retrieve_predictions(demo, project.dataset_project, task["id"])
    shown = demo.client.get(f"/api/tasks/{task['id']}")["predictions"]
    assert shown
    assert {item["type"] for item in shown[0]["result"]} == {"brushlabels"}
    assert not rows(demo, Round)

    # Start Training starts a round, once however often it is pressed.
    for _ in range(3):
        demo.client.post(f"/api/ml/{entry['id']}/train", {})
    wait_for(lambda: rows(demo, Round))
    opened = wait_open(demo, processes)
    assert opened.number == 1
    assert len(rows(demo, Round)) == 1

    # An answer comes by webhook, through the inbox, into the ledger.
    (question, *_) = demo.client.tasks(project.query_project)
    retrieve_predictions(demo, project.query_project, question["id"])
    assert answer_queries(demo.store, demo.client, demo.project_id, 3) == 3
    wait_for(lambda: len(rows(demo, LedgerEntry)) == 3)
    assert {event.action for event in rows(demo, Event)} == {"ANNOTATION_CREATED"}
    assert len(rows(demo, Event)) == 3
    wait_for(lambda: all(event.processed_at for event in rows(demo, Event)))

    # What it leaves undone is told, and found by reconciling.
    assert f"label-studio-ml {version}" in alc_doctor(demo)
    given = rows(demo, LedgerEntry)[0]
    demo.client.post(
        "/api/dm/actions",
        {"selectedItems": {"all": False, "included": [given.task_id]}},
        id="delete_tasks_annotations",
        project=project.query_project,
    )
    if version == "1.0.9":
        wait_for(lambda: len(rows(demo, Event)) == 4)
        assert not list(events.iterdir())
    else:
        alc(demo, "reconcile", "--full")
    wait_for(lambda: len(rows(demo, LedgerEntry)) == 4)


def alc_doctor(demo) -> str:
    """What `alc doctor` says, whatever else it finds."""
    done = subprocess.run(
        [sys.executable, "-m", "alc_backend.cli", "doctor"],
        env={**os.environ, **demo.settings.environment(), "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def test_nobody_can_have_a_project_made_by_calling_it(served):
    """The server of 1.0.9 asks for no password."""
    _, demo, processes, _ = served
    body = {
        "project": "999999.1", "schema": "<View><Image name='i' value='$image'/><BrushLabels "
        "name='b' toName='i'><Label value='a'/><Label value='b'/></BrushLabels></View>",
    }  # fmt: skip
    answer = httpx.post(f"{demo.settings.backend}/setup", json=body, timeout=30)
    assert answer.status_code == 200
    log = Path(processes.log_of("worker")).read_text()
    assert "999999" not in log
