from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from alc_backend.labelstudio import sheets
from alc_backend.labelstudio.sheets import OUTLINE, OUTSIDE, SIDE_PX

GREY = 120


def tile(superpixels, number=1):
    picture = np.full((*superpixels.shape, 3), GREY, dtype=np.uint8)
    return np.asarray(sheets.draw_tile(picture, superpixels, number)).astype(int)


def where(drawn, colour):
    """The pixels of a colour, bool (SIDE_PX, SIDE_PX)."""
    return (np.abs(drawn - colour) < 8).all(axis=2)


def superpixel(shape, rows, cols):
    superpixels = np.zeros(shape, dtype=np.int32)
    superpixels[rows, cols] = 1
    return superpixels


PLACES = {
    "in the middle": superpixel((200, 300), np.s_[80:120], np.s_[100:160]),
    "at the left edge": superpixel((200, 300), np.s_[80:120], np.s_[:60]),
    "in the last corner": superpixel((200, 300), np.s_[160:], np.s_[260:]),
    "one pixel": superpixel((200, 300), 100, 150),
    "one pixel in the first corner": superpixel((200, 300), 0, 0),
    "one pixel in the last corner": superpixel((200, 300), 199, 299),
    "the whole image": superpixel((200, 300), np.s_[:], np.s_[:]),
    "the whole of a tall image": superpixel((900, 20), np.s_[:], np.s_[:]),
    "an image of one pixel": superpixel((1, 1), 0, 0),
    "a line through a large image": superpixel((1500, 3000), np.s_[700], np.s_[:]),
    "two far parts": superpixel((400, 600), np.s_[[3, 380]], np.s_[[5, 590]]),
}


@pytest.mark.parametrize("superpixels", PLACES.values(), ids=PLACES.keys())
def test_a_superpixel_is_seen_whole_with_an_outline_around_it(superpixels):
    drawn = tile(superpixels)
    line, inside = where(drawn, OUTLINE), where(drawn, (GREY,) * 3)
    assert drawn.shape == (SIDE_PX, SIDE_PX, 3)
    assert inside.any()
    rows, cols = inside.nonzero()
    for row, col in zip(rows, cols, strict=True):
        around = np.s_[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
        assert (inside | line)[around].all()
        assert 0 < row < SIDE_PX - 1
        assert 0 < col < SIDE_PX - 1


@pytest.mark.parametrize("where_to", ["in the middle", "at the left edge", "in the last corner"])
def test_the_rest_is_dimmed(where_to):
    drawn = tile(PLACES[where_to])
    dimmed = where(drawn, (int(GREY * sheets.DIMMED),) * 3)
    assert dimmed.sum() > where(drawn, (GREY,) * 3).sum() > 0


def test_tiny_superpixels_are_enlarged_and_huge_ones_reduced():
    tiny, huge = tile(PLACES["one pixel"]), tile(PLACES["the whole image"])
    assert where(tiny, (GREY,) * 3).sum() > 50
    shown = np.ptp(where(huge, (GREY,) * 3).nonzero()[1]) + 1
    assert 0.85 * SIDE_PX < shown < SIDE_PX
    assert where(huge, OUTSIDE).any()


def test_a_known_box_gives_the_same_tile():
    superpixels = PLACES["in the middle"]
    picture = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    found = sheets.draw_tile(picture, superpixels, 1, np.s_[80:120, 100:160])
    assert found.tobytes() == sheets.draw_tile(picture, superpixels, 1).tobytes()


def test_a_superpixel_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no superpixel 9"):
        tile(PLACES["one pixel"], 9)


@pytest.mark.parametrize(("tiles", "size"), [(1, (1, 1)), (5, (5, 1)), (12, (6, 2)), (24, (6, 4))])
def test_a_sheet_has_its_tiles_side_by_side(tiles, size):
    colours = [(10 * number, 250 - 10 * number, 100) for number in range(tiles)]
    drawn = [Image.new("RGB", (SIDE_PX, SIDE_PX), colour) for colour in colours]
    with Image.open(io.BytesIO(sheets.sheet(drawn))) as opened:
        assert opened.format == "JPEG"
        found = np.asarray(opened).astype(int)
    columns, rows = size
    assert sheets.grid(tiles) == size
    assert found.shape == (rows * SIDE_PX, columns * SIDE_PX, 3)
    for place, colour in enumerate(colours):
        row, col = divmod(place, columns)
        middle = found[SIDE_PX * row + SIDE_PX // 2, SIDE_PX * col + SIDE_PX // 2]
        assert np.abs(middle - colour).max() < 12


@pytest.mark.parametrize("tiles", [0, 25])
def test_a_sheet_holds_no_more_than_there_are_keys_for(tiles):
    with pytest.raises(ValueError, match="1 to 24"):
        sheets.sheet([Image.new("RGB", (SIDE_PX, SIDE_PX))] * tiles)


def test_what_comes_from_elsewhere_is_quoted():
    assert "<script>" not in sheets.tile_html('/x.jpg"><script>alert(1)</script>', 0, 3, "1")
