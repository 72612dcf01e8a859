from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.store import numbers
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Superpixel
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES


@pytest.mark.parametrize("at_once", [1, 4, 5, 1000])
def test_all_rows_are_read_in_blocks(store, dataset, monkeypatch, at_once):
    import_folder(store, dataset, "pets")
    monkeypatch.setattr(numbers, "AT_ONCE", at_once)
    wanted = select(Superpixel.id, Superpixel.size).where(Superpixel.number >= 1)
    with store.reading() as session:
        rows = [tuple(row) for row in session.execute(wanted)]
        blocks = list(numbers.read_numbers(session, wanted))
        after = session.execute(wanted).all()
    assert len(rows) >= 5
    assert all(len(block) <= at_once for block in blocks)
    assert sorted(map(tuple, np.concatenate(blocks))) == sorted(rows)
    assert len(after) == len(rows), "the connection can be used on"


def test_no_rows_give_no_blocks(store):
    with store.reading() as session:
        assert list(numbers.read_numbers(session, select(Superpixel.id))) == []
