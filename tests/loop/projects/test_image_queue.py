"""Images on their way into the store, from a fake Label Studio."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Picture
from rq import Queue
from sqlalchemy import select, update

from alc_backend.common import retries
from alc_backend.core.arrays import VOID
from alc_backend.errors import (
    DatasetError,
    FoundationError,
    LabelStudioAwayError,
    LabelStudioError,
    WeightsError,
)
from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.loop.overview import overview
from alc_backend.loop.projects import connection, image_queue, initial_labels
from alc_backend.service.jobs import functions
from alc_backend.service.jobs.queues import Jobs
from alc_backend.store.importing import create_project, import_folder
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import Image, Project, Superpixel
from tests.conftest import BOTH_DATABASES, CLASSES
from tests.fake_label_studio import DATASET_PROJECT, FakeLabelStudio
from tests.foundation import tiny_hub
from tests.foundation.tiny_hub import write_models


def config(**prompts):
    labels = "".join(
        f'<Label value="{name}"'
        + (f' predicted_values="{prompts[name]}"' if name in prompts else "")
        + "/>"
        for name in CLASSES
    )
    return (
        '<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image">'
        f"{labels}</BrushLabels></View>"
    )


def png(seed, height=30, width=40):
    pixels = (np.random.default_rng(seed).random((height, width, 3)) * 255).astype(np.uint8)
    kept = io.BytesIO()
    Picture.fromarray(pixels).save(kept, format="PNG")
    return kept.getvalue()


def add(label_studio, number, content=None, *, data=None, **more):
    """Add an image to the dataset project."""
    url = f"/data/upload/{number}.png"
    label_studio.files[url] = png(number) if content is None else content
    label_studio.add_task(number, {"image": url, **(data or {})}, DATASET_PROJECT, **more)


def configure(label_studio, changed):
    label_studio.projects[DATASET_PROJECT]["label_config"] = changed


@pytest.fixture
def label_studio():
    found = FakeLabelStudio()
    configure(found, config())
    for number in (1, 2, 3):
        add(found, number)
    return found


@pytest.fixture
def client(label_studio):
    return label_studio.client()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def project(store, settings, models):
    store.settings = settings.model_copy(update={"model_dir": models})
    number = create_project(store, "pets", CLASSES)
    begin(store, number)
    return number


def begin(store, project, **start):
    with store.session() as session:
        row = session.get_one(Project, project)
        row.dataset_project = DATASET_PROJECT
        tiny = {"detector": "grounding-dino-base", "segmenter": "sam-vit-b"}
        row.warm_start = WarmStart(**{**tiny, **start}).as_dict()


def counts(store, project):
    state = image_queue.waiting(store, project)
    return state.waiting, state.claimed, state.failed


def images(store):
    with store.reading() as session:
        return {image.key: image for image in session.scalars(select(Image))}


def test_an_image_that_is_called_like_a_task_takes_nothing_from_it(
    store, project, label_studio, client, dataset
):
    folder = rename(dataset, "task-2")
    import_folder(store, folder, "pets")
    assert image_queue.note(store, client, project) == (3, 0)
    initial_labels.work(store, client, project)
    tasks = {key: image.dataset_task for key, image in images(store).items()}
    assert tasks == {"task-2": None, "task-1": 1, "task-2-2": 2, "task-3": 3}
    assert image_queue.note(store, client, project) == (0, 3)


def test_an_image_of_a_folder_that_is_called_like_a_task_there_is_told(
    store, project, label_studio, client, dataset
):
    image_queue.note(store, client, project)
    initial_labels.work(store, client, project)
    (told,) = import_folder(store, rename(dataset, "task-2"), "pets").problems
    assert told.startswith("task-2: ")
    assert "rename the file" in told


def rename(dataset, name):
    """A dataset folder with one image of this name."""
    for path in dataset.rglob("*.png"):
        if path.stem == "a":
            path.rename(path.with_stem(name))
        else:
            path.unlink()
    return dataset


def test_projects_of_one_name_are_told_apart(store, label_studio, client):
    for number in (21, 22, 23):
        label_studio.projects[number] = {**label_studio.projects[DATASET_PROJECT], "id": number}
    numbers = [connection.take_up_project(store, client, project) for project in (21, 22, 21)]
    assert numbers[0] == numbers[2] != numbers[1]
    with store.reading() as session:
        assert session.get_one(Project, numbers[0]).name == "pets"
        assert session.get_one(Project, numbers[1]).name == "pets (22)"
    with pytest.raises(DatasetError, match="exists already"):
        connection.take_up_project(store, client, 23, name="pets")


@BOTH_DATABASES
def test_images_are_noted_once_and_labelled(store, project, client):
    assert image_queue.note(store, client, project) == (3, 0)
    assert image_queue.note(store, client, project) == (0, 0)
    assert counts(store, project) == (3, 0, 0)
    seen = []
    done = initial_labels.work(
        store, client, project, progress=lambda count, name: seen.append((count, name))
    )
    assert (done.labelled, done.problems) == (3, [])
    assert seen == [(1, "task 1"), (2, "task 2"), (3, "task 3")]
    assert counts(store, project) == (0, 0, 0)
    assert sorted(images(store)) == ["task-1", "task-2", "task-3"]
    assert image_queue.note(store, client, project) == (0, 3)
    files = store.files(project)
    for image in images(store).values():
        assert not files.read_label_map("initial", image.id).any()
        assert files.read_superpixels(image.id).min() == 1
        assert image.url == f"/data/upload/{image.dataset_task}.png"


def test_grounded_sam_labels_images_with_what_it_found(store, project, label_studio, client):
    begin(store, project, superpixels="grounded-sam", threshold=0.3)
    configure(label_studio, config(cat="cat, sofa"))
    image_queue.note(store, client, project)
    done = initial_labels.work(store, client, project)
    assert done.labelled == 3
    image = images(store)["task-2"]
    picture = np.asarray(Picture.open(io.BytesIO(png(2))))
    start = WarmStart(
        "grounded-sam", threshold=0.3, detector="grounding-dino-base", segmenter="sam-vit-b"
    )
    synonyms = {"cat": ["cat", "sofa"]}
    maps = Warmer(start, CLASSES, store.settings, synonyms).from_image(picture)
    files = store.files(project)
    assert np.array_equal(files.read_label_map("initial", image.id), maps.labels)
    assert np.array_equal(files.read_superpixels(image.id), maps.superpixels)
    assert image.warm_start["threshold"] == 0.3
    assert image.warm_start["hidden"] == maps.hidden
    with store.reading() as session:
        rows = session.scalars(select(Superpixel).where(Superpixel.image_id == image.id)).all()
    assert {row.number for row in rows} == set(maps.found)
    for row in rows:
        found = maps.found[row.number]
        assert row.found["class_id"] == found.class_id
        assert row.found["score"] == pytest.approx(found.score)
        assert row.found["area"] == found.area >= row.size


@pytest.mark.parametrize(
    ("detector", "segmenter"),
    [("grounding-dino", "sam"), ("mm-grounding-dino", "sam2"), ("owlv2", "sam2"), ("sam3", None)],
)
def test_every_kind_of_model_labels_images(
    store, project, label_studio, client, tmp_path, detector, segmenter
):
    """From the folders that `alc weights download` makes, by their paths."""
    start = {"detector": str(tiny_hub.write(detector, tmp_path / "detector"))}
    if segmenter is not None:
        start["segmenter"] = str(tiny_hub.write(segmenter, tmp_path / "segmenter"))
    begin(store, project, superpixels="grounded-sam", threshold=0.0, **start)
    configure(label_studio, config(cat="cat, sofa"))
    image_queue.note(store, client, project)
    done = initial_labels.work(store, client, project)
    assert (done.labelled, done.problems) == (3, [])
    image = images(store)["task-2"]
    maps = Warmer(
        WarmStart.of({**image.warm_start, "superpixels": "grounded-sam"}),
        CLASSES, store.settings, {"cat": ["cat", "sofa"]},
    ).from_image(np.asarray(Picture.open(io.BytesIO(png(2)))))  # fmt: skip
    assert maps.found
    files = store.files(project)
    assert np.array_equal(files.read_label_map("initial", image.id), maps.labels)
    assert np.array_equal(files.read_superpixels(image.id), maps.superpixels)
    assert image.warm_start["detector"] == start["detector"]
    with store.reading() as session:
        rows = session.scalars(select(Superpixel).where(Superpixel.image_id == image.id)).all()
    assert {row.number: row.found["class_id"] for row in rows} == {
        number: found.class_id for number, found in maps.found.items()
    }


def test_masks_that_a_task_has_are_what_it_begins_with(store, project, label_studio, client):
    superpixels = np.zeros((30, 40), dtype=np.int32)
    superpixels[5:15, 5:20] = 1
    labels = np.where(superpixels, 2, 0).astype(np.uint8)
    regions = mask_regions(labels, superpixels, CLASSES)
    empty = {"result": [], "created_at": "2026-01-02T00:00:00Z"}  # what this backend once answered
    theirs = {"result": regions, "created_at": "2026-01-01T00:00:00Z"}
    add(label_studio, 4, predictions=[theirs, empty])
    begin(store, project, fill=True, count=20)
    image_queue.note(store, client, project)
    initial_labels.work(store, client, project)
    image = images(store)["task-4"]
    files = store.files(project)
    assert np.array_equal(files.read_label_map("initial", image.id), labels)
    assert np.array_equal(files.read_superpixels(image.id) == 1, superpixels == 1)
    assert files.read_superpixels(image.id).min() == 1
    assert image.warm_start is None


def test_images_that_we_uploaded_keep_their_key(store, project, label_studio, client):
    add(label_studio, 4, data={"alc": {"image": "farm/a"}})
    add(label_studio, 5, data={"alc": {"image": "../../etc/passwd"}})
    image_queue.note(store, client, project)
    initial_labels.work(store, client, project)
    assert sorted(images(store)) == ["farm/a", "task-1", "task-2", "task-3", "task-5"]


def test_an_image_that_cannot_be_done_is_left_with_the_reason(store, project, label_studio, client):
    add(label_studio, 4, b"no image")
    add(label_studio, 5, data={"image": "http://elsewhere.example.com/a.png"})
    add(label_studio, 6)
    image_queue.note(store, client, project)
    done = initial_labels.work(store, client, project)
    assert done.labelled == 4
    assert len(done.problems) == 2
    assert "cannot be read" in done.problems[0]
    assert "not among ALC_IMAGE_HOSTS" in done.problems[1]
    assert image_queue.problems(store, project) == done.problems
    assert counts(store, project) == (0, 0, 2)
    assert image_queue.note(store, client, project) == (0, 4)  # not tried again unasked
    assert initial_labels.work(store, client, project).labelled == 0
    label_studio.files["/data/upload/4.png"] = png(4)
    image_queue.note(store, client, project, retry=True)
    assert initial_labels.work(store, client, project).labelled == 1
    assert "task-4" in images(store)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["large", "500"])
def test_a_task_that_cannot_be_had_is_named_and_the_others_are_done(
    store, project, label_studio, client, kind
):
    label_studio.spoil(2, kind)
    assert image_queue.note(store, client, project) == (2, 0)
    assert counts(store, project) == (2, 0, 1)
    (problem,) = image_queue.problems(store, project)
    assert f"task 2 of Label Studio project {DATASET_PROJECT} cannot be had" in problem
    assert any(problem in text for text in overview(store, project).problems)
    assert initial_labels.work(store, client, project).labelled == 2
    assert image_queue.note(store, client, project) == (0, 2)  # and it is not forgotten
    assert counts(store, project) == (0, 0, 1)
    label_studio.recover()
    label_studio.tasks[2].data.pop("text", None)
    image_queue.note(store, client, project, retry=True)
    assert initial_labels.work(store, client, project).labelled == 1
    assert counts(store, project) == (0, 0, 0)


def test_what_nobody_expected_leaves_the_image_and_the_others_go_on(
    store, project, client, monkeypatch
):
    original = Warmer.from_image

    def fragile(self, image):
        if np.array_equal(image, np.asarray(Picture.open(io.BytesIO(png(2))))):
            raise MemoryError("too large")
        return original(self, image)

    monkeypatch.setattr(Warmer, "from_image", fragile)
    image_queue.note(store, client, project)
    done = initial_labels.work(store, client, project)
    assert done.labelled == 2
    assert image_queue.problems(store, project) == [
        "task 2: MemoryError: too large; see the worker's log"
    ]


def test_a_task_deleted_meanwhile_is_forgotten(store, project, label_studio, client):
    image_queue.note(store, client, project)
    del label_studio.tasks[2]
    done = initial_labels.work(store, client, project)
    assert (done.labelled, done.problems) == (2, [])
    assert counts(store, project) == (0, 0, 0)


def due_at_once(store):
    """Let nothing wait for its next try."""
    with store.session() as session:
        session.execute(update(Arrival).values(retry_at=None))


def arrivals(store):
    with store.reading() as session:
        return {row.dataset_task: row for row in session.scalars(select(Arrival))}


@pytest.mark.parametrize("status", [None, 401, 503])
def test_while_label_studio_is_away_images_wait(store, project, label_studio, client, status):
    image_queue.note(store, client, project)
    label_studio.fail(status, after=3)  # the project, and the first image
    for _ in range(5):
        with pytest.raises(LabelStudioError):
            initial_labels.work(store, client, project)
        due_at_once(store)
    assert counts(store, project) == (2, 0, 0)
    assert {row.claims for row in arrivals(store).values()} == {0}
    label_studio.recover()
    assert initial_labels.work(store, client, project).labelled == 2
    assert len(images(store)) == 3


def test_images_wait_while_what_holds_all_of_them_is_away(store, project, label_studio, client):
    """Label Studio answers, but not to those who ask for images."""
    for number in range(4, 9):
        add(label_studio, number)
    image_queue.note(store, client, project)
    label_studio.fail(path="/data/")
    for _ in range(5):
        with pytest.raises(LabelStudioAwayError):
            initial_labels.work(store, client, project)
        due_at_once(store)
    assert counts(store, project) == (8, 0, 0)
    assert {row.claims for row in arrivals(store).values()} == {0}
    label_studio.recover()
    assert initial_labels.work(store, client, project).labelled == 8


@BOTH_DATABASES
@pytest.mark.parametrize("status", [500, None, 503])
def test_one_image_that_cannot_be_had_is_left_after_some_tries(
    store, project, label_studio, client, status, monkeypatch
):
    monkeypatch.setattr(retries, "FIRST_S", retries.LONGEST_S)  # no pause ends by itself
    image_queue.note(store, client, project)
    label_studio.fail(status, path="/data/upload/1.png")
    done = initial_labels.work(store, client, project)
    assert (done.labelled, done.problems) == (2, [])
    assert counts(store, project) == (1, 0, 0)
    assert image_queue.due(store) == {}
    for _ in range(image_queue.MAX_CLAIMS - 1):
        assert image_queue.pause(store, project) > 0
        due_at_once(store)
        done = initial_labels.work(store, client, project)
    assert counts(store, project) == (0, 0, 1)
    assert image_queue.problems(store, project) == done.problems
    assert done.problems[0].startswith("task 1: Label Studio ")
    label_studio.recover()
    image_queue.note(store, client, project, retry=True)
    assert initial_labels.work(store, client, project).labelled == 1


def test_a_task_that_label_studio_fails_at_is_left_after_some_tries(
    store, project, label_studio, client
):
    image_queue.note(store, client, project)
    label_studio.fail(500, path="/api/tasks/2")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        due_at_once(store)

    done = initial_labels.work(store, client, project, limit=None, sleep=sleep)
    assert done.labelled == 2
    assert "task 2: Label Studio answered 500 to GET /api/tasks/2" in done.problems[0]
    assert [round(pause / 5) for pause in pauses] == [1, 2]
    assert counts(store, project) == (0, 0, 1)


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_forbidden_or_gone_is_left_at_once(store, project, label_studio, client, status):
    image_queue.note(store, client, project)
    label_studio.fail(status, path="/data/upload/2.png")
    done = initial_labels.work(store, client, project)
    assert done.labelled == 2
    assert f"answered {status} to GET /data/upload/2.png" in done.problems[0]
    assert counts(store, project) == (0, 0, 1)


def test_images_that_can_never_be_reached_do_not_wait_for_ever(
    store, project, label_studio, client
):
    image_queue.note(store, client, project)
    label_studio.fail(path="/data/")
    with store.session() as session:
        session.execute(update(Arrival).values(retries=image_queue.MAX_RETRIES))
    for _ in range(image_queue.MAX_CLAIMS):
        due_at_once(store)
        initial_labels.work(store, client, project)
    assert counts(store, project) == (0, 0, 3)


def test_what_keeps_every_image_waiting_is_told_until_it_is_tried_again(store, project, client):
    begin(store, project, superpixels="grounded-sam")
    models = store.settings
    store.settings = models.model_copy(update={"model_dir": models.data_dir / "none"})
    image_queue.note(store, client, project)
    with pytest.raises(WeightsError):
        initial_labels.work(store, client, project)
    state = image_queue.waiting(store, project)
    assert state.left == 3
    assert "groundingdino_swinb_cogcoor.pth" in state.error
    assert image_queue.due(store) == {}
    store.settings = models
    image_queue.note(store, client, project, retry=True)
    assert image_queue.due(store) == {project: 3}
    assert initial_labels.work(store, client, project).labelled == 3


def test_classes_changed_in_label_studio_stop_it(store, project, label_studio, client):
    image_queue.note(store, client, project)
    configure(label_studio, config().replace("dog", "wolf"))
    with pytest.raises(DatasetError, match="wolf"):
        initial_labels.work(store, client, project)
    assert "wolf" in image_queue.waiting(store, project).error


@BOTH_DATABASES
def test_two_workers_never_have_the_same_image(store, project, client):
    image_queue.note(store, client, project)
    first = image_queue.claim(store, project)
    second = image_queue.claim(store, project)
    assert {first.dataset_task, second.dataset_task} == {1, 2}
    assert counts(store, project) == (1, 2, 0)
    assert initial_labels.work(store, client, project).labelled == 1
    assert image_queue.due(store) == {}


@BOTH_DATABASES
def test_an_image_whose_workers_die_is_taken_up_again_a_few_times(store, project, client):
    image_queue.note(store, client, project)
    gone = "elsewhere/pid:[1]|1|abc"
    for claim in range(1, image_queue.MAX_CLAIMS + 1):
        taken = image_queue.claim(store, project)
        assert (taken.dataset_task, taken.claims) == (1, claim)
        with store.session() as session:  # its worker is heard of no more
            session.execute(
                update(Arrival)
                .where(Arrival.id == taken.id)
                .values(claimed_by=gone, heartbeat_at=taken.noted_at.replace(year=2020))
            )
            session.execute(
                update(Arrival)
                .where(Arrival.id != taken.id)
                .values(retry_at=taken.noted_at.replace(year=2099))
            )
    assert image_queue.due(store) == {project: 1}
    assert image_queue.claim(store, project) is None
    assert "3 workers died at it" in image_queue.problems(store, project)[0]


@BOTH_DATABASES
def test_cancelling_leaves_what_waits(store, project, client):
    image_queue.note(store, client, project)
    taken = image_queue.claim(store, project)
    assert image_queue.cancel(store, project) == 2
    assert counts(store, project) == (0, 1, 0)
    image_queue.give_back(store, taken)
    assert image_queue.note(store, client, project) == (2, 0)


@BOTH_DATABASES
def test_jobs_are_queued_for_what_waits_and_not_twice(
    store, project, label_studio, client, redis, monkeypatch
):
    for number in range(4, 60):
        add(label_studio, number)
    image_queue.note(store, client, project)
    monkeypatch.setattr(functions, "store", lambda: store)
    monkeypatch.setattr(functions, "settings", lambda: store.settings)
    label_studio.serve(monkeypatch)
    jobs = Jobs(store.settings, redis)
    queue = Queue("pseudo", connection=redis)
    functions.enqueue_images(jobs)
    functions.enqueue_images(jobs)
    assert len(queue.job_ids) == 3  # 59 images
    functions.label_images(project)
    assert counts(store, project) == (39, 0, 0)
    while image_queue.waiting(store, project).left:
        functions.label_images(project)
    assert len(images(store)) == 59
    add(label_studio, 60)
    functions.import_new(project)
    assert counts(store, project) == (1, 0, 0)


def test_a_label_config_may_leave_bare_what_is_void(store, project, label_studio, client, models):
    with store.session() as session:
        session.get_one(Project, project).classes = ["cat", "dog"]
    configure(label_studio, config().replace('<Label value="background"/>', ""))
    begin(store, project, superpixels="grounded-sam", threshold=0.99999)
    image_queue.note(store, client, project)
    assert initial_labels.work(store, client, project).labelled == 3
    image = images(store)["task-1"]
    labels = store.files(project).read_label_map("initial", image.id)
    bare = store.files(project).read_superpixels(image.id) == 0
    assert bare.any()
    assert (labels[bare] == VOID).all()


def test_prompts_that_the_detector_cannot_read_stop_all_images(
    store, project, label_studio, client
):
    begin(store, project, superpixels="grounded-sam")
    configure(label_studio, config(cat="猫"))
    image_queue.note(store, client, project)
    with pytest.raises(FoundationError, match="猫"):
        initial_labels.work(store, client, project)
    assert counts(store, project) == (3, 0, 0)
