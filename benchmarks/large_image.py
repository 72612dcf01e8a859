"""Memory and time of predicting and scoring one image of 4000×6000 pixels in 21 classes.

``python -m benchmarks.large_image [FILE]``: an image of noise and a network with random
weights. The probabilities (2 GB) lie in a temporary file; "anonymous" is the memory that the
system cannot give back by writing to that file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from alc_backend.core.acquisition import measure
from alc_backend.core.pool import representative_pixels
from alc_backend.core.statistics import ImageStatistics
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.infer import Predictor

HEIGHT, WIDTH, CLASSES = 4000, 6000, 21


def anonymous() -> int:
    """The bytes of resident memory that no file backs (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def watch(over: threading.Event, peak: list[int]) -> None:
    """Record the largest value of :func:`anonymous` until ``over`` is set."""
    while not over.wait(0.02):
        peak[0] = max(peak[0], anonymous())


def main() -> None:
    """Predict, score, print; write FILE as JSON."""
    names = [str(number) for number in range(CLASSES)]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (HEIGHT, WIDTH), dtype=np.uint8)
    superpixels = (
        np.arange(HEIGHT)[:, None] // 200 * 30 + np.arange(WIDTH)[None] // 200 + 1
    ).astype(np.int32)
    over, peak = threading.Event(), [0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        network = networks.build("efficientnet-lite0", CLASSES, weights="none")
        networks.save(network, path, encoder="efficientnet-lite0", classes=names)
        predictor = Predictor(path, names)
        before = anonymous()
        watcher = threading.Thread(target=watch, args=(over, peak))
        watcher.start()
        began = time.perf_counter()
        probabilities = predictor.probabilities(image)
        between = time.perf_counter()
        image = ImageStatistics(probabilities, labels, superpixels)
        measure(image, representative_pixels(image))
        ended = time.perf_counter()
        over.set()
        watcher.join()
    result = {
        "network (s)": between - began,
        "pool + SIM (s)": ended - between,
        "anonymous memory before (MiB)": before / 2**20,
        "anonymous memory at the peak (MiB)": peak[0] / 2**20,
    }
    document = json.dumps(result, indent=1)
    print(document)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(document + "\n")


if __name__ == "__main__":
    main()
