from __future__ import annotations

import copy
import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.labelstudio import page, query
from alc_backend.labelstudio.annotation import chosen, parse, round_of
from alc_backend.labelstudio.texts import languages, texts

CLASSES = ["background", "cat", "dog"]
IDS = {name: index for index, name in enumerate(CLASSES)}
KEY = "0123456789abcdef" * 2


def content(tiles=3, labels=(2,), proposed=2):
    return page.PageContent(
        key=KEY,
        round_number=4,
        epsilon=0.25,
        proposed=proposed,
        classes=CLASSES,
        tiles=tuple(
            page.Tile(f"image {number}", 5, number, 2, labels[number % len(labels)])
            for number in range(tiles)
        ),
        sheet="/data/upload/7/sheet.jpg",
    )


@pytest.mark.parametrize("tiles", [1, 12, page.MAX_TILES])
def test_what_a_page_asks_is_read_back_from_its_task(tiles):
    asked = content(tiles, labels=(2, 0))
    data = json.loads(json.dumps(page.task_data(asked)))
    assert page.described(data, IDS) == asked
    assert query.asked_about(data) == query.Key("", 0, page=KEY)


def test_a_repeated_tile_looks_like_the_others():
    asked = content(3, labels=(0, 0, 1))
    tiles = (*asked.tiles[:2], replace(asked.tiles[2], repeated=True))
    repeated = replace(asked, tiles=tiles)
    data = json.loads(json.dumps(page.task_data(repeated)))
    assert page.described(data, IDS) == repeated
    assert data["question"] == page.task_data(content(2, labels=(0,)))["question"]
    assert data["tiles"] == page.task_data(asked)["tiles"]


def test_classes_are_known_by_their_former_names_too():
    data = page.task_data(content())
    assert page.described(data, {"animal": 2, **IDS}).proposed == 2


def test_each_tile_has_a_key_and_a_part_of_the_sheet():
    data = page.task_data(content(12))
    assert [tile["value"] for tile in data["tiles"]] == [str(n) for n in range(1, 13)]
    assert "".join(tile["hotkey"] for tile in data["tiles"]) == "1234567890qw"
    assert len({tile["html"] for tile in data["tiles"]}) == 12
    assert all(data["image"] in tile["html"] for tile in data["tiles"])
    assert data["choices"][0]["hotkey"] not in query.HOTKEYS


def test_a_page_has_all_that_the_label_config_shows():
    root = ElementTree.fromstring(query.label_config())
    shown = {tag.get("value", "")[1:] for tag in root.iter() if tag.get("value", "")[:1] == "$"}
    assert shown <= page.task_data(content()).keys()
    names = {tag.get("name") for tag in root.iter("Choices")}
    assert {item["from_name"] for item in page.prediction(content())} == names


def question(labels, proposed=2, language="en"):
    wording = texts(language)
    return page.task_data(content(6, labels, proposed), wording)["question"]


def test_the_question_says_what_the_tiles_are_labelled_now():
    assert question((2,)) == "Is each of these a “dog”?"
    assert question((1,), 0) == "These are labelled “cat”. Is each of them “background”?"
    assert question((1, 2), 0) == (
        "These are labelled “cat” or “dog”. Is each of them “background”?"
    )


@pytest.mark.parametrize("language", languages())
def test_the_question_names_the_proposed_class_in_every_language(language):
    wording = texts(language)
    assert "dog" in question((2,), language=language)
    assert all(name in question((0, 1), language=language) for name in CLASSES)
    many = [f"class {number}" for number in range(9)]
    assert "class 3" not in wording.ask_page("dog", many)
    assert "dog" in wording.ask_page("dog", many)


def test_the_prediction_ticks_all_tiles_and_tells_its_round():
    result = page.prediction(content(5))
    assert page.ticked(result) == {1, 2, 3, 4, 5}
    assert round_of(result) == 4


@pytest.mark.parametrize("ticked", [set(), {1}, {1, 3}, {1, 2, 3}])
def test_what_an_annotation_left_ticked_is_read_back(ticked):
    result = page.annotation_result(content(), ticked)
    assert page.ticked(result) == ticked
    assert chosen(result) is None


def record(result, **more):
    at = "2026-01-01T10:00:00Z"
    return {"id": 5, "task": 9, "result": result, "created_at": at, **more}


def test_the_answer_to_a_page_is_no_class():
    parsed = parse(record(page.annotation_result(content(), {2, 3})))
    assert (parsed.choice, parsed.ticked, parsed.round_number) == (None, {2, 3}, 4)
    skipped = parse(record(page.prediction(content()), was_cancelled=True))
    assert (skipped.choice, skipped.ticked, skipped.cancelled) == (None, None, True)


@pytest.mark.parametrize("name", ["page", "a page", "a page of tiles", "right"])
def test_a_class_of_any_name_is_no_page(name):
    result = [{"from_name": "label", "value": {"choices": [name]}}]
    assert (parse(record(result)).choice, parse(record(result)).ticked) == (name, None)


ticks = [["0"], ["25"], ["1.0"], ["one"], ["²"], [1], [None], [["1"]], "1", {"1": 1}, None]


@pytest.mark.parametrize("wrong", ticks, ids=str)
def test_what_is_no_position_is_refused(wrong):
    result = page.annotation_result(content(), {1})
    result[1]["value"]["choices"] = wrong
    with pytest.raises(ValueError, match="page"):
        parse(record(result))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.lists(json_values) | json_values)
def test_any_result_of_an_annotation_is_no_page(result):
    assert page.ticked(result) is None


@pytest.mark.parametrize("data", [None, [], {}, {"alc": None}, {"alc": {"image": "x"}}])
def test_other_tasks_are_no_pages(data):
    assert page.described(data, IDS) is None
    assert query.asked_about(data).page == ""


def changed(path, value):
    """The data of a page with something else at a path."""
    data = copy.deepcopy(page.task_data(content()))
    *way, last = path
    place = data
    for step in way:
        place = place[step]
    place[last] = value
    return data


FAULTS = [
    (("alc", "page"), KEY[:-1], "32 hexadecimal"),
    (("alc", "page"), KEY.upper(), "32 hexadecimal"),
    (("alc", "page"), f"{KEY}\n", "32 hexadecimal"),
    (("alc", "page"), None, "32 hexadecimal"),
    (("alc", "round"), 0, "round"),
    (("alc", "round"), True, "round"),
    (("alc", "round"), 10**9, "round"),
    (("alc", "epsilon"), 1.5, "epsilon"),
    (("alc", "epsilon"), float("nan"), "epsilon"),
    (("alc", "epsilon"), 10**400, "epsilon"),
    (("alc", "epsilon"), None, "epsilon"),
    (("alc", "proposed"), "cow", "cow"),
    (("alc", "proposed"), ["dog"], "proposed"),
    (("alc", "tiles"), [], "1 to 24"),
    (("alc", "tiles"), {}, "1 to 24"),
    (("alc", "tiles", 1), None, "object"),
    (("alc", "tiles", 1, "image"), "", "no image"),
    (("alc", "tiles", 1, "image"), "image 0", "same superpixel"),
    (("alc", "tiles", 1, "superpixel"), 0, "superpixel"),
    (("alc", "tiles", 1, "superpixel"), 2**31, "superpixel"),
    (("alc", "tiles", 1, "superpixel"), 1.0, "superpixel"),
    (("alc", "tiles", 1, "row"), -1, "row"),
    (("alc", "tiles", 1, "col"), "3", "col"),
    (("alc", "tiles", 1, "label"), "cow", "cow"),
    (("image",), None, "image"),
]


@pytest.mark.parametrize(("path", "value", "named"), FAULTS, ids=str)
def test_a_page_that_cannot_be_read_says_why(path, value, named):
    with pytest.raises(ValueError, match=named):
        page.described(changed(path, value), IDS)


def test_a_page_of_too_many_tiles_is_refused():
    data = page.task_data(content(page.MAX_TILES))
    data["alc"]["tiles"].append({**data["alc"]["tiles"][0], "image": "another"})
    with pytest.raises(ValueError, match="1 to 24"):
        page.described(data, IDS)


@given(json_values, st.sampled_from([path for path, _, _ in FAULTS]))
def test_what_anybody_may_have_written_never_breaks_the_reading(value, path):
    try:
        found = page.described(changed(path, value), IDS)
    except ValueError:
        return
    assert found is None or found == replace(content(), **vars(found))


@pytest.mark.parametrize("key", [None, 5, "", "x" * 32, KEY[:-1], f"{KEY}0"])
def test_a_key_that_is_none_names_no_page(key):
    assert query.asked_about(changed(("alc", "page"), key)) == query.NOT_OURS
