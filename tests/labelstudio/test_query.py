from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alc_backend.labelstudio import query

CLASSES = ["background", "cat", "dog"]


def content(mask, row, col, pseudo_label=1, classes=CLASSES, proposed=()):
    return query.QueryContent(
        url="/data/upload/1/x.jpg",
        image_key="x",
        height=mask.shape[0],
        width=mask.shape[1],
        superpixel=7,
        row=row,
        col=col,
        pseudo_label=pseudo_label,
        classes=classes,
        round_number=3,
        shape=query.shape_of(mask),
        proposed=proposed,
    )


def filled(points, shape):
    """The pixels inside a polygon given in percent."""
    height, width = shape
    scale = 8  # drawn large and sampled at pixel centres
    picture = Image.new("1", (width * scale, height * scale))
    corners = [(x / 100 * width * scale, y / 100 * height * scale) for x, y in points]
    ImageDraw.Draw(picture).polygon(corners, fill=1)
    return np.asarray(picture)[scale // 2 :: scale, scale // 2 :: scale]


def test_the_question_names_the_pseudo_label_and_lists_it_first():
    data = query.task_data(content(np.ones((4, 4), bool), 1, 1, pseudo_label=2))
    assert "“dog”" in data["question"]
    assert [choice["value"] for choice in data["choices"]] == ["dog", "background", "cat"]
    assert data["alc"] == {"image": "x", "superpixel": 7}
    assert query.asked_about(data) == query.Key("x", 7)


def test_an_adjudication_names_the_classes_and_lists_them_first():
    data = query.task_data(content(np.ones((4, 4), bool), 1, 1, proposed=(2, 0)))
    assert "“dog” or “background”" in data["question"]
    assert [choice["value"] for choice in data["choices"]] == ["dog", "background", "cat"]
    assert query.asked_about(data) == query.Key("x", 7, adjudication=True)


def test_a_tasks_data_has_a_name_that_does_not_depend_on_the_order_of_its_fields():
    data = query.task_data(content(np.ones((4, 4), bool), 1, 1))
    assert query.digest(data) == query.digest(dict(reversed(data.items())))
    assert query.digest(data) != query.digest({**data, "hint": ""})


@pytest.mark.parametrize(
    "data", [None, [], {}, {"alc": None}, {"alc": "x"}, {"alc": {"image": 7, "superpixel": "x"}}]
)
def test_tasks_that_somebody_else_made_are_about_nothing(data):
    assert query.asked_about(data) == query.NOT_OURS


def test_a_class_keeps_its_key_in_every_question():
    mask = np.ones((4, 4), dtype=bool)
    questions = [query.task_data(content(mask, 0, 0, number)) for number in range(3)]
    keys = [{c["value"]: c["hotkey"] for c in data["choices"]} for data in questions]
    assert keys[0] == keys[1] == keys[2] == {"background": "1", "cat": "2", "dog": "3"}


def test_classes_beyond_the_keys_have_none():
    classes = [f"class {number}" for number in range(150)]
    data = query.task_data(content(np.ones((4, 4), bool), 0, 0, 40, classes))
    assert len(data["choices"]) == 150
    given = [choice["hotkey"] for choice in data["choices"] if "hotkey" in choice]
    assert len(given) == len(set(given)) == len(query.HOTKEYS)


def test_every_result_belongs_to_a_tag_of_the_label_config():
    root = ElementTree.fromstring(query.label_config())
    labels = {
        tag.get("name"): {label.get("value") for label in tag.iter("Label")} for tag in root.iter()
    }
    for item in query.prediction(content(np.ones((6, 6), bool), 2, 2)):
        assert item["from_name"] in labels
        for used in item["value"].get(item["type"], []):
            if item["type"] != "choices":
                assert used in labels[item["from_name"]]


def marks(mask, row, col):
    found = {}
    for item in query.prediction(content(mask, row, col)):
        found.setdefault(item["from_name"], []).append(item["value"])
    return found


def test_box_star_and_outline_lie_where_the_superpixel_is():
    mask = np.zeros((60, 90), dtype=bool)
    mask[10:30, 20:50] = True
    mask[40:55, 60:80] = True  # a second piece
    found = marks(mask, 15, 40)
    box = found["box"][0]
    assert (box["x"], box["y"]) == pytest.approx((20 / 90 * 100, 10 / 60 * 100), abs=0.01)
    assert box["x"] + box["width"] == pytest.approx(80 / 90 * 100, abs=0.01)
    assert box["y"] + box["height"] == pytest.approx(55 / 60 * 100, abs=0.01)
    star = np.mean(found["star"][0]["points"], axis=0)
    assert star == pytest.approx([40.5 / 90 * 100, 15.5 / 60 * 100], abs=0.3)
    assert len(found["outline"]) == 2
    drawn = np.zeros_like(mask)
    for outline in found["outline"]:
        drawn |= filled(outline["points"], mask.shape)
    assert (drawn ^ mask).sum() <= 0.06 * mask.sum()


@pytest.mark.parametrize("place", [(0, 0), (5, 8), (9, 11)])
def test_a_superpixel_of_one_pixel_has_an_outline(place):
    mask = np.zeros((10, 12), dtype=bool)
    mask[place] = True
    found = marks(mask, *place)
    assert len(found["outline"]) == 1
    points = np.array(found["outline"][0]["points"])
    centre = [(place[1] + 0.5) / 12 * 100, (place[0] + 0.5) / 10 * 100]
    assert points.mean(axis=0) == pytest.approx(centre, abs=0.5)
    assert len(points) >= 3


def test_crumbs_do_not_flood_the_screen():
    mask = np.zeros((80, 80), dtype=bool)
    mask[::4, ::4] = True
    mask[40:60, 40:60] = True
    outlines = query.outlines(mask)
    assert len(outlines) == query.MAX_OUTLINES
    assert np.ptp(outlines[0], axis=0).min() > 15  # the large piece is there
