from __future__ import annotations

import re

import pytest

from alc_backend.common.durations import Pace, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")],
)
def test_durations_are_rounded(seconds, text):
    assert duration(seconds) == text


def test_the_pace_counts_from_where_the_work_went_on():
    pace = Pace()
    assert pace.left(300, 400) == ""  # from a checkpoint
    assert re.fullmatch(r", \d+ s left", pace.left(301, 400))
    assert pace.left(400, 400) == ", 0 s left"
