"""Label Studio's shapes as pixels: against a plain rasteriser, and where they are refused."""

from __future__ import annotations

import base64
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alc_backend.core.arrays import VOID
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.regions import painted, read_regions
from tests.labelstudio.results import bitmask_value, brush_value, covered, result

CONFIG = """<View>
<Image name="image" value="$photo"/><Image name="depth" value="$depth"/>
<BrushLabels name="brush" toName="image"><Label value="road"/><Label value="car" alias="c"/>
  <Label value="tree" alias="🌳"/></BrushLabels>
<BitmaskLabels name="bitmask" toName="image"><Label value="car"/><Label value="tree"/>
  </BitmaskLabels>
<PolygonLabels name="polygon" toName="image"><Label value="tree"/><Label value="car" alias="auto"/>
  </PolygonLabels>
<RectangleLabels name="rectangle" toName="image"><Label value="car"/></RectangleLabels>
<EllipseLabels name="ellipse" toName="image"><Label value="road"/></EllipseLabels>
<RectangleLabels name="plate" toName="image"><Label value="number plate"/></RectangleLabels>
<PolygonLabels name="far" toName="depth"><Label value="car"/></PolygonLabels>
<Choices name="weather" toName="image"><Choice value="rain"/></Choices>
</View>"""
TAGS = read_dataset_config(CONFIG)
CLASSES = ["road", "car", "tree"]
WORDS = {"road": 0, "car": 1, "c": 1, "auto": 1, "tree": 2, "🌳": 2}

percent = st.integers(-4000, 14000).map(lambda value: value / 100 + 0.00137)
length = st.integers(1, 12000).map(lambda value: value / 100 + 0.00137)
angle = st.sampled_from([0, 90, 180, 270]) | st.floats(0, 359.99)
words = st.sampled_from(sorted(WORDS))
kinds = st.sampled_from(["brush", "bitmask", "polygon", "rectangle", "ellipse"])
elsewhere = st.sampled_from([
    {"from_name": "far", "to_name": "depth"},
    {"from_name": "brush", "to_name": "depth"},
    {"from_name": "plate"},
])  # fmt: skip


@st.composite
def values(draw, kind, shape):
    """The value of a region, and the pixels that it covers."""
    if kind in ("brush", "bitmask"):
        bits = draw(
            st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
        )
        mask = np.array(bits).reshape(shape)
        return (brush_value if kind == "brush" else bitmask_value)(mask), mask
    if kind == "polygon":
        points = st.lists(st.lists(percent, min_size=2, max_size=2), min_size=3, max_size=7)
        value = {"points": draw(points)} | draw(st.sampled_from([{}, {"closed": True}]))
    else:
        sides = ("width", "height") if kind == "rectangle" else ("radiusX", "radiusY")
        value = {"x": draw(percent), "y": draw(percent), "rotation": draw(angle)}
        value |= {side: draw(length) for side in sides}
    mask = covered(kind, value, shape)
    assume(mask is not None)
    return value, mask


@st.composite
def annotations(draw):
    """A result as it is submitted, (H, W) of its image, and its masks with their class ids."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    items, masks = [], []
    for number in range(draw(st.integers(0, 6))):
        kind, word = draw(kinds), draw(words)
        value, mask = draw(values(kind, shape))
        turned = draw(st.sampled_from([0, 90, 180, 270]))
        item = result(kind, value, word, shape, identity=f"r{number}", image_rotation=turned)
        if draw(st.integers(0, 4)) == 0:
            items.append(item | draw(elsewhere))
            continue
        items.append(item)
        masks.append((mask, WORDS[word]))
    items.append({"type": "choices", "from_name": "weather", "value": {"choices": ["rain"]}})
    items.append({"type": "relation", "from_id": "r0", "to_id": "r1", "direction": "right"})
    return items, shape, masks


@settings(max_examples=300, deadline=None)
@given(annotations())
def test_results_are_painted_as_the_screen_shows_them(annotation):
    items, shape, masks = annotation
    expected = np.full(shape, VOID, dtype=np.uint8)
    for mask, class_id in sorted(masks, key=lambda one: -one[0].sum()):
        expected[mask] = class_id
    regions = read_regions(TAGS.masks(items), CLASSES, shape)
    assert [region.class_id for region in regions] == [class_id for _, class_id in masks]
    for region, (mask, _) in zip(regions, masks, strict=True):
        assert np.array_equal(region.mask(), mask)
        canvas = np.zeros(shape, dtype=bool)
        region.paint(canvas, True)
        assert np.array_equal(canvas, mask)
        assert region.area == mask.sum()
        assert (np.diff(region.edges) > 0).all()
    maps = painted(TAGS.masks(items), CLASSES, shape, VOID)
    assert (maps is None) == (not masks)
    assert maps is None or np.array_equal(maps[0], expected)


def mask_of(kind, value, shape=(10, 20), **changes):
    (region,) = read_regions(
        TAGS.masks([result(kind, value, "car", shape, **changes)]), CLASSES, shape
    )
    return region.mask()


def test_neighbours_share_no_pixel_and_leave_none():
    """Borders through the centres of pixels: 2.5 % of 20 pixels is half a pixel."""
    borders = [0, 2.5, 7.5, 50, 97.5, 100]
    boxes = [
        mask_of("rectangle", {"x": a, "y": 0, "width": b - a, "height": 100})
        for a, b in pairwise(borders)
    ]
    assert (np.sum(boxes, axis=0) == 1).all()
    triangles = [[[0, 0], [100, 0], [100, 100]], [[0, 0], [100, 100], [0, 100]]]
    halves = [mask_of("polygon", {"points": points}) for points in triangles]
    assert (np.sum(halves, axis=0) == 1).all()


def test_a_rectangle_turns_around_its_first_corner_in_pixels_not_in_percent():
    turned = mask_of("rectangle", {"x": 50, "y": 20, "width": 25, "height": 20, "rotation": 90})
    expected = np.zeros((10, 20), dtype=bool)
    expected[2:7, 8:10] = True  # 5 × 2 pixels, turned clockwise: downwards, and to the left
    assert np.array_equal(turned, expected)


def test_an_ellipse_turns_around_its_centre():
    turned = mask_of("ellipse", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 90})
    upright = mask_of("ellipse", {"x": 50, "y": 50, "radiusX": 5, "radiusY": 40})
    assert np.array_equal(turned, upright)
    assert turned.sum() == 12


def test_what_a_polygon_winds_around_twice_belongs_to_it():
    """As browsers fill it: with the rule of non-zero winding."""
    twice = [[0, 0], [50, 0], [50, 100], [0, 100]] * 2
    assert mask_of("polygon", {"points": twice}).sum() == 100


def test_what_is_drawn_outside_of_the_image_is_cut_off():
    assert mask_of("rectangle", {"x": -50, "y": -50, "width": 1000, "height": 1000}).all()
    assert not mask_of("rectangle", {"x": 120, "y": 0, "width": 10, "height": 100}).any()
    assert not mask_of("ellipse", {"x": 50, "y": 50, "radiusX": 0, "radiusY": 9}).any()


def test_half_transparent_pixels_of_a_bitmask_count_from_the_middle_on():
    pixels = np.zeros((10, 20), dtype=bool)
    pixels[3, 4:9] = True
    assert np.array_equal(mask_of("bitmask", bitmask_value(pixels)), pixels)


BOX = {"x": 1, "y": 1, "width": 9, "height": 9}
POINTS = [[0, 0], [9, 0], [9, 9]]


@pytest.mark.parametrize(("kind", "value", "reason"), [
    ("brush", {"format": "rle"}, "no field 'rle'"),
    ("brush", {"rle": "abc"}, "no list"),
    ("brush", {"rle": [300]}, "cannot be read"),
    ("bitmask", {}, "no field 'imageDataURL'"),
    ("bitmask", {"imageDataURL": "https://example.com/a.png"}, "no PNG"),
    ("bitmask", {"imageDataURL": "data:image/png;base64,§"}, "cannot be read"),
    ("bitmask", {"imageDataURL": "data:image/png;base64,AAAA"}, "cannot be read"),
    ("bitmask", bitmask_value(np.ones((3, 4), dtype=bool)), "4×3 pixels, and the image 20×10"),
    ("polygon", {"points": POINTS[:2]}, "fewer than three points"),
    ("polygon", {"points": POINTS, "closed": False}, "not closed"),
    ("polygon", {"points": [*POINTS, [1]]}, "pairs"),
    ("polygon", {"points": [*POINTS, [1, "2"]]}, "points must be numbers"),
    ("polygon", {"points": [*POINTS, [1, float("nan")]]}, "points must be numbers"),
    ("rectangle", {**BOX, "rotation": "left"}, "rotation must be numbers"),
    ("rectangle", {"x": 1, "y": 1, "width": 9}, "no field 'height'"),
    ("ellipse", BOX, "no field 'radiusX'"),
    ("ellipse", {**BOX, "radiusX": 1e300, "radiusY": 1}, "radiusX must be numbers"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(kind, value, reason):
    with pytest.raises(ValueError, match=rf"region 'r7' \({kind}labels\): .*{reason}"):
        mask_of(kind, value, identity="r7")


def test_shapes_in_percent_need_no_size_but_must_not_contradict_the_image():
    item = result("polygon", {"points": POINTS}, "car", (10, 20))
    bare = {name: found for name, found in item.items() if not name.startswith("original")}
    assert read_regions(TAGS.masks([bare]), CLASSES, (10, 20))
    with pytest.raises(ValueError, match="differs in size"):
        read_regions(TAGS.masks([item]), CLASSES, (20, 10))
    broken = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
    with pytest.raises(ValueError, match="cannot be read"):
        mask_of("bitmask", {"imageDataURL": broken})
