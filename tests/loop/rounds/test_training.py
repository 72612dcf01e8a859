"""Cross-fitting, held-out answers and training by several processes, in real rounds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import psutil
import pytest
from sqlalchemy import select

from alc_backend.core.draws import fold_of
from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.loop.rounds import executor, lifecycle, scoring
from alc_backend.loop.rounds import training as training_step
from alc_backend.loop.rounds.distributed import TRAIN_PROCESS
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.segmentation import infer
from alc_backend.segmentation import train as training
from alc_backend.segmentation.dataset import TrainingCrops
from alc_backend.store import standing, upkeep
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, LedgerEntry, Score, Superpixel, utc_now
from alc_backend.store.round_states import RoundState, Step
from tests.conftest import write_dataset
from tests.loop.rounds.running import at_step, hand_to_another_process, only_round, work
from tests.networks import without_features


@pytest.fixture
def six_images(tmp_path):
    return write_dataset(tmp_path / "many", names=tuple("abcdef"))


def scored_by(store, queue, project, **changes):
    """Run a round with other settings as far as it comes: it has no query project."""
    store.settings = store.settings.model_copy(update=changes)
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    return only_round(store)


def test_every_image_is_scored_by_a_network_that_has_not_seen_it(store, six_images, monkeypatch):
    trained, used = {}, {}
    train = training.train

    def watched(config, keys, *arguments, path, **options):
        trained[path.name] = (list(keys), config.iterations)
        train(config, keys, *arguments, path=path, **options)

    def noted(files, round_, fold):
        predict = scoring.load_network(files, round_, fold)

        def noting(image):
            used[image.key] = files.network(round_.number, fold).name
            return predict(image)

        return noting

    monkeypatch.setattr(training, "train", watched)
    monkeypatch.setitem(executor.STEPS, Step.SCORING, partial(scoring.score, load=noted))
    project = import_folder(store, six_images, "pets").project_id
    round_ = scored_by(store, [], project, folds=2, share_iterations=True, iterations=6)
    assert round_.state == RoundState.FAILED  # in publishing: there is no query project
    assert {keys_and_iterations[1] for keys_and_iterations in trained.values()} == {2}
    assert trained["model.safetensors"][0] == list("abcdef")
    assert set(used) == set("abcdef")
    for key, network in used.items():
        assert network == f"model-without-fold-{fold_of(key, 0, 2)}.safetensors"
        assert key not in trained[network][0]
    with store.reading() as session:
        assert len(session.scalars(select(Score)).all()) == 12


def test_networks_of_folds_are_not_used_without_folds(store, six_images, monkeypatch):
    project = import_folder(store, six_images, "pets").project_id
    lifecycle.start(store, [].append, project, folds=2)
    queue = []
    executor.recover(store, queue.append)
    work(store, queue)  # it fails in publishing: there is no query project
    assert store.files(project).network(1, 0).is_file()
    used = set()

    def noted(files, round_, fold):
        used.add(fold)
        return scoring.load_network(files, round_, fold)

    monkeypatch.setitem(executor.STEPS, Step.SCORING, partial(scoring.score, load=noted))
    lifecycle.start(store, queue.append, project, folds=1)
    assert only_round(store).state == RoundState.CREATED
    work(store, queue)
    assert used == {None}


def test_a_round_with_an_empty_fold_does_not_train_again_after_a_publishing_failure(
    store, six_images
):
    filled = {fold_of(key, 0, 5) for key in "abcdef"}
    assert len(filled) < 5
    project = import_folder(store, six_images, "pets").project_id
    queue = []
    lifecycle.start(store, queue.append, project, folds=5)
    work(store, queue)
    assert only_round(store).failed_in == RoundState.PUBLISHING  # there is no query project
    lifecycle.start(store, queue.append, project)
    assert only_round(store).state == RoundState.PUBLISHING
    store.files(project).delete_network(1, min(filled))
    work(store, queue)
    lifecycle.start(store, queue.append, project)
    assert only_round(store).state == RoundState.CREATED  # one that is needed is missing


def test_a_training_with_another_overlap_is_another_one(store, six_images, monkeypatch):
    """What annotators who disagree have settled, and so the label maps, depends on it."""
    versions = []
    monkeypatch.setattr(
        training, "train", lambda *_, data_version, **__: versions.append(data_version)
    )
    project = import_folder(store, six_images, "pets").project_id
    lifecycle.start(store, [].append, project)
    round_ = only_round(store)
    for overlap in (1, 2, 2):
        round_.config = replace(round_.config, overlap=overlap)
        training_step.train_networks(store, round_, at_step(store, round_, Step.TRAINING))
    assert versions[0] != versions[1] == versions[2]


def test_folds_depend_on_key_and_seed_alone():
    folds = [fold_of(f"image {number}", 3, 4) for number in range(4000)]
    assert folds == [fold_of(f"image {number}", 3, 4) for number in range(4000)]
    assert min(np.bincount(folds)) > 900
    assert folds != [fold_of(f"image {number}", 4, 4) for number in range(4000)]


def answer_everything(store, project):
    with store.session() as session:
        superpixels = session.scalars(select(Superpixel).join(Image)).all()
        for number, superpixel in enumerate(superpixels):
            session.add(
                LedgerEntry(
                    project_id=project,
                    superpixel_id=superpixel.id,
                    image_id=superpixel.image_id,
                    annotation_id=number + 1,
                    revision=1,
                    annotator="1",
                    kind="correct",
                    class_id=superpixel.number,
                    pseudo_label=1,
                    round_number=0,
                    row=0,
                    col=0,
                    answered_at=utc_now(),
                    updated_at=utc_now(),
                )
            )
        upkeep.rebuild(session, project)
        return {superpixel.id for superpixel in superpixels}


def test_held_out_answers_tell_how_good_the_network_is(store, six_images, monkeypatch):
    project = import_folder(store, six_images, "pets").project_id
    everything = answer_everything(store, project)
    seen = []
    train = training.train

    def watched(config, keys, load, **options):
        seen.extend(load(key)[1] for key in keys)
        train(config, keys, load, **options)

    def cats_everywhere(self, image):
        cats = np.eye(3, dtype=np.float32)[1][:, None, None]
        return without_features(cats * np.ones((1, *image.shape[:2]), "f"))

    monkeypatch.setattr(training, "train", watched)
    monkeypatch.setattr(infer.Predictor, "predict", cats_everywhere)
    round_ = scored_by(store, [], project, holdout=0.4)
    with store.reading() as session:
        answered = list(standing.resolved_at(session, project, round_.ledger_position))
    hidden = training_step.held_out(answered, 0.4, 0)
    assert 0 < len(hidden) < len(everything)
    assert training_step.held_out(answered, 0.0, 0) == {}
    assert training_step.held_out(answered, 1.0, 0).keys() == everything
    pixels = {1: 256, 2: 384}
    with store.reading() as session:
        numbers = session.scalars(select(Superpixel.number).where(Superpixel.id.in_(hidden))).all()
    assert sum((labels == 255).sum() for labels in seen) == sum(pixels[n] for n in numbers)
    cats = sum(pixels[number] for number in numbers if number == 1)
    assert round_.estimate == pytest.approx(cats / sum(pixels[number] for number in numbers))
    assert round_.estimate_answers == len(hidden)
    assert round_.model_miou is None
    summary = RoundSummary.of(round_)
    assert summary.estimated_accuracy == round_.estimate
    assert summary.class_iou is None


def test_validation_images_take_the_place_of_held_out_answers(store, six_images):
    project = import_folder(store, six_images, "pets", validation=six_images).project_id
    answer_everything(store, project)
    round_ = scored_by(store, [], project, holdout=0.4)
    assert round_.estimate is None
    assert round_.model_miou is not None
    iou = RoundSummary.of(round_).class_iou
    assert list(iou) == ["background", "cat", "dog"]
    assert round_.model_miou == pytest.approx(np.mean(list(iou.values())))


def started(store, project, **changes):
    """A round that two processes shall train."""
    changes = {"train_processes": 2, "batch_size": 4, **changes}
    store.settings = store.settings.model_copy(update=changes)
    lifecycle.start(store, [].append, project)


def train(store, tell=lambda done, total, message: None):
    """Do the training step of the only round, as a worker does."""
    round_ = only_round(store)
    training_step.train(store, round_, at_step(store, round_, Step.TRAINING, tell))


def test_two_processes_train_one_network(store, six_images):
    project = import_folder(store, six_images, "pets").project_id
    said = []
    started(store, project)
    train(store, lambda done, total, message: said.append((done, total)))
    assert said == [(1, 3), (2, 3), (3, 3)]
    path = store.files(project).network(1)
    predictor = infer.Predictor(path, ["background", "cat", "dog"])
    probabilities = predictor.probabilities(np.zeros((64, 64, 3), dtype=np.uint8))
    assert probabilities.shape == (3, 64, 64)


@pytest.mark.parametrize("process", [0, 1])
def test_what_stops_one_of_the_processes_is_told(store, six_images, process):
    project = import_folder(store, six_images, "pets").project_id
    started(store, project)
    crops = TrainingCrops(
        list("abcdef"), None, input_size=64, batch_size=4, fill=(0, 0, 0), seed=0, cache_bytes=0
    )
    key = crops.keys(0)[process]
    image = next(image for image in store.images(project, "train") if image.key == key)
    (store.settings.data_dir / f"projects/{project}/initial" / f"{image.id}.png").write_bytes(
        b"damaged"
    )
    with pytest.raises(TrainingError, match="import the image again"):
        train(store)


def test_too_few_images_for_the_folds_are_told_before_training(store, six_images, monkeypatch):
    project = import_folder(store, six_images, "pets").project_id
    monkeypatch.setattr(training_step.folds, "fold_of", lambda key, seed, count: 0)
    round_ = scored_by(store, [], project, folds=3)
    assert (round_.state, round_.failed_in) == (RoundState.FAILED, RoundState.TRAINING)
    assert "too few for 3 folds" in round_.error
    assert not store.files(project).network(1).exists()


def test_a_weights_file_that_is_not_there_is_named_at_once(store, six_images):
    project = import_folder(store, six_images, "pets").project_id
    store.settings = store.settings.model_copy(update={"encoder_weights": "/nowhere.pth"})
    with pytest.raises(SettingsError, match=r"ALC_ENCODER_WEIGHTS.*nowhere"):
        lifecycle.start(store, [].append, project)


class Paused(Reporter):
    """A worker that was paused: nothing that it is told reaches it, or the database."""

    def __call__(self, done, total, message):
        pass


@pytest.mark.parametrize(
    ("reason", "processes"), [("another worker", 1), ("another worker", 2), ("cancelled", 1)]
)
def test_a_network_is_published_by_the_worker_that_has_the_training(
    store, six_images, reason, processes
):
    project = import_folder(store, six_images, "pets").project_id
    started(store, project, train_processes=processes)
    round_ = only_round(store)
    report = Paused(store, at_step(store, round_, Step.TRAINING).claimed)
    published = store.files(project).network(1)
    published.parent.mkdir(parents=True)
    published.write_bytes(b"of the worker that has it now")
    if reason == "cancelled":
        lifecycle.cancel(store, project)
    else:
        hand_to_another_process(store, 1)
    with pytest.raises(CancelledError, match=reason):
        training_step.train(store, round_, report)
    assert published.read_bytes() == b"of the worker that has it now"


def test_cancelling_stops_all_processes(store, six_images):
    project = import_folder(store, six_images, "pets").project_id
    started(store, project, iterations=500)

    def cancel(done, total, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(store, cancel)
    assert not store.files(project).network(1).exists()
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not [command for command in left if TRAIN_PROCESS in command]
