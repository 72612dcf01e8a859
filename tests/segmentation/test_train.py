from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import training_config
from alc_backend.segmentation.dataset import TrainingCrops
from alc_backend.segmentation.infer import Predictor
from alc_backend.segmentation.train import train

CLASSES = ["left", "right"]


def load(key):
    """A picture dark on the left and bright on the right."""
    rng = np.random.default_rng(int(key))
    labels = np.zeros((70, 90), dtype=np.uint8)
    labels[:, 40:] = 1
    labels[:3] = 255
    image = np.where(labels[..., None] == 1, 210, 40) + rng.normal(0, 10, (70, 90, 3))
    return np.clip(image, 0, 255).astype(np.uint8), labels


def config(**changes):
    values = {"iterations": 6, "input_size": 64, "batch_size": 2, **changes}
    return training_config("cpu", **values)


def run(path, *, progress=lambda done, total, message: None, data_version="1", **changes):
    train(
        config(**changes),
        ["1", "2", "3"],
        load,
        classes=CLASSES,
        path=path,
        data_version=data_version,
        progress=progress,
        checkpoint_every=2,
    )


def weights(path):
    from safetensors.torch import load_file

    return load_file(path)


def stop_at(iteration, error):
    def progress(done, total, message):
        if done == iteration:
            raise error

    return progress


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    run(tmp_path / "undisturbed.safetensors")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.safetensors", progress=stop_at(5, KeyboardInterrupt()))
    first_seen = []
    run(tmp_path / "killed.safetensors", progress=lambda done, total, m: first_seen.append(done))
    assert first_seen[0] == 5  # the checkpoint was after iteration 4
    expected, found = (
        weights(tmp_path / "undisturbed.safetensors"),
        weights(tmp_path / "killed.safetensors"),
    )
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.parametrize("changes", [{"seed": 3}, {"data_version": "2"}])
def test_a_checkpoint_of_another_training_is_not_used(tmp_path, changes):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "n.safetensors", progress=stop_at(5, KeyboardInterrupt()))
    seen = []
    run(tmp_path / "n.safetensors", progress=lambda done, total, m: seen.append(done), **changes)
    assert seen[0] == 1


def test_cancelling_leaves_no_network(tmp_path):
    with pytest.raises(CancelledError):
        run(tmp_path / "n.safetensors", progress=stop_at(3, CancelledError("cancelled")))
    assert not (tmp_path / "n.safetensors").exists()


def test_a_loss_that_is_no_number_names_iteration_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(
        torch.nn.CrossEntropyLoss, "forward", lambda self, a, b: a.sum() * float("nan")
    )
    with pytest.raises(TrainingError, match=r"iteration 0 \(images [123], [123]\)"):
        run(tmp_path / "n.safetensors")


def test_training_learns_and_prediction_keeps_the_pictures_size(tmp_path):
    run(tmp_path / "n.safetensors", iterations=25, batch_size=4, base_rate=0.05)
    probabilities = Predictor(tmp_path / "n.safetensors", CLASSES).probabilities(load("9")[0])
    assert probabilities.shape == (2, 70, 90)
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities.sum(axis=0) - 1).max() < 1e-5
    labels = load("9")[1]
    known = labels != 255
    assert (probabilities.argmax(axis=0)[known] == labels[known]).mean() > 0.9


def test_a_network_of_other_classes_is_refused_by_name(tmp_path):
    network = networks.build("efficientnet-lite0", 2, weights="none")
    networks.save(
        network, tmp_path / "n.safetensors", encoder="efficientnet-lite0", classes=CLASSES
    )
    assert json.loads((tmp_path / "n.json").read_text())["encoder"] == "efficientnet-lite0"
    with pytest.raises(TrainingError, match=r"left, right.*up, down"):
        networks.load(tmp_path / "n.safetensors", ["up", "down"])
    with pytest.raises(TrainingError, match="cannot be read"):
        networks.load(tmp_path / "missing.safetensors", CLASSES)


def test_the_packaged_weights_fill_the_whole_encoder():
    first = networks.build("efficientnet-lite0", 2, weights="imagenet").encoder.state_dict()
    second = networks.build("efficientnet-lite0", 2, weights="imagenet").encoder.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    scratch = networks.build("efficientnet-lite0", 2, weights="none").encoder.state_dict()
    convolutions = [name for name in first if name.endswith("weight") and first[name].ndim == 4]
    assert len(convolutions) > 40
    assert not any(torch.equal(first[name], scratch[name]) for name in convolutions)


def test_crops_are_fixed_by_seed_and_iteration_and_padded_with_void():
    def crops(seed):
        return TrainingCrops(
            ["1", "2", "3"],
            load,
            input_size=64,
            batch_size=2,
            fill=(1, 2, 3),
            seed=seed,
            cache_bytes=0,
        )

    first, again, other = crops(0).batch(7), crops(0).batch(7), crops(1).batch(7)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)
    drawn = [key for iteration in range(3) for key in crops(0).batch(iteration).keys]
    assert sorted(drawn) == ["1", "1", "2", "2", "3", "3"]
    padded = [
        (batch.images == [1, 2, 3]).all(axis=-1) & (batch.labels == 255)
        for batch in map(crops(0).batch, range(12))
    ]
    assert any(mask.any() for mask in padded)


@pytest.mark.parametrize(
    "changes", [{"encoder": "vgg"}, {"input_size": 32}, {"batch_size": 1}, {"base_rate": 0.0}]
)
def test_impossible_settings_are_named(changes):
    with pytest.raises(SettingsError, match=next(iter(changes))):
        config(**changes)
