"""From a finished job in CVAT to the ledger: its webhook, the service's route, its thread."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

pytest.importorskip("cvat_sdk", reason="cvat-sdk is not installed")

from alc_backend.loop import overview
from alc_backend.loop.cvat import answers
from alc_backend.service.web.app import create_app
from alc_backend.store.cvat import CvatJob
from tests.command_line import alc
from tests.conftest import wait_for
from tests.loop.cvat.annotators import add_tag, ask_round, jobs_of, said, set_state


@pytest.fixture
def service(settings, redis):
    with TestClient(create_app(settings)) as client:
        yield client


def deliver(cvat, service):
    """Let what CVAT's webhooks sent arrive; the statuses of the answers."""
    sent, cvat.delivered = cvat.delivered, []
    return [
        service.post(urlsplit(url).path, content=body, headers=headers).status_code
        for url, body, headers in sent
    ]


def test_a_finished_job_reaches_the_ledger_by_its_webhook(store, cvat, asked_round, service):
    (job,) = jobs_of(cvat)
    add_tag(cvat, job, 0, "dog")
    set_state(cvat, job, "in progress")
    assert deliver(cvat, service) == [200]
    set_state(cvat, job)
    assert said(store) == []
    assert deliver(cvat, service) == [200]
    wait_for(lambda: len(said(store)) == 3)
    assert [entry[2] for entry in said(store)] == ["correct", "accept", "accept"]


def test_a_report_waits_while_cvat_is_away(store, cvat, asked_round):
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    reported = {"event": "update:job", "job": {"id": job}}
    assert answers.note_report(store, cvat.questions_project, reported)
    cvat.is_away = True
    assert answers.read_reported(store) == {}
    cvat.is_away = False
    assert answers.read_reported(store) == {}  # it is not due yet
    with store.session() as session:
        row = session.scalars(select(CvatJob)).one()
        assert row.tries == 1
        assert "503" in row.problem
        session.execute(update(CvatJob).values(next_try_at=None))
    assert answers.read_reported(store) == {"recorded": 3}
    assert answers.read_reported(store) == {}


def test_one_job_that_cvat_refuses_holds_up_no_other(store, settings, cvat, asked_round):
    with store.session() as session:
        row = session.scalars(select(CvatJob)).one()
        session.add(CvatJob(job=999, cvat_task_id=row.cvat_task_id, first=90, last=99))
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    for number in (999, job):
        reported = {"event": "update:job", "job": {"id": number}}
        assert answers.note_report(store, cvat.questions_project, reported)
    assert answers.read_reported(store) == {"recorded": 3}


def test_a_new_secret_goes_to_the_webhook(store, settings, cvat, project):
    (hook,) = cvat.webhooks.values()
    before = hook["secret"]
    rotating = settings.model_copy(
        update={
            "secret": type(settings.secret)("another-secret"), "secret_previous": settings.secret
        }
    )  # fmt: skip
    done = alc(rotating, "secret", "rotate")
    assert done.returncode == 0, done.stderr
    assert hook["secret"] != before
    assert "another-secret" not in hook["secret"]


def test_the_doctor_finds_and_repairs_what_is_amiss_in_cvat(store, settings, cvat, project):
    def found(*options):
        told = json.loads(alc(settings, "doctor", "--json", *options).stdout)["findings"]
        return {one["check"]: one["state"] for one in told if one["check"].endswith("in CVAT")}

    fine = {"questions in CVAT": "ok", "webhook in CVAT": "ok", "finished jobs in CVAT": "ok"}
    assert found() == fine
    cvat.webhooks.clear()
    assert found() == {**fine, "webhook in CVAT": "problem"}
    assert found("--fix") == {**fine, "webhook in CVAT": "repaired"}
    assert found() == fine
    cvat.projects.clear()
    assert found()["questions in CVAT"] == "problem"


def test_the_pages_lead_to_cvat(cvat, store, project, queue, service, monkeypatch):
    monkeypatch.setattr(overview, "REFRESH_S", -1.0)
    headers = {"Authorization": "Bearer s3cret"}
    page = service.get("/", headers=headers).text
    assert "Start the first round." in page
    assert 'id="start"' in page
    assert f'href="{cvat.url}/projects/{cvat.questions_project}">Questions in CVAT' in page
    assert f'href="{cvat.url}/tasks/7">Masks in CVAT' in page
    ask_round(store, project, queue)
    assert "3 questions are left" in service.get("/", headers=headers).text
    image = service.get("/images/1", headers=headers).text
    assert f'href="{cvat.url}/tasks/7?frame=0">Mask in CVAT' in image
