"""The next question, compared with one found by trying all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core import questions
from alc_backend.core.acquisition import ACCURACY
from alc_backend.core.questions import REFUSALS, Pace, Question, Questions


def case(seed, count=30, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.uint8)
    sizes = rng.integers(1, 500, count)
    pixels = np.bincount(labels, weights=sizes, minlength=classes).astype(np.int64)
    pixels[0] += 3000
    beliefs = rng.dirichlet(np.full(classes, 0.4), count)
    return labels, sizes, rng.random(count), pixels, beliefs


def worth_of(question, labels, sizes, doubt, pixels, beliefs, pace, open_):
    """The worth of a question for each second, term by term."""
    total, present = pixels.sum(), np.count_nonzero(pixels)
    union = pixels.astype(float)
    for index in range(len(labels)):
        if not open_[index]:
            union[labels[index]] -= doubt[index] * sizes[index]
            continue
        class_id = int(np.argmax(beliefs[index]))
        if class_id != labels[index]:
            union[class_id] += beliefs[index, class_id] * sizes[index]
    share = 1 / np.maximum(union, 1)

    def gain(index, class_id):
        moved = share[labels[index]] + share[class_id] + ACCURACY * present / total
        return sizes[index] * moved

    gains, seconds = 0.0, 0.0 if question.proposed is None else pace.page
    for index in question.members:
        label = labels[index]
        wrong = max(1 - beliefs[index, label], questions.LEAST_DOUBT)
        others = [c for c in range(len(pixels)) if c != label]
        likeliest = max(others, key=lambda c, index=index: beliefs[index, c])
        if question.proposed is None:
            gains += wrong * gain(index, likeliest)
            seconds += pace.accept * (1 - wrong) + pace.correct * wrong
            continue
        doubt = 1 - beliefs[index, question.proposed]
        gains -= questions.CAUTION * doubt * gain(index, question.proposed)
        if question.proposed == label:
            gains += wrong * gain(index, likeliest)
            seconds += pace.tile + pace.correct * wrong
        else:
            gains += beliefs[index, question.proposed] * gain(index, question.proposed)
            seconds += pace.tile
    return gains / seconds


def every_question(labels, classes, open_, tiles):
    """All single questions, and all pages of at most two tiles."""
    left = np.flatnonzero(open_)
    yield from (Question(np.array([index]), None) for index in left)
    for class_id in range(classes):
        for first in left:
            yield Question(np.array([first]), class_id)
            for second in left if tiles > 1 else ():
                alike = (labels[first] == class_id) == (labels[second] == class_id)
                if second != first and alike:
                    yield Question(np.array([first, second]), class_id)


@given(st.integers(0, 2**32), st.sampled_from([0.2, 1.04, 2.4, 9.0]))
def test_no_question_is_worth_more(seed, tile):
    labels, sizes, doubt, pixels, beliefs = case(seed, count=9, classes=3)
    pace = Pace(tile=tile)
    asked = Questions(labels, sizes, doubt, pixels, beliefs, pace=pace, tiles=2)
    open_ = np.ones(9, dtype=bool)
    for _ in range(4):
        found = asked.next()
        worth = worth_of(found, labels, sizes, doubt, pixels, beliefs, pace, open_)
        best = max(
            worth_of(other, labels, sizes, doubt, pixels, beliefs, pace, open_)
            for other in every_question(labels, 3, open_, 2)
        )
        assert worth == pytest.approx(best)
        for index in found.members:
            asked.answer(int(index))
            open_[index] = False


@pytest.mark.parametrize("kind", questions.KINDS)
def test_everything_is_asked_about_in_the_end(kind):
    labels, sizes, doubt, pixels, beliefs = case(1, count=200)
    truth = np.random.default_rng(2).integers(0, 4, 200)
    asked = Questions(labels, sizes, doubt, pixels, beliefs, kind=kind)
    answered, refused = set(), np.zeros((200, 4), dtype=bool)
    for _ in range(2000):
        question = asked.next()
        if question is None:
            break
        assert (question.proposed is None) == (len(question.members) == 1) or kind != "single"
        assert len(set(map(int, question.members))) == len(question.members) <= questions.TILES
        for index in map(int, question.members):
            assert index not in answered
            if question.proposed in (None, truth[index]):
                answered.add(index)
                asked.answer(index)
            else:
                assert not refused[index, question.proposed]
                assert refused[index].sum() < REFUSALS
                refused[index, question.proposed] = True
                asked.rule_out(index, question.proposed)
    assert asked.next() is None
    if kind == "pages":  # what is too uncertain, or a mixture, is not for pages
        assert 20 < len(answered) < 200
    else:
        assert len(answered) == 200


def test_kinds():
    given_ = case(3, count=60)
    assert Questions(*given_, kind="single").next().proposed is None
    assert Questions(*given_, kind="pages").next().proposed is not None
    slow, quick = Pace(tile=1000.0), Pace(accept=1000.0, correct=1000.0)
    assert Questions(*given_, pace=slow).next().proposed is None
    assert Questions(*given_, pace=quick).next().proposed is not None
    with pytest.raises(ValueError, match="kind must be one of mixed, single, pages"):
        Questions(*given_, kind="both")


def test_a_page_is_of_present_labels_or_of_proposals_never_of_both():
    labels, sizes, doubt, pixels, beliefs = case(4, count=300)
    asked = Questions(labels, sizes, doubt, pixels, beliefs, kind="pages")
    seen = set()
    while (question := asked.next()) is not None:
        own = labels[question.members] == question.proposed
        assert own.all() or not own.any()
        seen.add(bool(own.all()))
        for index in question.members:
            asked.answer(int(index))
    assert seen == {True, False}


def test_a_short_list_finds_the_same_questions(monkeypatch):
    given_ = case(5, count=600)
    whole, listed = Questions(*given_), []
    monkeypatch.setattr(questions, "SHORTLIST", 60)
    short = Questions(*given_)
    for _ in range(20):
        expected, found = whole.next(), short.next()
        listed.append(found)
        assert expected.proposed == found.proposed
        assert np.array_equal(expected.members, found.members)
        for index in map(int, found.members):
            whole.answer(index)
            short.answer(index)
    assert any(question.proposed is not None for question in listed)


def test_beliefs_learnt_later_change_the_questions():
    labels, sizes, doubt, pixels, beliefs = case(6)
    asked = Questions(labels, sizes, doubt, pixels, beliefs, kind="single")
    sure = np.eye(4)[labels].astype(float)
    sure[7] = np.eye(4)[(labels[7] + 1) % 4]
    asked.learn(sure)
    assert asked.next().members.tolist() == [7]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_the_fewest_superpixels_hold_a_share_of_the_gain(share):
    labels, sizes, doubt, pixels, beliefs = case(3)
    asked = Questions(labels, sizes, doubt, pixels, beliefs)
    asked.answer(4)
    alone = Pace(accept=1.0, correct=1.0)
    open_ = np.arange(len(labels)) != 4
    gains = sorted(
        (
            worth_of(Question([i], None), labels, sizes, doubt, pixels, beliefs, alone, open_)
            for i in np.flatnonzero(open_)
        ),
        reverse=True,
    )
    held = asked.holding(share)
    assert sum(gains[:held]) >= share * sum(gains) - 1e-9
    assert held == 1 or sum(gains[: held - 1]) < share * sum(gains)


def test_nothing_open_holds_nothing():
    labels, sizes, doubt, pixels, beliefs = case(3, count=2)
    asked = Questions(labels, sizes, doubt, pixels, beliefs)
    asked.answer(0)
    asked.answer(1)
    assert asked.holding(0.95) == 0
