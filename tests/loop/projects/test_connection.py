"""Connecting a project with a fake Label Studio."""

from __future__ import annotations

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.loop.projects import connection, image_queue, initial_labels
from alc_backend.store.importing import create_project, import_folder
from alc_backend.store.models import TRAIN, Image
from tests.conftest import CLASSES
from tests.fake_label_studio import FakeLabelStudio


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


@pytest.fixture
def connect(store, dataset, settings, label_studio):
    store.settings = settings.model_copy(update={"backend_url": "http://alc.internal:9090"})

    def connect(name):
        project = import_folder(store, dataset, name).project_id
        return connection.connect_project(store, label_studio.client(), project, lambda text: None)

    return connect


def test_a_project_with_a_long_name_is_connected(connect, label_studio, store):
    project = connect("street scenes at night, seen from the second tram of line 11")
    titles = [
        label_studio.projects[number]["title"]
        for number in (project.dataset_project, project.query_project)
    ]
    assert [title[:29] for title in titles] == ["street scenes at night, seen "] * 2
    assert len(set(titles)) == 2
    assert len(label_studio.uploads) == len(store.images(project.id, "train")) > 0


def test_under_a_path_tasks_name_images_below_it_and_they_are_read_again(store, dataset, settings):
    store.settings = settings.model_copy(update={"backend_url": "http://alc.internal:9090"})
    label_studio = FakeLabelStudio("/labels")
    client = label_studio.client()
    project_id = create_project(store, "pets", CLASSES)
    project = connection.connect_project(store, client, project_id, lambda text: None)
    images = {"a": dataset / "images/a.png", "b": dataset / "images/b.png"}
    assert connection.upload_images(store, client, project_id, images, lambda text: None) == 2
    addresses = {task.data["image"] for task in label_studio.tasks_of(project.dataset_project)}
    assert {address.rpartition("/")[0] for address in addresses} == {
        f"/labels/data/upload/{project.dataset_project}"
    }
    image_queue.note(store, client, project_id)
    assert initial_labels.work(store, client, project_id).labelled == 2
    assert {image.url for image in store.images(project_id, TRAIN)} == addresses


def test_nothing_is_uploaded_while_a_project_is_refused(connect, label_studio, store):
    label_studio.fail(400, path="/api/projects/", method="POST", after=1, times=1)
    with pytest.raises(LabelStudioError):
        connect("pets")
    assert not label_studio.uploads
    project = connect("pets")
    assert label_studio.uploads
    with store.reading() as session:
        assert session.query(Image).filter(Image.dataset_task.is_not(None)).count() > 0
    assert project.query_project is not None
