"""What `alc init` takes a dataset from, and which options go with which source."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from alc_backend.cli.init import InitOptions
from alc_backend.cli.warm_start import OBJECTS, SEEDS, open_with, warm_start
from alc_backend.datasets.images import read_image
from alc_backend.datasets.superpixels import seeds
from alc_backend.errors import SettingsError
from alc_backend.foundation.warm_start import GROUNDED_SAM, Warmer, check_files
from alc_backend.settings import Settings
from tests.datasets.test_cvat import DOG, IMAGE, made
from tests.foundation.tiny_hub import write_models
from tests.labelstudio.test_exported import task


@pytest.fixture
def opened(settings):
    def opened(root, **given):
        start = warm_start(settings, OBJECTS, 9, False, None, True)
        return open_with(root, OBJECTS, start, settings, **given)

    return opened


def test_an_export_of_label_studio_needs_its_images(tmp_path, opened):
    export = tmp_path / "project.json"
    export.write_text(json.dumps([task(1)]))
    with pytest.raises(SettingsError, match="--images"):
        opened(export)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (17, 12)).save(tmp_path / "images/room.png")
    (sample,) = opened(export, images=tmp_path / "images").samples()
    assert sample.key == "room"
    assert sample.superpixels.max() == 3
    assert InitOptions(dataset=export, images=tmp_path).project_name == "project"


def test_the_images_of_cvat_may_lie_elsewhere(tmp_path, opened):
    root = made(tmp_path / "export", f"{IMAGE}{DOG}</image>")
    (root / "images").rename(tmp_path / "images")
    (sample,) = opened(root, images=tmp_path / "images").samples()
    assert sample.key == "a"


def test_images_and_classes_go_with_some_sources_only(dataset, opened):
    with pytest.raises(SettingsError, match="--images goes with"):
        opened(dataset, images=dataset)
    with pytest.raises(SettingsError, match="--classes goes with"):
        opened(dataset, classes=dataset / "classes.txt")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "give one of"),
        ({"dataset": "a", "label_studio_project": 1}, "give one of"),
        ({"images": "a"}, "go together"),
        ({"classes": "a", "label_studio_project": 1}, "go together"),
        ({"images": "a", "classes": "b", "format_name": "label_me"}, "--format goes with"),
        ({"dataset": "a", "images": "b", "format_name": "label_me"}, "--format goes with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, given, named):
    paths = {name: tmp_path / v if isinstance(v, str) and name != "format_name" else v
             for name, v in given.items()}  # fmt: skip
    with pytest.raises(SettingsError, match=named):
        InitOptions(**paths).check()


@pytest.mark.parametrize("given", [
    {"dataset": "a"}, {"dataset": "a", "images": "b"}, {"images": "b", "classes": "c"},
    {"dataset": "a", "images": "b", "classes": "c"},
])  # fmt: skip
def test_options_that_go_together_are_taken(tmp_path, given):
    InitOptions(**{name: tmp_path / value for name, value in given.items()}).check()


def test_grounded_sam_finds_superpixels_beside_given_masks(dataset, tmp_path):
    settings = Settings(
        model_dir=write_models(tmp_path / "models"),
        detector="grounding-dino-base",
        segmenter="sam-vit-b",
        _env_file=None,
    )
    start = warm_start(settings, GROUNDED_SAM, 9, False, 0.1, True)
    assert (start.superpixels, start.threshold) == (GROUNDED_SAM, 0.1)
    opened = open_with(dataset, GROUNDED_SAM, start, settings)
    samples = list(opened.samples())
    warmer = Warmer(start, opened.classes, settings)
    assert [sample.key for sample in samples] == ["a", "b", "c"]
    for sample in samples:
        found = warmer.from_image(read_image(sample.path))
        assert found.superpixels.any()
        assert np.array_equal(sample.superpixels, found.superpixels)
        given = np.asarray(Image.open(dataset / f"pseudo_labels/{sample.key}.png"))
        assert np.array_equal(sample.labels, given)  # what people have made stays


def test_superpixels_by_seeds_need_its_extra(settings, dataset, monkeypatch):
    start = warm_start(settings, SEEDS, 9, False, None, True)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingsError, match=re.escape("alc-backend[seeds]")):
        check_files(start, settings)


def test_superpixels_by_seeds_replace_those_of_the_dataset(settings, dataset):
    pytest.importorskip("cv2.ximgproc", reason="the extra seeds is not installed")
    start = warm_start(settings, SEEDS, 9, False, None, True)
    check_files(start, settings)
    for sample in open_with(dataset, SEEDS, start, settings).samples():
        assert np.array_equal(sample.superpixels, seeds(read_image(sample.path), 9))
