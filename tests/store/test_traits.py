"""What a round's scoring pass keeps of its superpixels."""

from __future__ import annotations

from alc_backend.store.traits import ShardTraits
from tests.pages import traits


def test_shards_that_were_scored_before_and_after_a_class_was_added_go_together():
    whole = ShardTraits.joined([traits([1, 2], classes=3), traits([3], classes=4)], classes=5)
    assert whole.superpixels.tolist() == [1, 2, 3]
    assert whole.predicted.shape == (3, 5)
    assert (whole.predicted[:2, 3:] == 0).all()
    assert whole.class_pixels.tolist() == [2000, 2000, 2000, 1000, 0]


def test_no_shards_have_no_superpixels_of_all_classes():
    none = ShardTraits.joined([], classes=3)
    assert none.predicted.shape == (0, 3)
    assert none.class_pixels.tolist() == [0, 0, 0]
