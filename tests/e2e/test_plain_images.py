"""From plain images to masks in Label Studio: real models (tiny), worker and Label Studio."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.labelstudio.regions import painted
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.store.incoming import Arrival
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Project
from tests.conftest import wait_for
from tests.e2e.demonstration import alc, retrieve_predictions
from tests.foundation import tiny_hub
from tests.foundation.tiny_hub import write_models

pytestmark = pytest.mark.ls

CLASSES = ["background", "sofa", "dog", "potted plant"]
MODELS = {"ALC_DETECTOR": "grounding-dino-base", "ALC_SEGMENTER": "sam-vit-b"}


@pytest.fixture(scope="module")
def models(running):
    demo, _ = running
    return write_models(demo.settings.models)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "images"
    (folder / "garden").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for number, name in enumerate(("a.png", "b.jpg", "garden/c.png")):
        pixels = np.full((24, 160, 3), 90, dtype=np.uint8)  # wide: the detector enlarges it less
        pixels[4:18, 10 + 30 * number : 70 + 30 * number] = (200, 40 + 70 * number, 40)
        Picture.fromarray(pixels).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def project_named(demo, name):
    with demo.store.reading() as session:
        return session.scalars(select(Project).where(Project.name == name)).one()


def images_of(demo, project):
    return {image.key: image for image in demo.store.images(project.id, "train")}


def test_images_and_class_names_become_masks_in_label_studio(running, models, pictures):
    demo, processes = running
    said = alc(
        demo, "init", "--images", str(pictures), "--classes", str(pictures.parent / "classes.txt"),
        "--name", "rooms", "--box-threshold", "0.3", **MODELS,
    )  # fmt: skip
    processes.check()
    assert "4 new images, 0 already there" in said
    assert "cannot be read" in said  # the broken one, with its task
    project = project_named(demo, "rooms")
    images = images_of(demo, project)
    assert sorted(images) == ["a", "b", "garden/c"]

    # What the worker made is what the models say, and what Label Studio shows.
    start = WarmStart(
        "grounded-sam", threshold=0.3, detector="grounding-dino-base", segmenter="sam-vit-b"
    )
    assert WarmStart.of(project.warm_start) == start
    warmer = Warmer(start, CLASSES, demo.settings)
    files = demo.store.files(project.id)
    for key, path in (("a", "a.png"), ("b", "b.jpg"), ("garden/c", "garden/c.png")):
        maps = warmer.from_image(np.asarray(Picture.open(pictures / path)))
        assert len(maps.found) > 1
        assert np.array_equal(files.read_label_map("initial", images[key].id), maps.labels)
        assert np.array_equal(files.read_superpixels(images[key].id), maps.superpixels)
        task = images[key].dataset_task
        retrieve_predictions(demo, project.dataset_project, task)
        shown = demo.client.get(f"/api/tasks/{task}/")["predictions"][-1]["result"]
        labels, superpixels = painted(shown, CLASSES, maps.labels.shape)
        assert np.array_equal(labels, maps.labels)
        assert np.array_equal(superpixels > 0, maps.superpixels > 0)

    # Repeating changes nothing; the broken image is tried again when asked to, and only then.
    again = alc(demo, "pseudo", "--project", "rooms")
    assert "0 new images, 3 already there" in again
    assert images_of(demo, project)["a"].id == images["a"].id
    assert "cannot be read" in alc(demo, "pseudo", "--project", "rooms", "--retry")


def test_words_become_masks_in_label_studio_by_one_model(running, pictures, tmp_path):
    """SAM 3, from a folder of transformers; with small random weights, as the others."""
    demo, _ = running
    folder = str(tiny_hub.write("sam3", tmp_path / "sam3"))
    alc(
        demo, "init", "--images", str(pictures), "--classes", str(pictures.parent / "classes.txt"),
        "--name", "found by words", "--box-threshold", "0.0", ALC_DETECTOR=folder,
    )  # fmt: skip
    project = project_named(demo, "found by words")
    image = images_of(demo, project)["a"]
    start = WarmStart("grounded-sam", threshold=0.0, detector=folder)
    maps = Warmer(start, CLASSES, demo.settings).from_image(
        np.asarray(Picture.open(pictures / "a.png"))
    )
    assert maps.found
    retrieve_predictions(demo, project.dataset_project, image.dataset_task)
    shown = demo.client.get(f"/api/tasks/{image.dataset_task}/")["predictions"][-1]["result"]
    labels, superpixels = painted(shown, CLASSES, maps.labels.shape)
    assert np.array_equal(labels, maps.labels)
    assert np.array_equal(superpixels > 0, maps.superpixels > 0)


def test_an_image_added_in_label_studio_comes_in_by_itself(running, models, pictures):
    """Runs after the first: Label Studio asks for the masks of an image never seen."""
    demo, _ = running
    project = project_named(demo, "rooms")
    (url,) = demo.client.upload(project.dataset_project, [pictures / "a.png"])
    (task,) = demo.client.post(
        f"/api/projects/{project.dataset_project}/import",
        [{"data": {"image": url}}],
        return_task_ids="true",
    )["task_ids"]
    retrieve_predictions(demo, project.dataset_project, task)
    wait_for(lambda: f"task-{task}" in images_of(demo, project))
    image = images_of(demo, project)[f"task-{task}"]
    assert image.warm_start["superpixels"] == "grounded-sam"
    left = select(Arrival).where(Arrival.dataset_task == task)

    def is_done():
        with demo.store.reading() as session:
            return session.scalars(left).first() is None

    wait_for(is_done)


def test_words_of_the_label_config_are_the_prompts(running, models, pictures):
    demo, _ = running
    config = (
        '<View><Image name="photo" value="$photo"/><BrushLabels name="mask" toName="photo">'
        '<Label value="Möbel" predicted_values="sofa, couch"/><Label value="background"/>'
        "</BrushLabels></View>"
    )
    theirs = demo.client.post("/api/projects/", {"title": "Möbel", "label_config": config})["id"]
    urls = demo.client.upload(theirs, [pictures / "a.png"])
    demo.client.post(f"/api/projects/{theirs}/import", [{"data": {"photo": urls[0]}}])
    alc(demo, "init", "--from-project", str(theirs), "--superpixels", "grounded-sam", **MODELS)
    (image,) = images_of(demo, project_named(demo, "Möbel")).values()
    files = demo.store.files(image.project_id)
    start = WarmStart("grounded-sam", detector="grounding-dino-base", segmenter="sam-vit-b")
    warmer = Warmer(start, ["Möbel", "background"], demo.settings, {"Möbel": ["sofa", "couch"]})
    maps = warmer.from_image(np.asarray(Picture.open(pictures / "a.png")))
    assert np.array_equal(files.read_label_map("initial", image.id), maps.labels)
    assert (maps.labels[maps.superpixels == 0] == 1).all()


def test_plain_images_without_any_weights(running, pictures):
    """With SLIC alone, everything starts as background and can be asked about."""
    demo, _ = running
    said = alc(
        demo, "init", "--images", str(pictures), "--classes", str(pictures.parent / "classes.txt"),
        "--name", "plain", "--superpixels", "slic", "--superpixel-count", "12",
    )  # fmt: skip
    assert "4 new images" in said
    assert "3 images with" in " ".join(said.split())
    project = project_named(demo, "plain")
    files = demo.store.files(project.id)
    for image in images_of(demo, project).values():
        assert not files.read_label_map("initial", image.id).any()
        assert files.read_superpixels(image.id).min() == 1
        assert files.read_superpixels(image.id).max() >= 6
    small = {"ALC_ITERATIONS": "5", "ALC_INPUT_SIZE": "64", "ALC_BATCH_SIZE": "2"}
    alc(demo, "round", "start", "--project", "plain", "--size", "5", "--wait", **small)
    waiting = demo.client.get(f"/api/projects/{project.query_project}/next")
    assert waiting["data"]["choices"]


@pytest.fixture(scope="module")
def grown(running, tmp_path_factory):
    """A project of two images, whose label map is all background, and its annotations."""
    demo, _ = running
    folder = tmp_path_factory.mktemp("grown")
    (folder / "images").mkdir()
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    for name in ("left", "right"):
        pixels = np.full((24, 40, 3), 90, dtype=np.uint8)
        pixels[4:18, 10:30] = (200, 40, 40)
        Picture.fromarray(pixels).save(folder / "images" / f"{name}.png")
    options = ("--images", str(folder / "images"), "--classes", str(folder / "classes.txt"))
    options += ("--name", "grown", "--superpixels", "slic", "--superpixel-count", "4")
    alc(demo, "init", *options)
    return demo, options


def labels_of(demo, key):
    """The label map of an image as it is now."""
    project = project_named(demo, "grown")
    with demo.store.reading() as session:
        maps = LabelMaps(session, demo.store.files(project.id), project.id)
    return maps.read(images_of(demo, project)[key].id)


def paint(demo, key, name):
    """Somebody paints the left quarter of an image; the annotation."""
    project = project_named(demo, "grown")
    superpixels = np.zeros((24, 40), dtype=np.int32)
    superpixels[:, :10] = 1
    result = mask_regions(np.zeros((24, 40), dtype=np.uint8), superpixels, [name])
    task = images_of(demo, project)[key].dataset_task
    return demo.client.post(f"/api/tasks/{task}/annotations/", {"result": result})


def config_of(demo):
    number = project_named(demo, "grown").dataset_project
    return demo.client.get(f"/api/projects/{number}")["label_config"]


def test_a_class_is_added_and_renamed_while_people_paint(grown):
    """Label Studio takes the label config with annotations of every name in it."""
    demo, options = grown
    number = project_named(demo, "grown").dataset_project
    paint(demo, "left", "dog")
    wait_for(lambda: (labels_of(demo, "left")[:, :10] == 2).all())
    config = config_of(demo).replace('<Label value="dog"', '<Label value="emu"/><Label value="dog"')
    demo.client.patch(f"/api/projects/{number}", {"label_config": config})
    made = paint(demo, "right", "emu")
    said = alc(demo, "reconcile", "--project", "grown", "--full")
    assert "of an unknown class" in said
    assert not labels_of(demo, "right").any()
    alc(demo, "init", *options)
    assert project_named(demo, "grown").classes == [*CLASSES, "emu"]
    alc(demo, "reconcile", "--project", "grown", "--full")
    assert (labels_of(demo, "right")[:, :10] == 4).all()
    alc(demo, "classes", "rename", "dog", "hound", "--project", "grown")
    assert project_named(demo, "grown").classes == [
        "background",
        "sofa",
        "hound",
        "potted plant",
        "emu",
    ]
    paint(demo, "right", "dog")  # as the screen stores it: by the label's alias
    alc(demo, "classes", "add", "fox", "--project", "grown")
    assert (labels_of(demo, "right")[:, :10] == 2).all()
    demo.client.delete(f"/api/annotations/{made['id']}/")
    paint(demo, "right", "fox")
    alc(demo, "reconcile", "--project", "grown")
    assert (labels_of(demo, "right")[:, :10] == 5).all()
    assert (labels_of(demo, "left")[:, :10] == 2).all()


def test_annotations_are_found_by_their_numbers(grown):
    """Each task once, though Label Studio lists it once for each of its annotations."""
    demo, _ = grown
    project = project_named(demo, "grown")
    first = paint(demo, "left", "sofa")["id"]
    for _ in range(3):
        paint(demo, "left", "sofa")
    beyond = {"filter": "filter:tasks:annotations_ids", "operator": "greater", "type": "Number"}
    found = demo.client.tasks_by_id(
        project.dataset_project, [{**beyond, "value": first}], "or", include="id,annotations"
    )
    task = images_of(demo, project)["left"].dataset_task
    assert [each["id"] for each in found] == [task]
    none = [{**beyond, "value": first + 1000}]
    assert list(demo.client.tasks_by_id(project.dataset_project, none, "or", include="id")) == []


def test_a_deleted_task_takes_its_image_out_until_it_is_brought_back(grown):
    demo, options = grown
    project = project_named(demo, "grown")
    task = images_of(demo, project)["left"].dataset_task
    demo.client.delete(f"/api/tasks/{task}/")
    wait_for(lambda: list(images_of(demo, project)) == ["right"])
    alc(demo, "reconcile", "--project", "grown", "--full")
    alc(demo, "init", *options)
    assert "left" in alc(demo, "images", "list", "--removed", "--project", "grown")
    alc(demo, "images", "restore", "left", "--project", "grown")
    back = images_of(demo, project)["left"]
    assert back.dataset_task != task
    shown = demo.client.get(f"/api/tasks/{back.dataset_task}/")
    assert shown["data"]["alc"] == {"image": "left"}
    assert "0 new images, 2 already there" in alc(demo, "pseudo", "--project", "grown")


def test_a_deleted_query_project_is_told_and_made_anew(grown):
    demo, options = grown
    before = project_named(demo, "grown")
    demo.client.delete(f"/api/projects/{before.query_project}/")
    said = alc(demo, "reconcile", "--project", "grown", status=1)
    assert f"no longer has project {before.query_project}, the query project" in said
    assert "alc init" in said
    alc(demo, "init", *options)
    after = project_named(demo, "grown")
    assert after.query_project not in (None, before.query_project)
    alc(demo, "reconcile", "--project", "grown")


def test_missing_weights_are_told_before_anything_is_made(running, pictures):
    demo, _ = running
    before = len(demo.client.get("/api/projects/")["results"])
    said = alc(
        demo, "init", "--images", str(pictures), "--classes", str(pictures.parent / "classes.txt"),
        "--name", "unmade", status=1,
    )  # fmt: skip
    assert "sam-vit-h" in said
    assert "alc weights download" in said
    assert len(demo.client.get("/api/projects/")["results"]) == before
    with demo.store.reading() as session:
        assert session.scalars(select(Project).where(Project.name == "unmade")).first() is None
