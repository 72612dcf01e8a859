"""Measure time and memory of Grounded-SAM for one image, with the real sizes of all its models.

``python -m benchmarks.warm_start [FILE]``: an image of noise, 375×500, and 30 boxes. Weights are
random, so the detections are meaningless. Each case runs in a process of its own, so that its peak
memory is its own; needs 4 GB of disk for the checkpoints that it writes and removes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from alc_backend.foundation import models
from alc_backend.foundation.prompts import class_prompts
from tests.foundation import tiny

CASES = ("grounding-dino-tiny", "grounding-dino-base", "sam-vit-b", "sam-vit-l", "sam-vit-h")
REPEATS = 3
CLASSES = [f"sofa {letter}" for letter in "abcdefghijklmnopqrst"]


def measure(case: str) -> dict[str, Any]:
    """The figures of one case: write a checkpoint, load it, and process the image a few times."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3)).astype(np.uint8)
    boxes = np.array([[10 * k, 8 * k, 10 * k + 90, 8 * k + 70] for k in range(30)], np.float32)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        tensors = tiny.weights(tiny.shapes(case))
        if case.startswith("sam"):
            torch.save(tensors, path)
            del tensors
            sam = models.segmenter(path)
            path.unlink()
            for _ in range(REPEATS):
                begun = time.perf_counter()
                assert sum(1 for _ in sam.segment(image, boxes)) == 30
                seconds.append(time.perf_counter() - begun)
        else:
            torch.save({"model": tensors}, path)
            del tensors
            detector = models.detector(path, tiny.write_tokenizer(path.with_name("text")))
            for _ in range(REPEATS):
                begun = time.perf_counter()
                detector.detect(image, class_prompts(CLASSES), 0.0)
                seconds.append(time.perf_counter() - begun)
    resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else resident
    return {
        "model": case,
        "device": device,
        "seconds per image": min(seconds),
        "peak memory (MiB)": memory / 2**20,
    }


def main() -> None:
    """Measure every case in its own process, print the table, write FILE as JSON."""
    rows = []
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.warm_start", "--case", case]
        said = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
        rows.append(json.loads(said.splitlines()[-1]))
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main()
