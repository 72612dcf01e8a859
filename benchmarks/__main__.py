"""Measure the acquisition core, in one thread, in relation to one pass over the probabilities.

``python -m benchmarks [FILE]`` prints three tables and writes all figures to FILE as JSON.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from alc_backend.core import kernels_numpy
from alc_backend.core.acquisition import ACQUISITIONS, measure
from alc_backend.core.arrays import VOID
from alc_backend.core.pool import representative_pixels
from alc_backend.core.statistics import ImageStatistics
from alc_backend.loop.rounds.scoring import traits_of
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import training_config
from alc_backend.segmentation.infer import Predictor
from tests.core import reference

CASES = [(21, 375, 500, 8), (21, 375, 500, 100), (19, 1024, 2048, 500)]
"""The measured images: classes, height, width, superpixels."""

COUNTS = [1, 8, 100, 1000, 5000]
"""Numbers of superpixels of one image, to show that they do not matter."""

REFERENCE_PIXELS = 20_000
"""The pixels that the per-pixel reference computes at least; its time is scaled to the image."""

Scene = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32]]


def scene(classes: int, height: int, width: int, count: int) -> Scene:
    """Smooth probabilities like a network's, labels that mostly agree with them, and a grid."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((2, classes, height // 16, width // 16), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    probabilities = (3 * fine[0]).softmax(dim=0).numpy()
    labels = (fine[0] + 0.5 * fine[1]).argmax(dim=0).numpy().astype(np.uint8)
    columns = int(np.ceil(np.sqrt(count * width / height)))
    rows = int(np.ceil(count / columns))
    y = np.arange(height)[:, None] * rows // height
    x = np.arange(width)[None] * columns // width
    superpixels = np.minimum(y * columns + x + 1, count).astype(np.int32)
    return probabilities, labels, superpixels


def pool_and_sim(arrays: Scene, **options: Any) -> None:
    """Score one image as a round does."""
    image = ImageStatistics(*arrays, **options)
    measure(image, representative_pixels(image))


def all_acquisitions(arrays: Scene) -> None:
    """Score one image by every acquisition."""
    image = ImageStatistics(*arrays)
    pool = representative_pixels(image)
    for name in ACQUISITIONS:
        measure(image, pool, name)


def fastest(work: Callable[[], object], repeats: int = 5) -> float:
    """The time of the fastest of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def per_pixel(arrays: Scene) -> float:
    """The seconds that pool and SIM take pixel by pixel in Python, scaled to the whole image."""
    probabilities, labels, superpixels = arrays
    done = 0
    began = time.perf_counter()
    for number in range(1, int(superpixels.max()) + 1):
        ys, xs = np.nonzero(superpixels == number)
        box = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
        inside = probabilities[(slice(None), *box)], labels[box], superpixels[box]
        entry = reference.pool_entry(inside[0], inside[2], number)
        star = max(entry["cosines"], key=entry["cosines"].__getitem__)
        reference.sim(*inside, number, star)
        done += entry["size"]
        if done >= REFERENCE_PIXELS:
            break
    return (time.perf_counter() - began) * labels.size / done


def extra_memory(work: Callable[[], object]) -> float | None:
    """The bytes of resident memory that ``work`` added at its peak; None on systems but Linux."""
    status = Path("/proc/self/status")
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free already must count when it is used again
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    except (AttributeError, OSError):
        return None
    before = _kilobytes(status, "VmRSS")
    work()
    return 1024.0 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def compare(*case: int) -> dict[str, Any]:
    """Time one case beside the reference."""
    arrays = scene(*case)
    size = arrays[0].nbytes
    one_pass = fastest(arrays[0].sum, 20)
    spent = fastest(lambda: pool_and_sim(arrays), 9)
    everything = fastest(lambda: all_acquisitions(arrays))
    slow = per_pixel(arrays)
    memory = extra_memory(lambda: pool_and_sim(arrays))
    memory_of_all = extra_memory(lambda: all_acquisitions(arrays))
    classes, height, width, count = case
    return {
        "case": f"{classes}×{height}×{width}, {count} superpixels",
        "one pass (ms)": 1000 * one_pass,
        "pool + SIM (ms)": 1000 * spent,
        "× one pass": spent / one_pass,
        "all acquisitions (ms)": 1000 * everything,
        "× pool + SIM": everything / spent,
        "NumPy kernels (ms)": 1000
        * fastest(lambda: pool_and_sim(arrays, kernels=kernels_numpy), 2),
        "per pixel (s)": slow,
        "times faster": slow / spent,
        "memory × probabilities": memory and memory / size,
        "memory of all": memory_of_all and memory_of_all / size,
    }


def with_traits() -> list[dict[str, Any]]:
    """Time one image as a round scores it, the network's pass included, without and with traits.

    The steps are taken in turn, so that what else the machine does falls on all of them. The
    network has all cores, the other steps one.
    """
    (case, *_) = CASES
    classes = [str(number) for number in range(case[0])]
    _, labels, superpixels = scene(*case)
    encoder = training_config("cpu").encoder
    photo = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        networks.save(
            networks.build(encoder, len(classes), weights="none"),
            path, encoder=encoder, classes=classes,
        )  # fmt: skip
        predictor = Predictor(path, classes)
    rows = np.arange(case[-1], dtype=np.int64)
    seconds: dict[str, list[float]] = {"network": [], "pool + SIM": [], "traits": []}
    for _ in range(40):
        began = time.perf_counter()
        prediction = predictor.predict(photo)
        seen = time.perf_counter()
        image = ImageStatistics(prediction.probabilities, labels, superpixels)
        pool = representative_pixels(image)
        sims = measure(image, pool)
        scored = time.perf_counter()
        pixels = np.bincount(labels.ravel(), minlength=VOID + 1)
        traits_of(prediction, image, pool, sims, rows, pixels).packed()
        ended = time.perf_counter()
        times = (seen - began, scored - seen, ended - scored)
        for kept, spent in zip(seconds.values(), times, strict=True):
            kept.append(spent)
    network, sim, traits = (1000 * min(times) for times in seconds.values())
    return [
        {
            "case": "one image",
            "the network (ms)": network,
            "pool + SIM (ms)": sim,
            "traits (ms)": traits,
            "with traits × without": (network + sim + traits) / (network + sim),
        }
    ]


def flatness() -> list[dict[str, Any]]:
    """Time one image cut into more and more superpixels."""
    rows = []
    for count in COUNTS:
        arrays = scene(21, 375, 500, count)
        spent = fastest(lambda arrays=arrays: pool_and_sim(arrays), 9)  # type: ignore[misc]
        rows.append({"superpixels": count, "pool + SIM (ms)": 1000 * spent})
    for row in rows:
        row["× the first"] = row["pool + SIM (ms)"] / rows[0]["pool + SIM (ms)"]
    return rows


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print figures as a table with a column for each case."""
    table = Table("", *(str(next(iter(row.values()))) for row in rows))
    for name in list(rows[0])[1:]:
        table.add_row(name, *("–" if row[name] is None else f"{row[name]:.3g}" for row in rows))
    console.print(table)


def main() -> None:
    """Measure, print, and write the JSON when a file is named."""
    console = Console()
    pool_and_sim(scene(2, 32, 32, 1))  # compiles
    cases = [compare(*case) for case in CASES]
    counts = flatness()
    traits = with_traits()
    show(console, cases)
    show(console, counts)
    show(console, traits)
    if len(sys.argv) > 1:
        versions = {"python": platform.python_version(), "numpy": np.__version__}
        document = {"versions": versions, "cases": cases, "superpixels": counts}
        document["traits"] = traits
        Path(sys.argv[1]).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
