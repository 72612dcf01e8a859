"""Which superpixels a user study asks about."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from alc_backend.errors import SettingsError
from alc_backend.study import drawing
from alc_backend.study.record import Asked


def asked(number, *, wrong, label=1, image=None):
    return Asked(image or f"i{number}", number, 0, 0, label, label + 1 if wrong else label)


POOL = [
    asked(number, wrong=number % 3 == 0, label=number % 4, image=f"i{number % 9}")
    for number in range(1, 61)
]


def test_a_superpixel_is_asked_about_at_its_middle_when_its_truth_is_clear():
    superpixels = np.zeros((40, 60), np.int32)
    superpixels[2:12, 2:12] = 1  # a cat called dog
    superpixels[2:22, 20:40] = 2  # half of it another class
    superpixels[30:32, 2:4] = 3  # too small to see
    superpixels[25:39, 42:58] = 5  # void
    superpixels[14:24, 2:12] = 6  # the right label
    truth = np.zeros((40, 60), np.uint8)
    truth[2:12, 2:12], truth[2:12, 20:40], truth[25:39, 42:58] = 1, 1, 255
    labels = np.where(superpixels == 1, 2, 0).astype(np.uint8)
    found = list(drawing.candidates("x", labels, superpixels, truth))
    assert [(one.superpixel, one.label, one.truth) for one in found] == [(1, 2, 1), (6, 0, 0)]
    assert all(4 < one.col < 9 for one in found)
    assert 4 < found[0].row < 9


@pytest.mark.parametrize("group", [None, 3, 5])
@pytest.mark.parametrize(("count", "share", "wrong"), [(20, 0.5, 10), (10, 0.0, 0), (7, 1.0, 7)])
def test_as_many_labels_are_wrong_as_was_asked_for(group, count, share, wrong):
    chosen = drawing.drawn(POOL, count, share, 0, group=group)
    assert len(chosen) == len(set(chosen)) == count
    assert sum(one.is_wrong for one in chosen) == wrong
    assert chosen == drawing.drawn(list(reversed(POOL)), count, share, 0, group=group)


def test_images_come_once_before_any_comes_twice():
    chosen = drawing.drawn(POOL, 9, 0.3, 1)
    assert set(Counter(one.image for one in chosen).values()) == {1}


def test_questions_for_pages_come_in_groups_of_one_label():
    chosen = drawing.drawn(POOL, 15, 0.4, 0, group=5)
    assert sorted(Counter(one.label for one in chosen).values()) == [5, 5, 5]
    pages = drawing.in_pages(chosen, 5)
    assert sorted(index for page in pages for index in page) == list(range(15))
    assert all(len({chosen[index].label for index in page}) == 1 for page in pages)


def test_pages_are_of_about_the_same_size():
    same = [asked(number, wrong=False) for number in range(7)]
    assert [len(page) for page in drawing.in_pages(same, 5)] == [4, 3]


def test_too_few_superpixels_are_told():
    with pytest.raises(SettingsError, match="20 clear superpixels with a wrong label, and 30"):
        drawing.drawn(POOL, 30, 1.0, 0)
