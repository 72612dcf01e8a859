"""One of two processes that take a training's first step together: RANK MEETING OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed

from alc_backend.segmentation.dataset import TrainingCrops
from alc_backend.segmentation.train import Training
from tests.segmentation.small import CLASSES, config, load


def main() -> None:
    """Write the network after the step to OUT/RANK.pt."""
    rank, meeting, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    crops = TrainingCrops(
        ["1", "2"], load, input_size=64, batch_size=4, fill=(0, 0, 0), seed=0, cache_bytes=0
    )
    training = Training(config(batch_size=4), CLASSES, out / "n", "1")
    training.network.eval()
    training.step(0, crops.batch(0, rank, 2), crops.keys(0))
    torch.save(training.network.state_dict(), out / f"{rank}.pt")


if __name__ == "__main__":
    main()
