"""The figures of a user study: times without interruptions, and what tells designs apart."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from scipy import stats

from alc_backend.study import measures
from alc_backend.study.answers import Given, Person, Taken, uninterrupted
from alc_backend.study.record import CLASSIFICATION, CORRECTION, PAGE, Asked, Group, Study

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("given", "kept", "replaced"),
    [
        ([2.0, 3.0, 4.0], [2.0, 3.0, 4.0], 0),
        ([2.0, 3.0, 19.0], [2.0, 3.0, 19.0], 0),  # more than five medians, but no pause
        ([2.0, 3.0, 4.0, 400.0], [2.0, 3.0, 4.0, 3.5], 1),
        ([30.0, 40.0, 50.0, 150.0], [30.0, 40.0, 50.0, 150.0], 0),  # somebody slow
        ([2.0, None, 4.0, 0.0], [2.0, 3.0, 4.0, 3.0], 2),
    ],
)
def test_the_median_takes_the_place_of_an_interruption(given, kept, replaced):
    assert uninterrupted(given) == (kept, replaced)


def person(name, design, seconds, right=True, each=1):
    answers = [
        Given(tuple(range(turn * each, (turn + 1) * each)), (right,) * each, turn % 2 == 0, s, NOON)
        for turn, s in enumerate(seconds)
    ]
    return Person(name, design, answers, list(seconds), 0)


def study(questions=4):
    asked = [Asked("x", number, 0, 0, 1, 1 + number % 2) for number in range(questions)]
    groups = [Group(design, 1, {}) for design in (CORRECTION, CLASSIFICATION, PAGE)]
    return Study("s", ["a", "b", "c", "d"], 9, asked, groups)


def test_times_ratios_and_tests_are_those_of_the_people():
    quick = [[2, 4, 2, 4], [2.5, 5, 2.5, 5], [3, 5, 2, 4]]
    slow = [[6, 6, 6, 6], [5, 7, 6, 8], [7, 7, 7, 6]]
    people = [person(str(n), CORRECTION, seconds) for n, seconds in enumerate(quick)]
    people += [person(str(n + 9), CLASSIFICATION, seconds, n > 0) for n, seconds in enumerate(slow)]
    found = measures.measure(study(), Taken(people, ["why"]))
    correction, classification = found.designs
    assert correction.total.mean == pytest.approx(np.mean([sum(s) for s in quick]))
    assert correction.total.spread == pytest.approx(np.std([sum(s) for s in quick], ddof=1))
    assert classification.accuracy.mean == pytest.approx(2 / 3)
    (apart,) = found.differences
    assert apart.ratio == pytest.approx(np.sum(quick) / np.sum(slow))
    expected = stats.ttest_ind(
        [np.mean(s) for s in quick], [np.mean(s) for s in slow], equal_var=False
    )
    assert apart.time_p == pytest.approx(expected.pvalue)
    assert apart.low < np.mean(quick) - np.mean(slow) < apart.high < 0
    assert found.theorem == pytest.approx((0.5 + 0.5 * 2) / 2)  # L = 4, half of the labels right
    assert found.seconds == {
        "accept": pytest.approx(np.mean([s[::2] for s in quick])),
        "correct": pytest.approx(np.mean([s[1::2] for s in quick])),
        "classify": pytest.approx(np.mean(slow)),
    }
    assert found.left_out == ["why"]


def test_a_tile_takes_what_its_page_takes_beyond_the_pages_own_time():
    found = measures.measure(study(), Taken([person("1", PAGE, [5.0, 7.0], each=2)], []))
    assert found.seconds == {"tile": pytest.approx(2.5)}
    assert found.designs[0].per_question.mean == 3.0
    assert found.differences == []


@pytest.mark.parametrize(("one", "other"), [([1.0], [2.0, 3.0]), ([2.0, 2.0], [3.0, 3.0])])
def test_what_cannot_be_tested_is_not(one, other):
    assert measures.welch(one, other) == (None, None, None)


def test_nobody_has_answered_yet():
    found = measures.measure(study(), Taken([], []))
    assert (found.designs, found.differences, found.seconds) == ([], [], {})
