"""What is asked all the time looks its rows up: no statement reads a whole large table."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import event, select, update

from alc_backend.cvat.client import UPDATE_JOB
from alc_backend.loop.annotations import history, webhooks
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.cvat import answers
from alc_backend.loop.questions import planning
from alc_backend.loop.rounds import executor, lifecycle, nodes, plan, work_items
from alc_backend.loop.workplace import workplace
from alc_backend.service.web.model import ALCModel
from alc_backend.service.web.operations import operations_router
from alc_backend.service.web.pages.gallery import gallery_router
from alc_backend.service.web.pages.pictures import pictures_router
from alc_backend.service.web.pages.projects import projects_router
from alc_backend.service.web.pages.rendering import Renderer
from alc_backend.service.web.pages.thumbnails import Thumbnails
from alc_backend.service.web.pages.tiles import tiles_router
from alc_backend.store.cvat import CvatJob, CvatProject, CvatTask
from alc_backend.store.models import Part, Project, Round
from alc_backend.store.round_states import Step
from tests.annotations import (
    CAT,
    answer,
    arrive,
    asked_project,
    created,
    deleted,
    image_of,
    label_studio_of,
    region,
    task_of,
)
from tests.annotations import annotation as edit
from tests.conftest import BOTH_DATABASES
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT
from tests.machine import write_batch
from tests.pages import add_page

pytestmark = BOTH_DATABASES

LARGE = ("ledger", "scores", "superpixels", "image_states", "cvat_questions")
"""Tables that have a hundred thousand rows, or millions, where there are as many images."""

OF_ALL = ("project_id", "round_id")
"""Columns that are the same in all rows of a project, or of a round."""


@pytest.fixture
def project(store, dataset):
    """A project with an answer, an edit, a page and a batch of the machine."""
    project_id = asked_project(store, dataset)
    add_page(store, project_id, proposed=CAT)
    task = image_of(store, "b").dataset_task
    painted = edit(2, task, [region("dog", slice(0, 9), slice(0, 9))])
    arrive(
        store,
        project_id,
        created(answer(1, task_of(store, "a", 1), "dog")),
        created(painted, {"alc": {"image": "b"}}, DATASET_PROJECT),
    )
    write_batch(store, project_id)
    return project_id


class Statements:
    """The statements that an engine was given, each with its parameters, once."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self.found: dict[str, object] = {}

    @contextmanager
    def recorded(self):
        event.listen(self._engine, "before_cursor_execute", self._note)
        try:
            yield self
        finally:
            event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, connection, cursor, statement, parameters, context, executemany) -> None:
        if re.match(r"(?is)\s*(select|with|update|delete|insert)\b", statement):
            self.found.setdefault(statement, parameters[0] if executemany else parameters)

    def reading_all(self) -> list[str]:
        """Those that read a whole large table, or all of a project or a round, with the plan."""
        on_sqlite = self._engine.dialect.name == "sqlite"
        found = []
        with self._engine.connect() as connection:
            if not on_sqlite:
                # tables are small here: sorting them would be cheaper than reading in order
                connection.exec_driver_sql("SET enable_seqscan = off; SET enable_sort = off")
            for statement, parameters in self.found.items():
                wanted = "EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN (FORMAT JSON) "
                rows = connection.exec_driver_sql(wanted + statement, parameters).all()
                steps = [row[3] for row in rows] if on_sqlite else list(steps_of(rows[0][0][0]))
                is_few = "LIMIT" in statement.split() and not any(map(sorts, steps))
                found += [
                    f"{step}: {statement}"
                    for step in steps
                    if reads_all(step) and not (is_few and "(project_id=?)" in step)
                ]
        return found


def steps_of(node):
    """The steps of PostgreSQL's plan that read large tables, as SQLite would tell of them."""
    node = node.get("Plan", node)
    relation, kind = node.get("Relation Name"), node["Node Type"]
    condition = node.get("Index Cond")
    if kind == "Bitmap Heap Scan":
        condition = " ".join(conditions_of(node))
    if relation in LARGE and kind.endswith("Scan"):
        told = " AND ".join(f"{one}?" for one in compared(condition or ""))
        yield f"SEARCH {relation} ({told})" if told else f"SCAN {relation}"
    if kind == "Sort":
        yield kind
    for child in node.get("Plans", []):
        yield from steps_of(child)


def compared(condition) -> list[str]:
    """The columns that PostgreSQL's condition compares with something, each with how."""
    found = re.findall(r"\b([a-z_]+)\)* (=|<|>|IN|IS)", condition)
    return sorted({column + (how if how in "<>" else "=") for column, how in found})


def conditions_of(node):
    for child in node.get("Plans", []):
        if "Index Cond" in child:
            yield child["Index Cond"]
        yield from conditions_of(child)


def reads_all(step) -> bool:
    """Whether a step of a plan reads a large table from one end to the other."""
    found = re.match(rf"(SCAN|SEARCH) (?:{'|'.join(LARGE)})(?:_\d+)?\b(.*)", step)
    if found is None:
        return False
    told = set(re.findall(r"(\w+[=<>])\?", found[2]))
    return found[1] == "SCAN" or told <= {*(f"{column}=" for column in OF_ALL), "annotation_id>"}


def sorts(step) -> bool:
    """Whether a step sorts what was read: a limit does not end the reading early."""
    return step in ("USE TEMP B-TREE FOR ORDER BY", "Sort")


@pytest.fixture
def statements(store, project):
    return Statements(store.engine)


@pytest.fixture
def pages(store):
    """The service's pages, without its threads and its password."""
    app, renderer = FastAPI(), Renderer(store.settings)
    app.include_router(projects_router(store, None, renderer))
    app.include_router(gallery_router(store, renderer))
    thumbnails = Thumbnails(store.settings.data_dir / "thumbnails")
    app.include_router(pictures_router(store, thumbnails))
    app.include_router(tiles_router(store, thumbnails))
    app.include_router(operations_router(store, Redis(port=1)))
    return TestClient(app, base_url="http://127.0.0.1")


def test_a_whole_table_that_is_read_is_seen(store, project, statements):
    with statements.recorded(), store.reading() as session:
        session.execute(select(Round))
    assert statements.reading_all() == []
    for seen, statement in enumerate(
        (
            "SELECT * FROM ledger",
            "SELECT count(*) FROM superpixels WHERE size > 3",
            f"SELECT kind FROM ledger WHERE project_id = {project}",
            "SELECT row FROM scores WHERE round_id = 1",
        ),
        start=1,
    ):
        with statements.recorded(), store.engine.connect() as connection:
            connection.exec_driver_sql(statement)
        assert len(statements.reading_all()) == seen


PATHS = [
    "/health", "/ready", "/metrics", "/", "/projects/1", "/images", "/images?sort=corrected",
    "/images?sort=disputed", "/images?sort=doubtful", "/images?shows=dog", "/images/1",
    "/images/1/after",
    "/images/1/superpixels", "/superpixels/1.jpg",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_pages_look_up_what_they_show(pages, statements, path):
    with statements.recorded():
        assert pages.get(path).status_code in (200, 503)
    assert statements.reading_all() == []


@pytest.mark.parametrize("number", [DATASET_PROJECT, QUERY_PROJECT])
def test_predictions_look_up_what_is_asked(store, project, statements, number):
    asked = {
        DATASET_PROJECT: [image_of(store, key).dataset_task for key in "abc"],
        QUERY_PROJECT: [task_of(store, key, 2) for key in "abc"],
    }
    with statements.recorded():
        model = ALCModel(store, None, None, number)
        assert all(model.predict([{"id": task} for task in asked[number]]))
    assert statements.reading_all() == []


def test_webhooks_look_up_what_they_name(store, project, statements):
    label_studio = label_studio_of(store)
    with statements.recorded():
        new = created(answer(3, task_of(store, "b", 1), "cat"))
        counts = arrive(store, project, new, label_studio=label_studio)
        counts += arrive(store, project, deleted(3), label_studio=label_studio)
        webhooks.waiting(store)
    assert counts.total() == 2
    assert statements.reading_all() == []


def test_the_history_looks_up_its_last_lines(store, project, statements):
    with statements.recorded():
        assert history.list_entries(store, project, last=3)
        assert history.list_entries(store, project, images=["a"])
    assert statements.reading_all() == []


def test_reconciling_what_has_not_changed_looks_little_up(store, project, statements):
    with label_studio_of(store).client() as client:
        reconcile(store, client, project)
        with statements.recorded():
            reconcile(store, client, project)
    assert statements.found
    assert statements.reading_all() == []


def test_what_workers_look_for_every_few_seconds_is_looked_up(store, project, statements):
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        session.execute(update(Round).values(planned_to=0, unasked=True))
        session.add(Part(round_id=round_.id, step=Step.ASKING, number=0, work={}))
    with statements.recorded():
        lifecycle.start_due(store, lambda part: None)
        executor.recover(store, lambda part: None)
        nodes.running_trainings(store)
        (part,) = work_items.ready_parts(store)
        claimed = work_items.claim_part(store, part.id)
        assert claimed is not None
        with store.reading() as session:
            round_ = session.scalars(select(Round)).one()
            planning.is_due(session, round_)
            plan.cleanup_is_due(session, round_)
    assert statements.reading_all() == []


def test_what_cvat_reports_looks_up_its_job(store, project, statements):
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        session.add(CvatProject(project_id=project, source="task", number=7, questions=5))
        task = CvatTask(project_id=project, round_id=round_.id, name="Round 1", task=8)
        session.add(task)
        session.flush()
        session.add(CvatJob(job=9, cvat_task_id=task.id, first=0, last=24))
    with statements.recorded():
        reported = {"event": UPDATE_JOB, "job": {"id": 9}}
        assert answers.note_report(store, 5, reported)
        assert answers.read_reported(store) == {}
        lifecycle.start_due(store, lambda part: None)
        with store.reading() as session:
            workplace(session, session.get_one(Project, project), store.settings)
    assert statements.reading_all() == []
