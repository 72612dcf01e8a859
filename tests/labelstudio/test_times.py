from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from alc_backend.labelstudio.times import read_time

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01T12:00:00.250000Z", NOON + timedelta(seconds=0.25)),
        ("2026-01-01T14:00:00+02:00", NOON),
    ],
)
def test_times_are_read_with_their_zone(value, expected):
    assert read_time(value) == expected


@pytest.mark.parametrize("value", [None, 7, "", "yesterday", "2026-01-01T12:00:00", ["Z"]])
def test_anything_else_is_refused_by_its_value(value):
    with pytest.raises(ValueError, match="time") as caught:
        read_time(value)
    assert repr(value) in str(caught.value)
