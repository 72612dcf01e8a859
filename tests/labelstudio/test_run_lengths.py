"""Run lengths, compared with how Label Studio's own library reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter import brush

from alc_backend.labelstudio import run_lengths


class Writer:
    """Writes numbers of any number of bits."""

    def __init__(self):
        self.bits = ""

    def put(self, value, size):
        self.bits += format(value, f"0{size}b")

    def bytes(self):
        whole = self.bits.ljust(-(-len(self.bits) // 8) * 8, "0")
        return int(whole, 2).to_bytes(len(whole) // 8, "big")


@st.composite
def packed(draw):
    """Any run lengths of an image: (bytes, number of pixels)."""
    pixels = draw(st.integers(1, 60))
    sizes = draw(st.lists(st.integers(1, 16), min_size=4, max_size=4))
    writer = Writer()
    writer.put(4 * pixels, 32)
    writer.put(7, 5)
    for size in sizes:
        writer.put(size - 1, 4)
    left = 4 * pixels
    while left:
        kind = draw(st.integers(0, 3))
        count = draw(st.integers(1, min(left, 2 ** sizes[kind])))
        repeated = draw(st.booleans())
        writer.put(int(repeated), 1)
        writer.put(kind, 2)
        writer.put(count - 1, sizes[kind])
        for _ in range(1 if repeated else count):
            writer.put(draw(st.sampled_from([0, 1, 127, 128, 255])), 8)
        left -= count
    return writer.bytes(), pixels


@given(packed())
def test_they_are_read_as_label_studio_reads_them(given_):
    content, pixels = given_
    expected = brush.decode_rle(list(content)).reshape(pixels, 4)[:, 3] > 127
    edges = run_lengths.decode(content, pixels)
    assert np.array_equal(run_lengths.mask(edges, (1, pixels))[0], expected)
    assert edges.dtype == np.int32
    assert len(edges) % 2 == 0
    assert (np.diff(edges) > 0).all()  # equal masks have equal edges


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_what_the_library_writes_comes_back(height, width, data):
    cells = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    mask = np.array(data.draw(cells)).reshape(height, width)
    content = bytes(brush.mask2rle(mask.astype(np.uint8) * 255))
    edges = run_lengths.decode(content, mask.size)
    assert np.array_equal(run_lengths.mask(edges, mask.shape), mask)


@pytest.mark.parametrize("kind", ["long runs", "pixels", "nothing", "everything"])
def test_what_we_write_is_what_the_library_writes(kind):
    rng = np.random.default_rng(0)
    mask = {
        "long runs": np.arange(300 * 400) // 40_001 % 2 == 1,  # beyond the longest count
        "pixels": rng.random(300 * 400) < 0.5,
        "nothing": np.zeros(300 * 400, dtype=bool),
        "everything": np.ones(300 * 400, dtype=bool),
    }[kind]
    content = run_lengths.encode(
        np.flatnonzero(np.diff(mask, prepend=False, append=False)), mask.size
    )
    expected = bytes(brush.mask2rle(mask.reshape(300, 400).astype(np.uint8) * 255))
    assert expected in (content, content + b"\0")


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_what_we_write_is_read_back(cells):
    edges = np.flatnonzero(np.diff(cells, prepend=False, append=False))
    content = run_lengths.encode(edges, len(cells))
    assert np.array_equal(run_lengths.decode(content, len(cells)), edges)


@given(packed(), st.data())
def test_what_is_damaged_is_refused_or_stays_within_the_image(given_, data):
    content, pixels = given_
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(5, len(damaged))) :]
    try:
        edges = run_lengths.decode(bytes(damaged), pixels)
    except ValueError:
        return
    assert run_lengths.mask(edges, (1, pixels)).shape == (1, pixels)


def test_another_size_and_nothing_at_all_are_refused():
    content = bytes(brush.mask2rle(np.full((4, 4), 255, dtype=np.uint8)))
    for wrong, pixels in ((content, 17), (b"", 16), (content[:5], 16)):
        with pytest.raises(ValueError, match="brush region"):
            run_lengths.decode(wrong, pixels)
