"""What the paper measured, by table and figure and by the labels of our rows, in percent."""

from __future__ import annotations

from typing import NamedTuple

from alc_backend.common.types import Json


class Published(NamedTuple):
    """The paper's ``values``, by label and the field of a point, and a ``note`` on its setting."""

    note: str
    values: dict[str, dict[str, float]]


def _both(**rows: tuple[float, float]) -> dict[str, dict[str, float]]:
    return {
        label: {"data_miou": data, "model_miou": model} for label, (data, model) in rows.items()
    }


_PASCAL = "on PASCAL with ResNet-101, 30 000 iterations, three trials; {} clicks"

PAPER = {
    "table 2": Published(
        _PASCAL.format("5K"),
        _both(lcil=(56.59, 56.82), softmin=(59.28, 58.66), aiou=(59.95, 59.04), sim=(83.04, 68.72)),
    ),
    "table 3": Published(
        _PASCAL.format("5K"),
        _both(
            **{
                "nothing": (55.03, 56.30),
                "look-ahead + expansion": (55.38, 56.01),
                "diversity + expansion": (56.59, 56.82),
                "diversity + look-ahead": (55.61, 56.69),
                "all three": (83.04, 68.72),
            }
        ),
    ),
    "table 4": Published(
        _PASCAL.format("3K"),
        {
            "Spx, cold, SEEDS": {"model_miou": 52.34},
            "Spx, warm, SEEDS": {"model_miou": 57.77},
            "Spx, warm, objects": {"model_miou": 57.79},
            "ALC, warm, objects": {"model_miou": 65.30},
        },
    ),
    "table 5": Published(
        "on PASCAL with ResNet-101, 30 000 iterations; given are PASCAL's masks, corrected those "
        "of PASCAL+, and the validation images are of PASCAL+; on those of PASCAL the networks "
        "reach 75.36 and 75.78",
        {
            "given masks": {"data_miou": 99.1, "model_miou": 76.18},
            "corrected masks": {"data_miou": 100.0, "model_miou": 76.42},
        },
    ),
    "table 6": Published(
        _PASCAL.format("10K") + ", from PASCAL to PASCAL+",
        _both(lcil=(99.16, 75.68), softmin=(99.38, 75.76), aiou=(99.28, 75.61), sim=(99.78, 75.87)),
    ),
    "table 8": Published(
        _PASCAL.format("5K"),
        _both(
            **{
                "ε = 0.0": (83.34, 68.71),
                "ε = 0.2": (82.85, 68.48),
                "ε = 0.4": (82.11, 68.58),
                "ε = 0.6": (81.17, 68.48),
                "ε = 0.8": (80.18, 68.32),
                "ε = 1.0": (55.61, 56.05),
            }
        ),
    ),
    "table 9": Published(
        _PASCAL.format("5K"), _both(PixelPick=(66.88, 62.59), superpixels=(83.60, 68.71))
    ),
    "table 10": Published(
        _PASCAL.format("3K"),
        {
            "entropy": {"model_miou": 57.09},
            "bvsb": {"model_miou": 57.58},
            "classbal": {"model_miou": 57.51},
            "sim": {"model_miou": 65.30},
        },
    ),
    "figure 3": Published(
        "ALC reaches 95 % of the supervised model mIoU with 6K clicks on PASCAL, 30 % of what the "
        "best of the others needs, and with 150K on Cityscapes, 75 %; normalised by Theorem 3.1 "
        "its cost is 68 % of that. The others use other backbones, each compared with its own "
        "supervised network",
        {},
    ),
    "figure 4": Published(
        "SIM has the highest recall and a comparably low precision: it prefers large superpixels",
        {},
    ),
    "figure 5": Published(
        "on Kvasir-SEG, two classes, box threshold 0.05: from 20 % mIoU before any click, SIM "
        "reaches 93 % of the supervised model mIoU with 6K clicks",
        {},
    ),
    "figure 6": Published(
        "both first labels and superpixels help, superpixels more: 3K, 6K and 9K clicks on PASCAL",
        {},
    ),
    "figure 7": Published(
        "of PASCAL's superpixels, 743 were corrected: 2.6 million pixels, 0.5 % of all. With the "
        "corrected masks, networks gain about 0.3 % mIoU, and more than 2 % IoU of potted plants "
        "and sofas, which were among the classes corrected most often",
        {},
    ),
    "figure 8": Published(
        "figure 3 in absolute mIoU: ALC needs the fewest clicks on PASCAL and Cityscapes", {}
    ),
}
"""By what `alc simulate --table` or `--figure` shows."""


TWO_CLASSES = (
    "With two classes, naming a class is a choice of one bit, and so is accepting or correcting "
    "one: by Theorem 3.1 a correction query costs what a classification does (C_cor = C_cls), "
    "whatever the share of right labels. Hours still take accepting to be quicker, as people were "
    "with twenty classes."
)
"""What differs where there are two classes."""


def columns(document: Json) -> dict[str, dict[str, str]]:
    """The paper's columns beside the results of a table: the text of each label, by header."""
    found = PAPER.get(_shows(document))
    if found is None:
        return {}
    titles = {"data_miou": "paper: data mIoU", "model_miou": "paper: model mIoU"}
    return {
        title: {
            label: f"{values[name]:.2f}" for label, values in found.values.items() if name in values
        }
        for name, title in titles.items()
        if any(name in values for values in found.values.values())
    }


def notes(document: Json) -> list[str]:
    """What to know about results: what the paper did, or found, where they show one of its tables.

    Of two classes also what they cost.
    """
    shows = _shows(document)
    found = [f"The paper's {shows}: {PAPER[shows].note}."] if shows in PAPER else []
    return [*found, TWO_CLASSES] if len(document["dataset"]["classes"]) == 2 else found


def _shows(document: Json) -> str:
    """The table or figure that a document is of; empty for others, and for several together."""
    return document.get("settings", {}).get("shows") or ""
