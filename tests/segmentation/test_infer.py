from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.acquisition import measure
from alc_backend.core.pool import representative_pixels
from alc_backend.core.statistics import ImageStatistics
from alc_backend.errors import RoundError, StorageError, TrainingError
from alc_backend.segmentation import infer
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.infer import Predictor
from tests.segmentation.small import CLASSES, load


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "n.safetensors"
    torch.manual_seed(0)
    built = networks.build("efficientnet-lite0", 2, weights="imagenet")
    networks.save(built, path, encoder="efficientnet-lite0", classes=CLASSES)
    return path


@given(st.integers(1, 9000))
def test_tiles_cover_every_pixel_once_and_see_their_neighbours(length):
    kept = 0
    for seen, inner in infer._tiles(length):
        assert inner.start == kept
        kept = inner.stop
        assert seen.stop - seen.start <= infer.TILE
        assert seen.start == max(0, inner.start - infer.MARGIN)
        assert seen.stop == min(length, inner.stop + infer.MARGIN)
        assert seen.start % 16 == 0
    assert kept == length


def test_a_large_image_is_predicted_in_tiles(network, monkeypatch):
    picture = np.tile(load("1")[0], (7, 6, 1))[:480, :500]
    whole = Predictor(network, CLASSES).probabilities(picture)
    monkeypatch.setattr(infer, "WHOLE_PIXELS", 1000)
    monkeypatch.setattr(infer, "TILE", 352)
    monkeypatch.setattr(infer, "MARGIN", 96)
    seen = []
    predict = Predictor._predict
    monkeypatch.setattr(
        Predictor, "_predict", lambda self, image: seen.append(image.shape) or predict(self, image)
    )
    tiled = Predictor(network, CLASSES).probabilities(picture)
    assert tiled.shape == whole.shape == (2, 480, 500)
    assert len(seen) == 12
    assert max(shape[0] * shape[1] for shape in seen) <= 352 * 352
    assert np.abs(tiled.sum(axis=0) - 1).max() < 1e-5
    assert (tiled.argmax(axis=0) == whole.argmax(axis=0)).mean() > 0.9  # ASPP pools over the tile


def test_probabilities_too_large_for_memory_lie_in_a_file(network, monkeypatch):
    picture, labels = load("1")
    monkeypatch.setattr(infer, "WHOLE_PIXELS", 1000)
    expected = Predictor(network, CLASSES).probabilities(picture)
    monkeypatch.setattr(infer, "MEMORY_BYTES", 1000)
    found = Predictor(network, CLASSES).probabilities(picture)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, expected)
    names = sorted(path.name for path in network.parent.iterdir())
    assert names == ["n.safetensors"]
    superpixels = np.ones(labels.shape, dtype=np.int32)
    scores = [
        measure(image, representative_pixels(image)).tolist()
        for image in (ImageStatistics(p, labels, superpixels) for p in (found, expected))
    ]
    assert scores[0] == scores[1]


def test_a_full_disk_is_told_and_does_not_blame_the_network(network, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(infer, "WHOLE_PIXELS", 1000)
    monkeypatch.setattr(infer, "MEMORY_BYTES", 1000)
    monkeypatch.setattr(infer.os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"no room.*No space left"):
        Predictor(network, CLASSES).probabilities(load("1")[0])


def test_flip_averages_with_the_mirrored_image(network):
    picture = load("1")[0]
    plain, flipped = Predictor(network, CLASSES), Predictor(network, CLASSES, flip=True)
    mirrored = plain.probabilities(np.ascontiguousarray(picture[:, ::-1]))[:, :, ::-1]
    expected = (plain.probabilities(picture) + mirrored) / 2
    assert np.abs(flipped.probabilities(picture) - expected).max() < 1e-6
    assert np.abs(expected - plain.probabilities(picture)).max() > 1e-4


def test_a_network_that_predicts_no_numbers_says_so(network, tmp_path):
    built, _ = networks.load(network, CLASSES)
    with torch.no_grad():
        next(built.parameters()).fill_(float("nan"))
    path = tmp_path / "n.safetensors"
    networks.save(built, path, encoder="efficientnet-lite0", classes=CLASSES)
    with pytest.raises(TrainingError, match="not numbers"):
        Predictor(path, CLASSES).probabilities(load("1")[0])


def test_a_gpu_too_full_for_an_image_is_told_and_does_not_blame_the_network(network, monkeypatch):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    built, encoder = networks.load(network, CLASSES)
    built.forward = full
    monkeypatch.setattr(networks, "load", lambda *_: (built, encoder))
    picture = load("1")[0]
    predictor = Predictor(network, CLASSES, flip=True)
    with pytest.raises(RoundError, match=f"{picture.shape[1]}×{picture.shape[0]} pixels.*ALC_ENC"):
        predictor.predict(picture)
