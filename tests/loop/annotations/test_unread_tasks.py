"""Tasks that Label Studio does not give: told, and in nobody's way."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.labelstudio.client import OVERLOADED
from alc_backend.loop.annotations import reconciliation, webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.overview import overview
from alc_backend.store.incoming import Event
from tests.annotations import (
    DATASET_PROJECT,
    QUERY_PROJECT,
    annotation,
    answer,
    created,
    deleted,
    image_of,
    in_ledger,
    receive,
    region,
    task_of,
)
from tests.fake_label_studio import SMALL

pytestmark = pytest.mark.usefixtures("small")

KINDS = pytest.mark.parametrize("kind", ["large", "500"])


@pytest.fixture
def mend(label_studio):
    """Label Studio gives everything again, and nothing says that it has changed."""

    def mend():
        label_studio.recover()
        for task in label_studio.tasks.values():
            task.data.pop("text", None)

    return mend


def told(store, project):
    return [text for text in overview(store, project).problems if "cannot be had" in text]


@KINDS
@pytest.mark.parametrize("full", [False, True])
def test_reconciling_goes_on_without_it(
    store, project, label_studio, look, mend, caplog, kind, full
):
    bad, good = task_of(store, "a", 1), task_of(store, "a", 2)
    label_studio.annotate(answer(1, bad, "cat"))
    label_studio.annotate(answer(2, good, "dog"))
    assert look() == {Outcome.RECORDED: 2}
    label_studio.annotate(answer(3, bad, "dog", by=8, minute=5))
    label_studio.annotate(answer(4, good, "cat", by=8, minute=5))
    label_studio.spoil(bad, kind)
    counts = look(full=full)
    assert counts[Outcome.UNREADABLE] == 1
    assert counts[Outcome.RECORDED] == 1
    assert in_ledger(store, project).keys() == {1, 2, 4}  # what was known of it stays
    (problem,) = told(store, project)
    assert f"task {bad} of Label Studio project {QUERY_PROJECT} cannot be had" in problem
    assert ("500" if kind == "500" else "larger than") in problem
    assert f"task {bad} of Label Studio project {QUERY_PROJECT}" in caplog.text
    mend()
    assert look(full=True)[Outcome.RECORDED] == 1
    assert in_ledger(store, project).keys() == {1, 2, 3, 4}
    assert told(store, project) == []


@KINDS
def test_an_image_whose_task_cannot_be_had_stays_in_the_dataset(
    store, project, label_studio, look, kind
):
    bad = image_of(store, "a").dataset_task
    painted = [region("dog", slice(0, 4), slice(0, 4))]
    label_studio.annotate(annotation(1, bad, painted))
    label_studio.annotate(annotation(2, image_of(store, "b").dataset_task, painted))
    label_studio.spoil(bad, kind)
    assert look() == {Outcome.UNREADABLE: 1, Outcome.RECORDED: 1}
    assert image_of(store, "a").removed is None
    (problem,) = told(store, project)
    assert f"task {bad} of Label Studio project {DATASET_PROJECT}" in problem


@KINDS
def test_a_query_whose_task_cannot_be_had_keeps_it(store, project, label_studio, look, kind):
    bad = task_of(store, "a", 1)
    label_studio.spoil(bad, kind)
    label_studio.add_task(9999, {})  # so that the tasks are compared
    look()
    assert task_of(store, "a", 1) == bad


def test_what_is_gone_from_label_studio_is_told_no_more(store, project, label_studio, look):
    bad = task_of(store, "a", 1)
    label_studio.annotate(answer(1, bad, "cat"))
    label_studio.spoil(bad, "large")
    look()
    assert told(store, project)
    del label_studio.tasks[bad]
    look(full=True)
    assert told(store, project) == []


@KINDS
def test_the_inbox_goes_on_without_it(store, project, label_studio, mend, kind):
    bad, good = task_of(store, "a", 1), task_of(store, "a", 2)
    for number, task in enumerate((bad, good), start=1):
        record = answer(number, task, "dog")
        label_studio.annotate(record)
        receive(store, project, created(record))
    label_studio.spoil(bad, kind)
    counts = webhooks.drain(store, label_studio.client)
    assert counts[Outcome.RECORDED] == 1
    assert counts[Outcome.UNREADABLE] == (kind == "large")
    assert in_ledger(store, project).keys() == {2}
    assert webhooks.waiting(store) == (kind == "500")  # which may pass
    with store.reading() as session:
        outcome = session.scalars(select(Event.outcome).order_by(Event.id)).first()
    assert f"task {bad} of Label Studio project {QUERY_PROJECT} cannot be had" in outcome
    assert any(outcome.removeprefix("to be tried again: ") in t for t in told(store, project))
    mend()
    receive(store, project, created(label_studio.annotation(1)))
    webhooks.drain(store, label_studio.client)
    assert in_ledger(store, project).keys() == {1, 2}


def test_an_annotation_too_large_to_be_read_is_not_taken_for_a_deleted_one(
    store, project, label_studio
):
    record = answer(1, task_of(store, "a", 1), "cat")
    label_studio.annotate(record)
    receive(store, project, created(record))
    webhooks.drain(store, label_studio.client)
    record["result"].append({"id": "x" * SMALL})
    receive(store, project, deleted(1))
    assert webhooks.drain(store, label_studio.client) == {Outcome.PRESENT: 1}
    assert in_ledger(store, project).keys() == {1}


@pytest.mark.parametrize("status", [None, 401, *OVERLOADED])
def test_in_an_outage_nothing_is_left_out(store, project, label_studio, look, status):
    record = answer(1, task_of(store, "a", 1), "cat")
    label_studio.annotate(record)
    receive(store, project, created(record))
    label_studio.fail(status, "/api/tasks/")
    with pytest.raises(reconciliation.LabelStudioError):
        look()
    webhooks.drain(store, label_studio.client)
    assert webhooks.waiting(store) == 1
    assert told(store, project) == []
