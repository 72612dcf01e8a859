from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import PRESETS
from alc_backend.segmentation.dataset import TrainingCrops
from alc_backend.segmentation.infer import Predictor
from alc_backend.segmentation.train import Training, train
from tests.segmentation.small import CLASSES, config, load


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


def test_a_loss_that_is_no_number_names_iteration_and_images(tmp_path, monkeypatch):
    monkeypatch.setattr(
        torch.nn.CrossEntropyLoss, "forward", lambda self, a, b: a.sum() * float("nan")
    )
    with pytest.raises(TrainingError, match=r"iteration 0 \(images [123], [123]\)"):
        run(tmp_path / "n.safetensors")


def test_training_learns_and_prediction_keeps_the_images_size(tmp_path):
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
    assert networks.load(tmp_path / "n.safetensors", CLASSES)[1] == "efficientnet-lite0"
    with pytest.raises(TrainingError, match=r"left, right.*up, down"):
        networks.load(tmp_path / "n.safetensors", ["up", "down"])
    with pytest.raises(TrainingError, match="cannot be read"):
        networks.load(tmp_path / "missing.safetensors", CLASSES)


def test_a_network_without_its_configuration_is_refused(tmp_path):
    network = networks.build("efficientnet-lite0", 2, weights="none")
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, tmp_path / "n.safetensors")
    assert networks.trained_by(tmp_path / "n.safetensors") is None
    with pytest.raises(TrainingError, match=r"n\.safetensors: cannot be read"):
        networks.load(tmp_path / "n.safetensors", CLASSES[:2])


def test_a_network_of_another_encoder_is_refused_by_name(tmp_path):
    network = networks.build("resnet18", 2, weights="none")
    networks.save(
        network, tmp_path / "n.safetensors", encoder="efficientnet-lite0", classes=CLASSES
    )
    with pytest.raises(TrainingError, match="not those of efficientnet-lite0"):
        networks.load(tmp_path / "n.safetensors", CLASSES)


@pytest.fixture(scope="module")
def resnet18():
    """Tensors as torchvision publishes a ResNet-18: the encoder's, and a classifier."""
    tensors = torchvision.models.resnet18(weights=None).state_dict()
    assert "fc.weight" in tensors
    return tensors


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_encoder_weights_come_from_a_file(tmp_path, resnet18, suffix):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(resnet18, path)
    encoder = networks.build("resnet18", 2, weights=str(path)).encoder.state_dict()
    assert torch.equal(encoder["conv1.weight"], resnet18["conv1.weight"])
    assert torch.equal(encoder["layer4.1.bn2.weight"], resnet18["layer4.1.bn2.weight"])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda tensors: {**tensors, "conv1.weight": torch.zeros(1)}, r"conv1.weight has shape"),
        (lambda tensors: {"conv1.weight": tensors["conv1.weight"]}, r"bn1.weight is missing"),
        (lambda tensors: [1, 2], "holds no tensors by name"),
        (lambda tensors: {"conv1.weight": Path("/etc")}, "cannot be read"),  # would need pickle
    ],
)
def test_a_file_of_other_weights_is_refused(tmp_path, resnet18, content, named):
    path = tmp_path / "weights.pth"
    torch.save(content(resnet18), path)
    with pytest.raises(TrainingError, match=named) as refused:
        networks.build("resnet18", 2, weights=str(path))
    assert "ALC_ENCODER_WEIGHTS" in str(refused.value)
    (tmp_path / "empty.pth").touch()
    for name in ("nothing.pth", "empty.pth"):
        with pytest.raises(TrainingError, match="cannot be read"):
            networks.build("resnet18", 2, weights=str(tmp_path / name))


def in_a_process_of_its_own(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=True,
    ).stdout


def test_an_offline_machine_is_told_both_remedies(tmp_path):
    said = in_a_process_of_its_own(
        """
        from alc_backend.errors import TrainingError
        from alc_backend.segmentation import model
        try:
            model.build("resnet18", 2, weights="imagenet")
        except TrainingError as error:
            print(error)
        """,
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path),
    )
    assert "resnet18 cannot be downloaded" in said
    assert "ALC_ENCODER_WEIGHTS" in said
    assert "efficientnet-lite0" in said


@pytest.fixture
def hub(tmp_path, resnet18):
    """A model hub on this machine that has the weights of a ResNet-18."""
    encoder = {name: value for name, value in resnet18.items() if not name.startswith("fc.")}
    save_file(encoder, tmp_path / "model.safetensors")
    contents = {
        "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
        "config.json": b"{}",
    }
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(with_body=False)

        def do_GET(self):
            self._answer(with_body=True)

        def _answer(self, with_body):
            asked.append(self.path)
            body = contents[self.path.rsplit("/", 1)[-1]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", hashlib.sha256(body).hexdigest())
            self.send_header("X-Repo-Commit", self.path.split("/")[-2])
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_imagenet_weights_are_downloaded_once(tmp_path, hub, resnet18):
    address, asked = hub
    code = """
        from alc_backend.segmentation import model
        print(model.build("resnet18", 2, weights="imagenet").encoder.conv1.weight.sum().item())
    """
    first = in_a_process_of_its_own(
        code, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "cache"), HF_HUB_DISABLE_XET="1"
    )
    assert float(first) == pytest.approx(resnet18["conv1.weight"].sum().item(), rel=1e-5)
    assert asked
    again = in_a_process_of_its_own(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    assert again == first


def test_a_batch_that_does_not_fit_is_taken_in_parts(tmp_path, monkeypatch):
    build, seen, said = networks.build, [], []

    def small(*arguments, **options):
        network = build(*arguments, **options)
        forward = network.forward

        def limited(images):
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            seen.append(len(images))
            return forward(images)

        network.forward = limited
        return network

    monkeypatch.setattr(networks, "build", small)
    run(
        tmp_path / "n.safetensors",
        batch_size=4,
        iterations=2,
        progress=lambda done, total, message: said.append(message),
    )
    assert seen == [2, 2, 2, 2]
    assert all(
        "in parts of about 2: the batch does not fit into memory" in message for message in said
    )
    monkeypatch.setattr(networks, "build", build)
    monkeypatch.setattr(
        torch.nn.CrossEntropyLoss, "forward", raising(torch.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.raises(TrainingError, match=r"do not fit into memory.*ALC_INPUT_SIZE"):
        run(tmp_path / "n.safetensors", batch_size=4)


def raising(error):
    def forward(*_):
        raise error

    return forward


def test_parts_have_the_gradient_of_the_whole_batch(tmp_path):
    """Without batch norm's statistics of the batch, halves must add up to the whole."""

    def gradient(part):
        crops = TrainingCrops(
            ["1", "2"], load, input_size=64, batch_size=4, fill=(0, 0, 0), seed=0, cache_bytes=0
        )
        training = Training(config(batch_size=4), CLASSES, tmp_path / "n", "1")
        training.network.eval()
        training._part = part
        training.step(0, crops.batch(0), crops.keys(0))
        return [p.grad for p in training.network.parameters() if p.grad is not None]

    whole, halves = gradient(4), gradient(2)
    assert len(whole) > 100
    for one, other in zip(whole, halves, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_two_processes_take_the_step_of_one(tmp_path):
    """Without batch norm's statistics of the batch, shares must add up to the whole."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.segmentation.share", str(rank), tmp_path / "m", tmp_path],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            cwd=Path(__file__).parents[2],
        )
        for rank in (0, 1)
    ]
    assert [process.wait(600) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    crops = TrainingCrops(
        ["1", "2"], load, input_size=64, batch_size=4, fill=(0, 0, 0), seed=0, cache_bytes=0
    )
    alone = Training(config(batch_size=4), CLASSES, tmp_path / "n", "1")
    alone.network.eval()
    before = {name: value.clone() for name, value in alone.network.state_dict().items()}
    alone.step(0, crops.batch(0), crops.keys(0))
    after = alone.network.state_dict()
    for name, value in after.items():
        assert torch.equal(first[name], second[name]), name
        if value.is_floating_point():
            assert torch.allclose(first[name], value, rtol=1e-3, atol=1e-6), name
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_a_damaged_checkpoint_starts_anew(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "n.safetensors", progress=stop_at(5, KeyboardInterrupt()))
    (tmp_path / "n.checkpoint").write_bytes(b"")
    seen = []
    run(tmp_path / "n.safetensors", progress=lambda done, total, m: seen.append(done))
    assert seen[0] == 1
    assert "training starts anew" in caplog.text


def test_decoded_images_are_kept_within_the_budget():
    loaded = []

    def counted(key):
        loaded.append(key)
        return load(key)

    image, labels = load("1")
    for room, expected in ((0, 12), (image.nbytes + labels.nbytes, 9), (10**6, 3)):
        loaded.clear()
        crops = TrainingCrops(
            ["1", "2", "3"],
            counted,
            input_size=64,
            batch_size=3,
            fill=(0, 0, 0),
            seed=0,
            cache_bytes=room,
        )
        for iteration in range(4):
            crops.batch(iteration)
        assert len(loaded) == expected


def test_progress_says_loss_speed_and_time_left(tmp_path):
    said = []
    run(tmp_path / "n.safetensors", progress=lambda done, total, message: said.append(message))
    assert all(re.fullmatch(r"loss [\d.]+, [\d.]+ images/s", line) for line in said)


def test_tensorboard_gets_loss_and_rate(tmp_path):
    train(
        config(),
        ["1", "2", "3"],
        load,
        classes=CLASSES,
        path=tmp_path / "n.safetensors",
        data_version="1",
        progress=lambda done, total, message: None,
        log_folder=tmp_path / "log",
    )
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [entry.step for entry in events.Scalars("loss")] == [0, 1, 2, 3, 4, 5]
    rates = [entry.value for entry in events.Scalars("learning rate")]
    assert rates == pytest.approx([0.02 * (1 - step / 6) ** 0.9 for step in range(6)])


def test_an_odd_input_size_is_padded_with_void():
    crops = TrainingCrops(
        ["1"], load, input_size=65, batch_size=2, fill=(1, 2, 3), seed=0, cache_bytes=0
    )
    batch = crops.batch(0)
    assert batch.images.shape == (2, 80, 80, 3)
    assert (batch.labels[:, 65:] == 255).all()
    assert (batch.labels[:, :, 65:] == 255).all()
    assert (batch.images[:, 65:] == [1, 2, 3]).all()
    assert (batch.labels[:, :65, :65] != 255).any()


def test_batches_come_in_order_and_are_shared_out():
    crops = TrainingCrops(
        ["1", "2", "3"],
        load,
        input_size=64,
        batch_size=4,
        fill=(0, 0, 0),
        seed=0,
        cache_bytes=10**6,
    )
    for iteration, batch in enumerate(crops.batches(2, 9, threads=3), start=2):
        assert np.array_equal(batch.images, crops.batch(iteration).images)
    assert iteration == 8
    whole = crops.batch(5)
    halves = [next(crops.batches(5, 6, threads=1, rank=rank, ranks=2)) for rank in (0, 1)]
    assert np.array_equal(whole.images[0::2], halves[0].images)
    assert np.array_equal(whole.images[1::2], halves[1].images)


def test_the_papers_presets():
    values = {
        name: (preset.input_size, preset.iterations, preset.batch_size, preset.base_rate)
        for name, preset in PRESETS.items()
    }
    assert values["pascal"] == (513, 30_000, 16, 0.01)
    assert values["cityscapes"] == (768, 30_000, 16, 0.01)
    assert values["kvasir"] == (352, 6_300, 32, 0.01)
    assert values["cpu"] == (192, 400, 8, 0.02)
    assert {preset.encoder for preset in PRESETS.values()} == {"resnet101", "efficientnet-lite0"}


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
