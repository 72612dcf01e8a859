"""Compare ``default`` with other orders of queries that were tried, on one dataset.

Usage: ``python -m benchmarks.variants FOLDER [--seeds 0,1,2] [--images N] [--cache FOLDER]``.
``--images`` reduces the dataset to N images, spread evenly: the fewer there are, the better the
network memorises their wrong labels.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from alc_backend.core import acquisition
from alc_backend.core.acquisition import ACQUISITIONS, Acquisition, Measured, Scores
from alc_backend.segmentation.config import training_config
from alc_backend.simulate import plans
from alc_backend.simulate.experiment import Experiment
from alc_backend.simulate.loop import Loop
from alc_backend.simulate.scenes import Scenes

SHARES = "5%,10%,15%,20%,30%,50%"
console = Console(width=110)


def wrong_pixels(found: Measured, power: float, least: float) -> Scores:
    """The expected wrong pixels: size × a power of the mean weighted doubt, at least ``least``."""
    doubt = (found.scores / found.sizes) ** power
    pixels: Scores = np.maximum(doubt, least) * found.sizes
    return pixels


def at_once(found: Measured, power: float, accuracy: float) -> Scores:
    """The expected gain of each superpixel by itself, as if it were asked about first."""
    wrong = wrong_pixels(found, power, 0.0)
    differs = found.dominant != found.pseudo
    union = np.maximum(found.class_pixels, 1) + np.bincount(
        found.dominant, weights=wrong * differs, minlength=len(found.class_pixels)
    )
    pixel = accuracy * np.count_nonzero(found.class_pixels) / found.class_pixels.sum()
    gain: Scores = wrong * (1 / union[found.pseudo] + differs / union[found.dominant] + pixel)
    return gain


def in_turn(least: float, accuracy: int) -> Callable[[Measured], Scores]:
    """``default`` with other constants."""

    def compare(found: Measured) -> Scores:
        kept = acquisition.LEAST_DOUBT, acquisition.ACCURACY
        acquisition.LEAST_DOUBT, acquisition.ACCURACY = least, accuracy
        try:
            return acquisition.expected_gain(found)
        finally:
            acquisition.LEAST_DOUBT, acquisition.ACCURACY = kept

    return compare


VARIANTS: dict[str, Callable[[Measured], Scores]] = {
    "sim, doubt squared": lambda found: wrong_pixels(found, 2, 0.0),
    "SIM over the root of the class": lambda found: (
        found.scores / np.sqrt(np.maximum(found.class_pixels[found.pseudo], 1))
    ),
    "gain of IoU, at once": lambda found: at_once(found, 1, 0),
    "gain of IoU, doubt squared, at once": lambda found: at_once(found, 2, 0),
    "gain of IoU + 2 accuracy, at once": lambda found: at_once(found, 2, 2),
    "in turn, IoU alone": in_turn(0.05, 0),
    "in turn, + 2 accuracy": in_turn(0.05, 2),
    "in turn, + 8 accuracy": in_turn(0.05, 8),
    "in turn, least doubt 0.2, + 8": in_turn(0.2, 8),
    "in turn, least doubt 0.5, + 8": in_turn(0.5, 8),
    "in turn, least doubt 0.4, + 2": in_turn(0.4, 2),
}


def fewer(root: Path, count: int, into: Path) -> Path:
    """A dataset folder with ``count`` of the images, spread evenly over all."""
    keys = sorted(path.stem for path in (root / "images").iterdir())
    chosen = {keys[index * len(keys) // count] for index in range(count)}
    for folder in ("images", "pseudo_labels", "objects", "ground_truth"):
        (into / folder).mkdir()
        for path in (root / folder).iterdir():
            if path.stem in chosen:
                (into / folder / path.name).symlink_to(path.absolute())
    (into / "classes.txt").write_bytes((root / "classes.txt").read_bytes())
    return into


def main() -> None:
    """Ask in every order, with both oracles; print the mean data mIoU over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--images", type=int)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--cache", type=Path, default=Path("alc-data/simulations"))
    options = parser.parse_args()
    for name, compare in VARIANTS.items():
        ACQUISITIONS[name] = Acquisition(acquisition.sim, compare)
    names = ["size", "sim", "simiou", *VARIANTS, "default"]
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        root = options.folder
        if options.images:
            root = fewer(root, options.images, Path(folder))
        scenes = Scenes(root)
        budgets = plans.budgets(SHARES, scenes.superpixel_count)
        for seed in plans.seeds(options.seeds):
            training = training_config(options.preset, seed=seed)
            for name in names:
                for oracle in ("object", "pixel"):
                    row = Experiment(
                        training, budgets, acquisition=name, oracle=oracle, model_at="none"
                    )
                    loop = Loop(scenes, row, options.cache, lambda done, total, message: None)
                    found[name].append([point["data_miou"] for point in loop.run()["rounds"][1:]])
    size = np.array(found["size"])
    console.print(f"{'':38}{'  '.join(SHARES.split(','))}   mean  least above size")
    for name, values in found.items():
        miou = np.array(values)
        shown = " ".join(f"{value:.3f}" for value in miou.mean(axis=0))
        console.print(f"{name:38}{shown}  {miou.mean():.3f}  {(miou - size).min():+.3f}")


if __name__ == "__main__":
    main()
