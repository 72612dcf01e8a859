"""The rounds for programs: listed, started, cancelled."""

from __future__ import annotations

import pytest
from rq import Queue

from tests.annotations import asked_project


@pytest.fixture
def project(store, dataset):
    """A project called pets whose first round is open."""
    return asked_project(store, dataset)


def test_rounds_are_listed(service, project):
    (only,) = service.get("/rounds").json()
    assert (only["project"], only["round"], only["state"]) == (project, 1, "open")


def test_a_round_is_started_once_and_cancelled(service, project, redis):
    answers = [service.post("/rounds", json={"project": "pets", "size": 3}) for _ in range(2)]
    assert [answer.json()["started"] for answer in answers] == [True, False]
    assert {answer.json()["round"] for answer in answers} == {2}
    assert len(Queue("train", connection=redis)) == 1
    cancelled = service.post("/rounds/cancel", json={"project": project})
    assert (cancelled.json()["round"], cancelled.json()["state"]) == (2, "cancelled")
    assert service.post("/rounds/cancel", json={"project": project}).status_code == 409


@pytest.mark.parametrize("given", [None, "cats", 99, True])
def test_an_unknown_project_is_not_found(service, project, given):
    answer = service.post("/rounds", json={"project": given})
    assert answer.status_code == 404
    assert "GET /rounds lists them" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("size", 0, "1 to 1000000"),
        ("size", 10**6 + 1, "1 to 1000000"),
        ("folds", "2", "1 to 100"),
        ("folds", 101, "1 to 100"),
        ("folds", 2**62, "1 to 100"),
        ("per_image", True, "1 to 1000000"),
        ("min_area", -1, "0 to 67108864"),
        ("min_area", 2**63, "0 to 67108864"),
    ],
)
def test_options_out_of_range_are_refused(service, project, name, value, allowed):
    answer = service.post("/rounds", json={"project": "pets", name: value})
    assert answer.status_code == 422
    assert answer.json()["detail"] == f"{name} must be an integer from {allowed}"
