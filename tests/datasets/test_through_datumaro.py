"""Formats of Datumaro: exact ones are written and read, others refused with what they lose."""

from __future__ import annotations

import numpy as np
import pytest

from alc_backend.datasets.layouts import WRITERS, writer_of
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES
from tests.datasets.made import KEYS, output_image

EXACT = ["camvid", "kitti_segmentation", "label_me", "datumaro"]
LOSING = ["voc_segmentation", "open_images"]


def made(tmp_path, keys=KEYS):
    return [output_image(tmp_path, key, seed=seed) for seed, key in enumerate(sorted(keys))]


def test_an_unknown_format_is_named_with_those_there_are():
    with pytest.raises(DatasetError, match="coco-panoptic"):
        writer_of("pdf")


@pytest.fixture
def through():
    pytest.importorskip("datumaro", reason="datumaro is not installed")
    from alc_backend.datasets import through_datumaro

    return through_datumaro


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_format_comes_back(tmp_path, through, name):
    images = made(tmp_path)
    writer_of(name)(tmp_path / "out", CLASSES, iter(images))
    dataset = through.open_datumaro(tmp_path / "out" / through.BASE, name)
    samples = {sample.key: sample for sample in dataset.samples()}
    assert (dataset.classes, dataset.problems) == (CLASSES, [])
    assert sorted(samples) == sorted(KEYS)
    for image in images:
        assert np.array_equal(samples[image.key].labels, image.labels)


@pytest.mark.parametrize("name", LOSING)
def test_a_format_that_loses_something_is_refused(tmp_path, through, name):
    with pytest.raises(DatasetError, match="choose another format"):
        writer_of(name)(tmp_path / "out", CLASSES, iter(made(tmp_path, ["a"])))


def test_what_is_lost_is_said(tmp_path, through):
    with pytest.raises(DatasetError, match=r"loses .* 'background'"):
        writer_of("voc_segmentation")(tmp_path / "out", CLASSES, iter(made(tmp_path, ["a"])))


def test_datumaro_reads_our_files_of_cvat_as_we_do(tmp_path, through):
    """An independent reader of *CVAT for images 1.1*."""
    (tmp_path / "out").mkdir()
    images = made(tmp_path, ["a", "b"])
    WRITERS["cvat"](tmp_path / "out", CLASSES, iter(images))
    dataset = through.open_datumaro(tmp_path / "out", "cvat")
    dataset.use_classes(CLASSES)
    dataset.image_paths()
    for image in images:
        assert np.array_equal(dataset.labels(image.key, image.labels.shape), image.labels)


def test_what_is_not_of_the_format_is_refused(tmp_path, through):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="cannot read it as camvid"):
        through.open_datumaro(tmp_path / "empty", "camvid")
