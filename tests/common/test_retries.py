"""The pauses between tries."""

from __future__ import annotations

from alc_backend.common.retries import pause_after


def test_pauses_double_up_to_five_minutes():
    assert [pause_after(tries) for tries in range(1, 9)] == [5, 10, 20, 40, 80, 160, 300, 300]


def test_the_longest_pause_repeats_however_often_something_was_tried():
    assert pause_after(10**9) == 300
