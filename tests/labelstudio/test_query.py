from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alc_backend.errors import SettingsError
from alc_backend.labelstudio import query
from alc_backend.labelstudio.texts import languages, texts

CLASSES = ["background", "cat", "dog"]


def content(mask, row, col, pseudo_label=1, classes=CLASSES, proposed=(), likely=()):
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
        likely=likely,
    )


def filled(points, shape):
    """The pixels inside a polygon given in percent."""
    height, width = shape
    scale = 8  # drawn large and sampled at pixel centres
    image = Image.new("1", (width * scale, height * scale))
    corners = [(x / 100 * width * scale, y / 100 * height * scale) for x, y in points]
    ImageDraw.Draw(image).polygon(corners, fill=1)
    return np.asarray(image)[scale // 2 :: scale, scale // 2 :: scale]


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


def test_with_more_classes_than_keys_the_likely_ones_come_first_and_have_keys():
    classes = [f"class {number}" for number in range(150)]
    likely = (7, 40, 99, *range(100, 115))
    data = query.task_data(content(np.ones((4, 4), bool), 0, 0, 40, classes, likely=likely))
    assert len(data["choices"]) == len({choice["value"] for choice in data["choices"]}) == 150
    order = [40, 7, 99, *range(100, 107)]
    assert [choice["value"] for choice in data["choices"][:10]] == [classes[n] for n in order]
    assert [choice.get("hotkey") for choice in data["choices"][:11]] == [*"1234567890", None]
    assert not any("hotkey" in choice for choice in data["choices"][10:])


def test_more_classes_than_keys_get_a_field_to_search_in():
    def tags(classes):
        return [tag.tag for tag in ElementTree.fromstring(query.label_config(classes)).iter()]

    assert "Filter" not in tags(len(query.HOTKEYS))
    many = tags(len(query.HOTKEYS) + 1)
    assert many.index("Filter") == many.index("Choices") - 1


def test_questions_speak_the_labelers_language(tmp_path):
    german = texts("de")
    data = query.task_data(content(np.ones((4, 4), bool), 1, 1), german)
    assert data["question"] == "Ist dieses Pixel „cat“?"
    again = query.task_data(content(np.ones((4, 4), bool), 1, 1, proposed=(1, 2)), german)
    assert "„cat“ oder „dog“" in again["question"]
    assert "Stern" in query.label_config(3, german)
    own = tmp_path / "own.json"
    own.write_text('{"question": "{label}, yes?"}')
    data = query.task_data(content(np.ones((4, 4), bool), 1, 1), texts(str(own)))
    assert data["question"] == "cat, yes?"
    assert data["hint"] == texts().hint


@pytest.mark.parametrize("language", languages())
def test_every_language_has_every_text(language):
    found = texts(language)
    assert found.ask("cat").count("cat") == 1
    assert all(name in found.ask_again(["cat", "dog"]) for name in ("cat", "dog"))
    assert language == "en" or found.question != texts().question


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "an object"),
        ('{"question": 3}', "an object of texts"),
        ('{"question": "Right?"}', "'question' must have {label}"),
        ('{"hint": "Not {label}"}', "'hint' must have no place"),
        ('{"quetsion": "{label}?"}', "no text 'quetsion'"),
        ('{"question": "{label}? {0}"}', "must have"),
        ("no json", "cannot be read"),
    ],
)
def test_texts_that_do_not_fit_are_named(tmp_path, content, reason):
    own = tmp_path / "own.json"
    own.write_text(content)
    with pytest.raises(SettingsError, match=reason):
        texts(str(own))


def test_unknown_languages_are_named():
    with pytest.raises(SettingsError, match="de, en, es, fr"):
        texts("tlh")
    with pytest.raises(SettingsError, match="cannot be read"):
        texts("nothing.json")


def test_only_what_is_small_on_the_screen_is_shown_from_close_up():
    small = np.zeros((1200, 1800), dtype=bool)
    small[600:610, 900:906] = True  # 5 pixels high on the screen
    html = query.task_data(content(small, 605, 903))["closeup"]
    assert html.count("/data/upload/1/x.jpg") == 1
    assert "<polygon" in html
    assert "<circle" in html
    large = small.copy()
    large[600:640] = True
    assert query.task_data(content(large, 605, 903))["closeup"] == ""


def test_a_close_up_shows_the_superpixel_in_its_middle():
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[100, 900] = True
    html = query.task_data(content(mask, 100, 900))["closeup"]
    left, top = (float(re.search(rf"{side}:(-[\d.]+)px", html)[1]) for side in ("left", "top"))
    width = float(re.search(r"width:([\d.]+)px;height:[\d.]+px;left", html)[1])
    scale = width / 1000
    assert left + 900.5 * scale == pytest.approx(150, abs=0.2)
    assert top + 100.5 * scale == pytest.approx(150, abs=0.2)
    x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', html).groups())
    assert (x, y) == (pytest.approx(150, abs=0.2), pytest.approx(150, abs=0.2))


def test_a_close_up_quotes_what_comes_from_elsewhere():
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[5, 5] = True
    odd = replace(content(mask, 5, 5), url='/data/x.jpg"><script>alert(1)</script>')
    assert "<script>" not in query.task_data(odd)["closeup"]


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


@pytest.mark.parametrize("corner", [(0, 0), (41, 60), (59, 71)])
def test_a_part_of_the_image_has_the_shape_that_the_whole_has(corner):
    mask = np.zeros((80, 100), dtype=bool)
    top, left = corner
    mask[top : top + 21, left : left + 29] = True
    mask[top + 5 : top + 9, left + 3 : left + 20] = False
    mask[top + 8, left + 25] = False
    part = mask[top : top + 21, left : left + 29]
    assert query.shape_of(part, top, left, (80, 100)) == query.shape_of(mask)


def test_crumbs_do_not_flood_the_screen():
    mask = np.zeros((80, 80), dtype=bool)
    mask[::4, ::4] = True
    mask[40:60, 40:60] = True
    outlines = query.outlines(mask)
    assert len(outlines) == query.MAX_OUTLINES
    assert np.ptp(outlines[0], axis=0).min() > 15  # the large piece is there
