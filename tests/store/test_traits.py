"""The files with what a round keeps of superpixels."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from alc_backend.errors import NotFoundError
from alc_backend.store.traits import ShardTraits
from tests.traits import are_equal, some_traits


@pytest.fixture
def files(store):
    return store.files(1)


def test_what_is_written_is_read_back(files):
    written = some_traits([3, 5, 9])
    files.write_traits(2, 7, written)
    assert are_equal(files.read_traits(2, 7), written)


def test_a_shard_without_superpixels_is_written_and_read(files):
    nothing = ShardTraits.joined([], 3)
    files.write_traits(1, 1, nothing)
    assert are_equal(files.read_traits(1, 1), nothing)
    assert nothing.predicted.shape == (0, 3)


def test_a_missing_file_is_named(files):
    with pytest.raises(NotFoundError, match=r"rounds/2/traits/7\.npz"):
        files.read_traits(2, 7)


def archive(**changes) -> bytes:
    content = io.BytesIO()
    np.savez(content, **{**some_traits([1, 2])._asdict(), **changes})
    return content.getvalue()


def without_sizes() -> bytes:
    content = io.BytesIO()
    arrays = some_traits([1, 2])._asdict()
    del arrays["sizes"]
    np.savez(content, **arrays)
    return content.getvalue()


def claiming(shape) -> bytes:
    """A file whose features have this shape by their header, and few values."""
    header = io.BytesIO()
    described = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    content = io.BytesIO(archive())
    packed = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            ours = name == "features.npy"
            new.writestr(name, header.getvalue() + b"\0\0" if ours else old.read(name))
    return packed.getvalue()


DAMAGED = {
    "empty": lambda: b"",
    "half": lambda: archive()[:900],
    "no archive": lambda: b"\x89PNG\r\n\x1a\n",
    "one array less": without_sizes,
    "huge": lambda: claiming((2, 10**12)),
    "shapes that multiply to less": lambda: claiming((-1, -1)),
    "a pickle": lambda: archive(sizes=np.array([1, {}], dtype=object)),
    "another type": lambda: archive(sizes=np.ones(2)),
    "another dimension": lambda: archive(sizes=np.ones((2, 1), np.int64)),
    "a number alone": lambda: archive(sizes=np.int64(3)),
    "another length": lambda: archive(sizes=np.ones(3, np.int64)),
    "other classes": lambda: archive(predicted=np.ones((2, 4), np.float16)),
    "a class that there is not": lambda: archive(labels=np.array([0, 3], np.uint8)),
    "no numbers": lambda: archive(doubt=np.array([0, np.nan], np.float16)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(files, store, damage):
    (name,) = files.of_traits(2, [7])
    store.storage.write(name, DAMAGED[damage]())
    with pytest.raises(NotFoundError, match=r"rounds/2/traits/7\.npz: cannot be read"):
        files.read_traits(2, 7)


def test_any_flipped_byte_is_noticed_or_does_no_harm():
    content = some_traits([1, 2]).packed()
    for place in range(0, len(content), 7):
        spoiled = bytearray(content)
        spoiled[place] ^= 0x55
        try:
            read = ShardTraits.unpacked(bytes(spoiled))
        except ValueError:
            continue
        assert are_equal(read, some_traits([1, 2]))


def test_shards_are_joined_in_their_order():
    joined = ShardTraits.joined([some_traits([4, 2]), some_traits([]), some_traits([8])], 3)
    assert joined.superpixels.tolist() == [4, 2, 8]
    assert joined.features.shape == (3, 4)
    assert joined.class_pixels.tolist() == [21, 21, 21]


def test_a_shard_without_superpixels_has_no_say_in_the_features():
    joined = ShardTraits.joined([ShardTraits.joined([], 3), some_traits([4, 2])], 3)
    assert joined.features.shape == (2, 4)


def test_features_that_some_shards_lack_are_left_out():
    joined = ShardTraits.joined([some_traits([4]).without_features(), some_traits([2])], 3)
    assert joined.features.shape == (2, 0)
    assert joined.superpixels.tolist() == [4, 2]


def test_only_some_are_kept_without_features():
    kept = some_traits([4, 2, 8]).only(np.array([4, 8, 77])).without_features()
    assert kept.superpixels.tolist() == [4, 8]
    assert kept.features.shape == (2, 0)
    assert kept.sizes.tolist() == [40, 80]
    assert kept.class_pixels.tolist() == [7, 7, 7]
    assert are_equal(ShardTraits.unpacked(kept.packed()), kept)


def test_shards_that_were_scored_before_and_after_a_class_was_added_go_together():
    older, newer = some_traits([1, 2]), ShardTraits.joined([some_traits([3])], 4)
    whole = ShardTraits.joined([older, newer], 5)
    assert whole.superpixels.tolist() == [1, 2, 3]
    assert whole.predicted.shape == (3, 5)
    assert (whole.predicted[:, 3:] == 0).all()
    assert len(whole.class_pixels) == 5
    assert ShardTraits.joined([], 3).predicted.shape == (0, 3)
