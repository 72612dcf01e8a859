"""Pages of look-alikes, and what annotators say to them, as the store has them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from sqlalchemy import select

from alc_backend.labelstudio import page as pages
from alc_backend.store import recording
from alc_backend.store.models import Image, LedgerEntry, Round, Superpixel
from alc_backend.store.pages import Page, Tile
from tests.annotations import CAT, NOON, annotation, at

PLACES = (("a", 1), ("a", 2), ("b", 1))
"""The superpixels of a page, by image key and number."""


def add_page(
    store,
    project_id,
    places=PLACES,
    *,
    proposed=CAT,
    key="0" * 32,
    task_id=800,
    round_number=None,
    closed_at=None,
    plan=1,
    review=False,
) -> int:
    """A page, already in Label Studio, about superpixels that are labelled cat; returns its id."""
    with store.session() as session:
        rounds = select(Round).where(Round.project_id == project_id)
        if round_number is not None:
            rounds = rounds.where(Round.number == round_number)
        page = Page(
            project_id=project_id,
            round=session.scalars(rounds.order_by(Round.number.desc()).limit(1)).one(),
            key=key,
            proposed=proposed,
            plan=plan,
            review=review,
            place=0.5,
            task_id=task_id,
            closed_at=closed_at,
        )
        for position, (image, number) in enumerate(places, start=1):
            superpixel = session.scalars(
                select(Superpixel)
                .join(Image)
                .where(Image.key == image, Superpixel.number == number)
            ).one()
            page.tiles.append(
                Tile(
                    position=position,
                    superpixel_id=superpixel.id,
                    row=10 + position,
                    col=12,
                    pseudo_label=CAT,
                )
            )
        session.add(page)
        session.flush()
        return page.id


def say_to_page(
    store,
    page_id,
    number,
    ticked,
    *,
    by="7",
    minute=0.0,
    revised=None,
    again=False,
    lead_time=6.0,
    label_studio_project=None,
) -> list[LedgerEntry]:
    """Somebody answers a page (None: skips it) in a minute after noon; returns what is new."""
    with store.session() as session:
        page = session.get_one(Page, page_id)
        reply = recording.Reply(
            annotation_id=number,
            class_id=page.proposed,
            annotator=by,
            lead_time=lead_time,
            answered_at=NOON + timedelta(minutes=minute),
            updated_at=NOON + timedelta(minutes=minute if revised is None else revised),
            task_id=page.task_id,
            label_studio_project=label_studio_project,
        )
        return recording.record_page(session, page, reply, ticked, again=again)


def ask_page(
    label_studio,
    dataset,
    places=PLACES,
    *,
    round_number=1,
    key="0" * 32,
    task=8000,
    epsilon=0.0,
    minute=-60,
) -> pages.PageContent:
    """Let Label Studio ask whether superpixels (image key and number) are cats, as a page."""
    maps = {sample.key: sample.superpixels for sample in dataset.samples()}
    tiles = []
    for image, number in places:
        row, col = np.argwhere(maps[image] == number)[0].tolist()
        tiles.append(pages.Tile(image, number, row, col, CAT))
    content = pages.PageContent(
        key, round_number, epsilon, CAT, dataset.classes, tuple(tiles), f"/data/upload/{key}.jpg"
    )
    label_studio.add_task(task, pages.task_data(content))
    label_studio.predict(
        task,
        pages.prediction(content),
        number=50_000 + task,
        model_version=f"alc-round-{round_number}",
        created_at=at(minute),
    )
    return content


def reply_to_page(label_studio, number, task, content, ticked, **changes) -> None:
    """Somebody leaves the tiles at these positions ticked; None: they skip the page."""
    result = [] if ticked is None else pages.annotation_result(content, ticked)
    skipped = {"was_cancelled": True} if ticked is None else {}
    label_studio.annotate(annotation(number, task, result, **skipped, **changes))
