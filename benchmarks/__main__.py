"""Measure pool and SIM against one pass over the probabilities, single-threaded."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from alc_backend.core.acquisition import score
from alc_backend.core.pool import representative_pixels

CASES = [(21, 375, 500, 8), (21, 375, 500, 100), (19, 1024, 2048, 500)]
"""Classes, height, width, superpixels."""


def fastest(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(classes: int, height: int, width: int, count: int) -> dict[str, float | str]:
    """Time one case."""
    rng = np.random.default_rng(0)
    raw = rng.random((classes, height, width), dtype=np.float32)
    probabilities = raw / raw.sum(axis=0)
    labels = rng.integers(0, classes, (height, width)).astype(np.uint8)
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    y = np.arange(height)[:, None] * rows // height
    x = np.arange(width)[None] * columns // width
    superpixels = np.minimum(y * columns + x + 1, count).astype(np.int32)

    def pool_and_sim() -> None:
        score(probabilities, labels, superpixels, representative_pixels(probabilities, superpixels))

    one_pass = fastest(lambda: probabilities.sum(), 5)
    spent = fastest(pool_and_sim)
    return {
        "case": f"{classes}×{height}×{width}, {count} superpixels",
        "one pass (ms)": round(one_pass * 1000, 2),
        "pool + sim (ms)": round(spent * 1000, 1),
        "ratio": round(spent / one_pass, 1),
    }


def main() -> None:
    """Print the table; with a file name, write it there as JSON too."""
    results = [measure(*case) for case in CASES]
    table = Table(*results[0])
    for result in results:
        table.add_row(*map(str, result.values()))
    Console().print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


main()
