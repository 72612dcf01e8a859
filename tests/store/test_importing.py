from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import delete, select

from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import DatasetError, NotFoundError
from alc_backend.store import models
from alc_backend.store.files import ProjectFiles
from alc_backend.store.importing import add_sample, create_project, import_dataset, import_folder
from alc_backend.store.models import TRAIN, VAL
from tests.conftest import BOTH_DATABASES, write_dataset

pytestmark = BOTH_DATABASES


def test_importing_again_adds_nothing(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    again = import_folder(store, dataset, "pets")
    assert (again.project_id, again.imported, again.present) == (project, 0, 3)


def test_no_superpixels_are_made_for_images_that_are_there(store, dataset):
    """A model may take seconds for each; so an import that was interrupted goes on."""
    made = []

    def segment(image, labels, objects):
        made.append(image)
        return objects

    def again(**options):
        made.clear()
        opened = open_dataset(dataset)
        opened.segment = segment
        return import_dataset(store, opened, "pets", **options)

    assert (again(strict=True).imported, len(made)) == (3, 3)
    write_dataset(dataset, ("d",))
    summary = again()
    assert (summary.imported, summary.present, len(made)) == (1, 3, 1)
    files = store.files(summary.project_id)
    for image in store.images(summary.project_id, TRAIN):
        assert files.read_superpixels(image.id).max() == 2


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


def test_others_write_to_the_database_while_an_images_files_are_made(store, dataset, monkeypatch):
    project = import_folder(store, dataset, "pets").project_id
    sample = replace(next(iter(open_dataset(dataset).samples())), key="large")
    write, written = ProjectFiles.write_superpixels, []

    def others_write(files, image_id, superpixels):
        with ThreadPoolExecutor(1) as other:
            other.submit(create_project, store, "made meanwhile", ["a", "b"]).result(60)
        write(files, image_id, superpixels)
        written.append(image_id)

    monkeypatch.setattr(ProjectFiles, "write_superpixels", others_write)
    assert add_sample(store, project, TRAIN, sample) == 2
    (image,) = [image for image in store.images(project, TRAIN) if image.key == "large"]
    assert written == [image.id]


def test_an_import_that_failed_leaves_nothing_to_the_next_image(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    sample = next(iter(open_dataset(dataset).samples()))
    assert sample.truth is not None
    before = files_of(store)
    broken = replace(sample, key="broken", labels=np.zeros((1, 1, 1, 1), np.uint8))
    with pytest.raises(TypeError):
        add_sample(store, project, TRAIN, broken)
    assert files_of(store) == before
    assert add_sample(store, project, TRAIN, replace(sample, key="next", truth=None)) == 2
    (image,) = [image for image in store.images(project, TRAIN) if image.key == "next"]
    assert not image.has_truth
    with pytest.raises(NotFoundError):
        store.files(project).read_label_map("ground_truth", image.id)
    assert "next" not in {image.key for image in store.images(project, TRAIN, with_truth=True)}
    assert store.images(project, TRAIN, with_truth=True)


def test_an_image_gets_no_id_that_another_one_had(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    last = max(image.id for image in store.images(project, TRAIN))
    with store.session() as session:
        session.execute(delete(models.Superpixel).where(models.Superpixel.image_id == last))
        session.execute(delete(models.Image).where(models.Image.id == last))
    sample = next(iter(open_dataset(dataset).samples()))
    add_sample(store, project, TRAIN, replace(sample, key="next"))
    assert max(image.id for image in store.images(project, TRAIN)) > last


def files_of(store) -> set[str]:
    root = store.settings.data_dir / "projects"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_no_image_gets_in_under_a_name_that_no_export_can_write(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    sample = next(iter(open_dataset(dataset).samples()))
    with pytest.raises(DatasetError, match="U\\+001B"):
        add_sample(store, project, TRAIN, replace(sample, key="a\x1b[2J"))
