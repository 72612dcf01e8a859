from __future__ import annotations

import pytest

from alc_backend.core.questions import Pace
from alc_backend.loop.questions.pace import FEWEST, FURTHEST, measured_pace
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import LedgerEntry


def entry(kind, lead_time, *, annotation=1, position=0):
    return LedgerEntry(
        kind=kind,
        lead_time=lead_time,
        annotation_id=annotation,
        position=position,
        superpixel_id=1,
    )


def test_few_answers_leave_the_published_times():
    few = [entry(EntryKind.ACCEPT, 9.0)] * (FEWEST - 1)
    assert measured_pace(few) == Pace()
    studied = Pace(accept=2.0, tile=0.7)
    assert measured_pace(few, studied) == studied


def test_times_are_medians_so_that_a_pause_does_not_count():
    accepts = [entry(EntryKind.ACCEPT, 3.0)] * FEWEST + [entry(EntryKind.ACCEPT, 4000.0)]
    corrections = [entry(EntryKind.CORRECT, 8.0)] * FEWEST
    skips = [entry(EntryKind.SKIP, 100.0)] * FEWEST
    found = measured_pace([*accepts, *corrections, *skips])
    assert (found.accept, found.correct) == (3.0, 8.0)


def test_a_page_takes_its_published_time_beside_its_tiles():
    kinds = (EntryKind.ACCEPT, EntryKind.RULED_OUT)
    pages = [
        entry(kinds[position % 2], 1.75, annotation=number, position=position)
        for number in range(FEWEST)
        for position in range(1, 5)
    ]  # each page took 7 s: one for the page, 1.5 for a tile
    found = measured_pace(pages)
    assert found.tile == pytest.approx((7.0 - found.page) / 4)
    assert found.accept == Pace().accept


def test_times_beyond_reason_are_bounded():
    slow = [entry(EntryKind.ACCEPT, 1e6)] * FEWEST
    assert measured_pace(slow).accept == FURTHEST * Pace().accept
