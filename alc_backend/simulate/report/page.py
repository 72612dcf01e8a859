"""The page of a report: rendering the tables, plots and examples of a document, and writing it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader

from alc_backend.common.style import base_style
from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import DatasetError
from alc_backend.simulate import figures, published
from alc_backend.simulate.report import class_plots, plots
from alc_backend.simulate.report.plots import Plot
from alc_backend.simulate.report.tables import tables

IMAGES = {
    "image": ("image", "jpeg"), "before": ("before", "png"), "after": ("after", "png"),
    "ground truth": ("truth", "png"),
}  # fmt: skip
"""The images of an example by their caption: the field of the document, and the format."""


def write(document: Json, title: str, folder: Path) -> Path:
    """Write ``report.html`` and each plot as PNG and CSV; returns the page's path.

    Raises DatasetError when the folder cannot be written.
    """
    drawn = _plots(document)
    page = _render(document, title, drawn)
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in drawn:
            plot.write(folder)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be written ({error}); choose another folder"
        ) from error
    return path


def _render(document: Json, title: str, drawn: list[Plot]) -> str:
    environment = Environment(
        loader=PackageLoader("alc_backend.simulate.report"), autoescape=True, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        title=title,
        style=base_style(),
        version=__version__,
        figures=_headline(document),
        summary=_summary(document),
        tables=tables(document),
        plots=drawn,
        examples=[_example(example) for example in document["examples"]],
        examples_note=document.get(
            "examples_note", "The images in which most pixels were put right."
        ),
        settings=json.dumps(
            {name: document[name] for name in ("settings", "versions", "dataset")}, indent=1
        ),
    )


def _headline(document: Json) -> list[tuple[str, str]]:
    """The figures at the head of the page of a live project, each with its name; else none."""
    if document["kind"] == "simulation":
        return []
    dataset, rounds = document["dataset"], document["rows"][0]["rounds"]
    first, last = rounds[0], rounds[-1]
    found = [("images", f"{dataset['images']:,}"), ("answers", f"{last['answers']:,}")]
    if last["hours"]:
        found.append(("of labeling", _hours(last["hours"])))
    if last["accept_rate"] is not None:
        found.append(("pseudo labels accepted", f"{100 * last['accept_rate']:.0f} %"))
    if last["data_miou"] is not None:
        before = f", {first['data_miou']:.3f} at first" if first["data_miou"] is not None else ""
        found.append((f"data mIoU{before}", f"{last['data_miou']:.3f}"))
    return found


def _plots(document: Json) -> list[Plot]:
    """The plots that the figures of a document suffice for."""
    rows, classes = document["rows"], document["dataset"]["classes"]
    found: list[Plot | None]
    if figures.is_by_hours(rows):
        found = [plots.curves_by_hours(rows)]
    else:
        found = [plots.curves(rows, quality) for quality in plots.QUALITIES]
    if rows[0].get("method") == "given":  # nothing was asked
        found.append(class_plots.networks_gained(rows, classes))
    else:
        found += [class_plots.class_iou(rows[0], classes), class_plots.repaired(rows[0], classes)]
    found.append(class_plots.confusion(rows[0], classes))
    if document.get("class_statistics"):
        found += class_plots.corrections(document["class_statistics"])
    if document.get("moved"):
        found += class_plots.moved(np.array(document["moved"]), classes)
    return [plot for plot in found if plot is not None]


def _summary(document: Json) -> Iterable[str]:
    """The sentences at the head of the page."""
    dataset = document["dataset"]
    yield (
        f"{dataset['images']} images with {dataset['superpixels']} superpixels in "
        f"{len(dataset['classes'])} classes; {dataset['validation_images']} validation images."
    )
    last = document["rows"][0]["rounds"][-1]
    name = document["rows"][0]["label"]
    if last["hours"]:
        sentence = f"{name}: {last['answers']} answers take about {_hours(last['hours'])}"
        if last.get("hours_classifying"):
            saved = 1 - last["hours"] / last["hours_classifying"]
            sentence += (
                f"; naming the class of every one of these superpixels would take "
                f"{_hours(last['hours_classifying'])} (correcting saves {100 * saved:.0f} %)"
            )
        yield sentence + "."
    yield from published.notes(document)
    if dataset["left_out"]:
        yield f"{len(dataset['left_out'])} images or files were left out; see the settings below."


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 1.5 else f"{hours:.1f} hours"


def _example(example: Json) -> Json:
    """An example as the template shows it."""
    caption = example.get(
        "caption", f"{example.get('repaired')} pixels put right, {example.get('spoilt')} spoilt"
    )
    return {
        "key": example["key"],
        "caption": f"{example['label']}: {caption}",
        "images": [
            (name, f"data:image/{form};base64,{example[field]}")
            for name, (field, form) in IMAGES.items()
            if example.get(field)
        ],
    }
