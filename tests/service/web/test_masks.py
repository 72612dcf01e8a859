"""The masks that a dataset project shows, and those of large images, which are kept."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

from alc_backend.labelstudio import shown_regions
from alc_backend.labelstudio.dataset_config import ShownWith
from alc_backend.labelstudio.regions import painted
from alc_backend.service.web import masks
from alc_backend.service.web.masks import ShownMasks
from alc_backend.store import recording
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Project
from tests.annotations import CAT, DOG, NOON, asked_project, image_of, query_of
from tests.conftest import CLASSES


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def image(store, project):
    return image_of(store, "a")


@pytest.fixture
def large(monkeypatch):
    """Every image is a large one."""
    monkeypatch.setattr(masks, "KEPT_FROM_PIXELS", 1)


@pytest.fixture
def show(store, project, image):
    """The regions of image a, for detections with these scores."""

    def show(scores=None, *, shape="brush", tag_name="label", **changes):
        with store.reading() as session:
            shown = session.get_one(Project, project)
            maps = LabelMaps(session, store.files(project), project)
        for name, value in changes.items():
            setattr(shown, name, value)
        tag = ShownWith(shape, tag_name, shown.classes)
        return ShownMasks(store, shown, tag).regions(maps, image, scores or {})

    return show


@pytest.fixture
def mark(store, project, image):
    """Put a mark into what is kept of image a."""
    path = store.settings.data_dir / f"projects/{project}/regions/{image.id}.json.zlib"

    def mark():
        kept = json.loads(zlib.decompress(path.read_bytes()))
        kept["regions"][0]["kept"] = True
        path.write_bytes(zlib.compress(json.dumps(kept).encode()))

    mark.path = path
    return mark


def is_kept(regions):
    return any("kept" in region for region in regions)


def correct(store, query, annotation_id=1):
    reply = recording.Reply(annotation_id, DOG, "7", 2.0, NOON, NOON)
    with store.session() as session:
        recording.record(session, session.merge(query), reply)


@pytest.mark.usefixtures("large")
def test_regions_of_a_large_image_are_kept_until_an_answer_changes_them(store, project, show, mark):
    first = show()
    mark()
    assert is_kept(show())
    correct(store, query_of(store, "a", 2))
    corrected = show()
    assert not is_kept(corrected)
    assert corrected != first
    mark()
    correct(store, query_of(store, "b", 2), 2)  # another image
    assert is_kept(show())
    with store.session() as session:
        recording.withdraw(session, project, 1)
    assert show() == first


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["background", "cat", "wolf"]},
        {"tag_name": "brush"},
        {"shape": "bitmask"},
        {"image_name": "photo"},
        {"scores": {1: 0.5}},
    ],
)
def test_what_else_regions_say_makes_them_anew(show, mark, change):
    show()
    mark()
    assert not is_kept(show(**change))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["label map", "superpixels"])
def test_another_image_with_the_same_number_does_not_show_them(
    store, project, image, show, mark, kind
):
    show()
    mark()
    files = store.files(project)
    if kind == "superpixels":
        files.write_superpixels(image.id, files.read_superpixels(image.id)[::-1].copy())
    else:
        files.write_label_map("initial", image.id, np.full((48, 64), CAT, dtype=np.uint8))
    labels, _ = painted(show(), CLASSES, (48, 64), 255)
    superpixels = files.read_superpixels(image.id)
    expected = np.where(superpixels > 0, files.read_label_map("initial", image.id), 255)
    assert np.array_equal(labels, expected)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("content", [b"", b"{}", zlib.compress(b"[")])
def test_damaged_regions_are_made_anew(show, mark, content):
    first = show()
    mark.path.write_bytes(content)
    assert show() == first
    assert zlib.decompress(mark.path.read_bytes())


def test_regions_of_small_images_are_not_kept(show, mark):
    assert show()
    assert not mark.path.exists()


@pytest.mark.usefixtures("large")
def test_a_full_disk_does_not_keep_masks_from_being_shown(show, mark, caplog):
    mark.path.parent.parent.joinpath("regions").write_text("in the way of the folder")
    assert show()
    assert "its regions are not kept" in caplog.text


@pytest.mark.usefixtures("large")
def test_masks_that_are_too_detailed_are_refused_by_name_and_once(show, monkeypatch, caplog):
    monkeypatch.setattr(shown_regions, "MOST_BYTES", 10)
    assert show() == show() == []
    assert [record.getMessage()[:31] for record in caplog.records] == [
        "image a is shown without masks:"
    ]


def test_one_image_that_cannot_be_read_is_named(store, project, image, show, caplog):
    (store.settings.data_dir / f"projects/{project}/initial/{image.id}.png").unlink()
    assert show() is None
    assert "image a is shown without masks" in caplog.text
