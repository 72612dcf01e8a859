from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import DatasetError
from alc_backend.store import models
from alc_backend.store.importing import add_sample, import_folder
from alc_backend.store.models import TRAIN, VAL
from tests.conftest import BOTH_DATABASES, write_dataset

pytestmark = BOTH_DATABASES


def test_importing_again_adds_nothing(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    again = import_folder(store, dataset, "pets")
    assert (again.project_id, again.imported, again.present) == (project, 0, 3)


def test_strict_import_refuses_everything(store, dataset):
    (dataset / "objects/b.png").unlink()
    with pytest.raises(DatasetError, match=r"objects/b\.png"):
        import_folder(store, dataset, "strict", strict=True)
    with store.reading() as session:
        assert session.scalars(select(models.Image)).all() == []
    lenient = import_folder(store, dataset, "lenient")
    assert (lenient.imported, len(lenient.problems)) == (2, 1)


def test_the_class_order_of_validation_images_is_their_own(store, dataset, tmp_path):
    held_out = tmp_path / "held_out"
    shutil.copytree(dataset, held_out)
    (held_out / "classes.txt").write_text("dog\nbackground\ncat\n")
    summary = import_folder(store, dataset, "pets", validation=held_out)
    (image, *_) = store.images(summary.project_id, VAL)
    truth = store.files(summary.project_id).read_label_map("ground_truth", image.id)
    with Image.open(held_out / "ground_truth/a.png") as mask:
        assert np.array_equal(truth, np.array([2, 0, 1])[np.asarray(mask)])


def test_training_images_among_the_validation_images_are_told(store, dataset, tmp_path):
    held_out = write_dataset(tmp_path / "held_out", names=("new",), height=40)
    shutil.copyfile(dataset / "images/b.png", held_out / "images/renamed.png")
    shutil.copyfile(dataset / "ground_truth/b.png", held_out / "ground_truth/renamed.png")
    summary = import_folder(store, dataset, "pets", validation=held_out)
    (note,) = summary.notes
    assert (
        "1 validation images are training images, too (the first: renamed, in training b)" in note
    )
    assert import_folder(store, dataset, "others", validation=None).notes == []


def test_no_image_gets_in_under_a_name_that_no_export_can_write(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    sample = next(iter(open_dataset(dataset).samples()))
    with pytest.raises(DatasetError, match="U\\+001B"):
        add_sample(store, project, TRAIN, replace(sample, key="a\x1b[2J"))
