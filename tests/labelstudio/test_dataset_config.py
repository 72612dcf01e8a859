"""What a dataset project's label config says: its classes, and which regions are masks."""

from __future__ import annotations

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.dataset_config import dataset_config, read_dataset_config
from tests.labelstudio.results import result

IMAGE = '<Image name="photo" value="$url"/>'
BOX = {"x": 1, "y": 1, "width": 9, "height": 9}


def labels(kind, *words, name="", to="photo", **more):
    """A tag with labels; ``word|alias`` gives an alias."""
    inner = "".join(
        '<Label value="{}"{}/>'.format(word.partition("|")[0], f' alias="{alias}"' if alias else "")
        for word, alias in ((word, word.partition("|")[2]) for word in words)
    )
    rest = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<{kind} name="{name or kind}" toName="{to}"{rest}>{inner}</{kind}>'


def tags_of(*parts):
    return read_dataset_config(f"<View>{''.join(parts)}</View>")


def test_our_own_config_is_read_back():
    tags = read_dataset_config(dataset_config(["a & b", "c<d"]))
    assert tags.classes == tags.labels == ["a & b", "c<d"]
    assert (tags.image_name, tags.image_field, tags.brush_name) == ("image", "image", "label")
    assert tags.own == {"label"}
    assert not tags.others


@pytest.mark.parametrize("parts", [
    (),
    (IMAGE,),
    (IMAGE, labels("BrushLabels", "a", "b", to="other")),
    (IMAGE, labels("BrushLabels")),
    (IMAGE, labels("RectangleLabels", "a", "b")),
])  # fmt: skip
def test_a_config_without_the_needed_tags_is_refused(parts):
    with pytest.raises(LabelStudioError, match="label config needs"):
        tags_of(*parts)


def test_one_label_stands_for_itself_and_the_background():
    tags = tags_of(IMAGE, labels("BrushLabels", "crack"))
    assert tags.classes == ["background", "crack"]
    assert tags.labels == ["crack"]
    assert tags_of(IMAGE, labels("BrushLabels", "Background")).classes == ["Background"]


def test_polygons_and_bitmasks_alone_are_masks_that_no_brush_shows():
    for kind in ("PolygonLabels", "BitmaskLabels"):
        tags = tags_of(IMAGE, labels(kind, "a", "b"))
        assert (tags.classes, tags.brush_name, tags.own) == (["a", "b"], "", {kind})
    both = tags_of(IMAGE, labels("PolygonLabels", "b", "c"), labels("BrushLabels", "a", "b"))
    assert (both.classes, both.brush_name) == (["a", "b"], "BrushLabels")


def test_an_image_tag_with_several_images_is_refused():
    several = '<Image name="photo" valueList="$urls"/>'
    with pytest.raises(LabelStudioError, match=r"'photo'.*valueList"):
        tags_of(several, labels("BrushLabels", "a", "b"))


def test_an_alias_must_not_stand_for_two_labels():
    for words in (["a|b", "b"], ["a|x", "b|x"]):
        with pytest.raises(LabelStudioError, match="two labels"):
            tags_of(IMAGE, labels("BrushLabels", *words))
    with pytest.raises(LabelStudioError, match="two labels 'x'"):
        tags_of(IMAGE, labels("BrushLabels", "a|x", "b"), labels("PolygonLabels", "b|x"))
    same = tags_of(IMAGE, labels("BrushLabels", "a|x", "b|b"), labels("PolygonLabels", "a|x"))
    assert same.aliases == {"x": "a"}


TAGS = tags_of(
    IMAGE,
    '<Image name="depth" value="$depth"/>',
    labels("BrushLabels", "cat|c", "dog", name="brush"),
    labels("RectangleLabels", "cat", "bird", name="rectangle"),
    labels("KeyPointLabels", "cat", name="keypoint"),
    labels("RectangleLabels", "sign", name="sign"),
    labels("PolygonLabels", "cat", name="depths", to="depth"),
    '<Choices name="mood" toName="photo"><Choice value="cat"/></Choices>',
)


def item(label="cat", kind="rectangle", **changes):
    return {**result(kind, BOX, label, (10, 10), to_name="photo"), **changes}


def test_regions_of_our_tags_and_our_image_are_masks():
    kept = [item(), item("bird"), item("c", identity="r2")]
    others = [
        item(from_name="sign"),
        item(from_name="depths"),
        item(from_name="depths", to_name="depth"),
        item(to_name="depth"),
        {"type": "choices", "from_name": "mood", "to_name": "photo", "value": {"choices": ["cat"]}},
        {"type": "textarea", "from_name": "gone", "to_name": "photo", "value": {"text": ["cat"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        "no region",
    ]
    found = TAGS.masks([*others, *kept, *others])
    assert [one["value"]["rectanglelabels"] for one in found] == [["cat"], ["bird"], ["cat"]]


@pytest.mark.parametrize(("region", "reason"), [
    (item(from_name="gone"), "tag 'gone', which the label config does not have"),
    (item(kind="keypoint"), "type 'keypointlabels', which covers no pixels"),
    (item(type="labels"), "type 'labels'"),
    (item(type=None), "type 'None'"),
    (item(type=7), "type '7'"),
    (item(item_index=1), "further image"),
    (item(value=BOX), "no label"),
    (item(value={**BOX, "rectanglelabels": []}), "no label"),
    (item(value={**BOX, "rectanglelabels": [None]}), "no label"),
    (item(value={**BOX, "rectanglelabels": ["cat", "dog"]}), "several labels"),
    (item(type="rectangle"), "no label"),
    (item(value=None), "no label"),
])  # fmt: skip
def test_a_mask_that_is_not_understood_is_named(region, reason):
    with pytest.raises(ValueError, match=f"region 'r1' .*{reason}"):
        TAGS.masks([item(), region])
