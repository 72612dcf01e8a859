"""First label maps and superpixels, with tiny models and without any."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alc_backend.core.arrays import VOID
from alc_backend.datasets.superpixels import slic
from alc_backend.errors import DatasetError, FoundationError, SettingsError, WeightsError
from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.settings import Settings
from tests.foundation.tiny_hub import write_models

CLASSES = ["background", "cat", "dog"]


def noise(height=40, width=60):
    return (np.random.default_rng(0).random((height, width, 3)) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    models = write_models(tmp_path_factory.mktemp("models"))
    return Settings(
        model_dir=models, detector="grounding-dino-base", segmenter="sam-vit-b", _env_file=None
    )


def warmer(settings, classes=CLASSES, synonyms=None, **start):
    start = {"detector": settings.detector, "segmenter": settings.segmenter, **start}
    return Warmer(WarmStart(**start), classes, settings, synonyms)


def test_without_models_an_image_is_background_in_slic_superpixels(tmp_path):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    maps = warmer(settings, count=30).from_image(noise())
    assert not maps.labels.any()
    assert np.array_equal(maps.superpixels, slic(noise(), 30))
    assert maps.found == {}
    with pytest.raises(DatasetError, match="no class named background"):
        warmer(settings, classes=["cat", "dog"]).from_image(noise())


def test_grounded_sam_begins_an_image_and_slic_fills_it(tiny):
    start = {"superpixels": "grounded-sam", "threshold": 0.5}
    plain = warmer(tiny, **start).from_image(noise())
    assert (plain.superpixels == 0).any()
    assert plain.found
    filled = warmer(tiny, **start, fill=True, count=20).from_image(noise())
    assert (filled.superpixels > 0).all()
    assert filled.found == plain.found
    assert np.array_equal(filled.labels, plain.labels)
    assert (filled.labels[plain.superpixels == 0] == 0).all()


def test_synonyms_are_what_is_looked_for(tiny):
    with pytest.raises(FoundationError, match="knows no word of the prompt '猫'"):
        warmer(tiny, superpixels="grounded-sam", synonyms={"cat": ["猫"]})


def test_without_a_background_what_is_bare_is_void(tiny):
    start = {"classes": ["cat", "dog"], "superpixels": "grounded-sam"}
    maps = warmer(tiny, **start).from_image(noise())
    assert (maps.labels[maps.superpixels == 0] == VOID).all()
    with pytest.raises(DatasetError, match="--fill slic"):
        warmer(tiny, fill=True, **start)


def test_masks_keep_their_superpixels_unless_sam_makes_them(tiny):
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[5:20, 10:30] = 1
    given = labels.astype(np.int32)
    assert warmer(tiny).from_masks(noise(), labels, given) is given
    assert (warmer(tiny, fill=True).from_masks(noise(), labels, given) > 0).all()
    assert np.array_equal(warmer(tiny).from_masks(noise(), labels), slic(noise()))
    segmented = warmer(tiny, superpixels="sam").from_masks(noise(), labels, given)
    assert set(np.unique(segmented)) <= {0, 1}


def test_models_that_are_not_there_are_named(tmp_path):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    with pytest.raises(WeightsError, match="sam_vit_h_4b8939") as caught:
        warmer(settings, superpixels="grounded-sam")
    assert "groundingdino_swint_ogc" in str(caught.value)
    assert str(tmp_path / "models") in str(caught.value)
    with pytest.raises(SettingsError, match="no model 'vit-x'"):
        warmer(settings, superpixels="sam", segmenter="vit-x")
    with pytest.raises(SettingsError, match="not 'felzenszwalb'"):
        WarmStart(superpixels="felzenszwalb")


@pytest.mark.parametrize(
    ("detector", "threshold"),
    [("grounding-dino-tiny", 0.2), ("owlv2-base", 0.1), ("sam3", 0.3),
     ({"model_type": "owlv2"}, 0.1), ({"model_type": "sam3"}, 0.3),
     ({"model_type": "mm-grounding-dino"}, 0.2)],
)  # fmt: skip
def test_each_model_has_a_threshold_of_its_own_also_by_its_path(tmp_path, detector, threshold):
    if isinstance(detector, dict):
        (tmp_path / "config.json").write_text(json.dumps(detector))
        detector = str(tmp_path)
    settings = Settings(data_dir=tmp_path, detector=detector, _env_file=None)
    assert WarmStart.chosen(settings, "grounded-sam").threshold == threshold
    assert WarmStart.chosen(settings, "grounded-sam", threshold=0.7).threshold == 0.7


@pytest.mark.parametrize(
    ("detector", "threshold"), [("grounding-dino-tiny", 0.05), ("owlv2-base", 0.1), ("sam3", 0.3)]
)
def test_the_preset_for_polyps_has_the_papers_threshold(tmp_path, detector, threshold):
    given = {"data_dir": tmp_path, "detector": detector, "preset": "kvasir", "_env_file": None}
    assert WarmStart.chosen(Settings(**given), "grounded-sam").threshold == threshold
    assert WarmStart.chosen(Settings(**given, box_threshold=0.3), "slic").threshold == 0.3
    assert WarmStart.chosen(Settings(**given), "slic", threshold=0.4).threshold == 0.4


def test_a_warm_start_is_kept_with_its_project():
    start = WarmStart("grounded-sam", 50, True, 0.05, "grounding-dino-base", "sam-vit-l")
    assert WarmStart.of(start.as_dict()) == start
    assert WarmStart.of(None) == WarmStart()
    assert WarmStart.of({"count": 7, "of a later version": 1}) == WarmStart(count=7)
