"""Measure time and memory of a training iteration: each encoder at each preset's input size.

``python -m benchmarks.encoders [FILE]``: images of noise, in batches of two on a CPU and of the
preset's size on a GPU. Each case runs in a process of its own, so that its peak memory is its own.
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

from alc_backend.segmentation.config import ENCODERS, PRESETS, training_config
from alc_backend.segmentation.train import train


def measure(encoder: str, preset: str) -> dict[str, Any]:
    """The figures of one case, over a few iterations without the first."""
    cuda = torch.cuda.is_available()
    batch = PRESETS[preset].batch_size if cuda else 2
    iterations = 20 if cuda else 3
    config = training_config(
        preset, encoder=encoder, encoder_weights="none", batch_size=batch, iterations=iterations
    )
    size = config.input_size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    labels = rng.integers(0, 21, (size, size)).astype(np.uint8)
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            config,
            ["a", "b"],
            lambda key: (image, labels),
            classes=[str(number) for number in range(21)],
            path=Path(folder) / "model.safetensors",
            data_version="noise",
            progress=lambda done, total, message: moments.append(time.perf_counter()),
        )
    seconds = (moments[-1] - moments[0]) / (len(moments) - 1)
    resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() if cuda else resident
    return {
        "encoder": encoder,
        "preset": preset,
        "input": size,
        "batch": batch,
        "seconds per iteration": seconds,
        "images/s": batch / seconds,
        "peak memory (MiB)": memory / 2**20,
    }


def main() -> None:
    """Measure every case in its own process, print the table, write FILE as JSON."""
    rows = []
    for encoder in ENCODERS:
        for preset in ("cpu", "kvasir", "pascal", "cityscapes"):
            command = [sys.executable, "-m", "benchmarks.encoders", "--case", encoder, preset]
            rows.append(json.loads(subprocess.check_output(command, text=True)))
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if "--case" in sys.argv:
        print(json.dumps(measure(*sys.argv[2:4])))
    else:
        main()
