"""Bringing the queue of an open round back into a Label Studio that was restored from a dump.

Writes Label Studio (tasks, predictions, the version in force) and the queries in the database.
Called by ``adjudication`` when reconciling has noted that the round is ``displaced``.
"""

from __future__ import annotations

from dataclasses import replace

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import model_version, query, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.loop import page_tasks, query_tasks
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Query, Round
from alc_backend.store.pages import Page


def bring_back(store: Store, client: Client, round_: Round, report: Reporter) -> None:
    """Make the tasks and predictions that the round's queue lacks, and let Label Studio follow it.

    What Label Studio has of it stays: it may be on somebody's screen. Questions of earlier rounds
    whose answers Label Studio lost are served again, and get the round's marks; they come last, as
    the answers are in force until others replace them. May be repeated after a crash. Raises
    LabelStudioError.
    """
    number = round_.project.query_project
    assert number is not None
    version = model_version.of_round(round_.number)
    asked = Query.round_id == round_.id
    pages = page_tasks.planned(round_, round_.plans)
    query_tasks.create_missing(store, client, round_, asked, look=True)
    page_tasks.create_missing(store, client, round_, pages, report)
    held = tasks.existing_tasks(client, number)
    queue = [
        *page_tasks.page_items(store, round_, pages),
        *query_tasks.queue_items(store, round_, asked),
    ]
    scored = tasks.scored(queue)
    with store.reading() as session:
        awaiting = page_tasks.awaiting_review(session.get_one(Project, round_.project_id))
    there_yet = awaiting & Page.task_id.is_not(None)
    scored += [(item, tasks.LAST) for item in page_tasks.page_items(store, round_, there_yet)]
    earlier = ~asked & Query.task_id.is_not(None) & Query.closed_at.is_(None)
    scored += [
        (item, tasks.LAST)
        for item in query_tasks.queue_items(store, round_, earlier)
        if item.task_id in held and held[item.task_id].is_open
    ]
    best = tasks.best_scores(client, number, version)
    lacking = [
        (item, score)
        for item, score in scored
        if item.task_id not in best or score < best[item.task_id] == tasks.LAST
    ]
    if not tasks.add_predictions(client, number, version, lacking):
        raise LabelStudioError("Label Studio does not keep the predictions of all tasks")
    there = [
        replace(item, changed=held[item.task_id].digest != query.digest(item.data))
        for item, _ in scored
        if item.task_id in held and not item.key.page
    ]
    query_tasks.update_changed(store, client, round_, asked, there, report)
    if not tasks.is_switched(client, number, version):
        tasks.switch(client, number, version)
    with report.session() as session:
        session.get_one(Round, round_.id).displaced = False
