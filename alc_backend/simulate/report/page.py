"""One self-contained page from the results of simulations, or of a live project."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader

from alc_backend.common.types import Json
from alc_backend.errors import DatasetError
from alc_backend.simulate import results
from alc_backend.simulate.report import plots
from alc_backend.simulate.report.plots import Plot

IMAGES = {"image": ("image", "jpeg"), "before": ("before", "png"), "after": ("after", "png"),
            "ground truth": ("truth", "png")}  # fmt: skip


class Cell(NamedTuple):
    """A cell of a table; ``best`` of its column."""

    text: str
    best: bool = False


class Table(NamedTuple):
    """A table of the page."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]


def read(path: Path) -> Json:
    """Read what ``alc simulate --json`` wrote; DatasetError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: cannot be read ({error}); give files that `alc simulate --json` wrote"
        ) from None
    needed = ("rows", "dataset", "settings", "versions", "examples")
    fits = isinstance(found, dict) and found.get("kind") == "simulation"
    if not fits or not found.get("rows") or any(name not in found for name in needed):
        raise DatasetError(
            f"{path}: is no result of a simulation; `alc simulate --json` writes one"
        )
    return dict(found)


def together(documents: Sequence[tuple[str, Json]]) -> Json:
    """Several results, each with its name, as one; DatasetError when their classes differ.

    Labels that stand in more than one are told apart by the names.
    """
    _, first = documents[0]
    if len(documents) == 1:
        return first
    for place, (name, document) in enumerate(documents):
        if any(document["rows"] == other["rows"] for _, other in documents[:place]):
            raise DatasetError(f"{name}: holds the same results as another; give each once")
    seen = [{row["label"] for row in document["rows"]} for _, document in documents]
    rows: list[Json] = []
    for place, (name, document) in enumerate(documents):
        if document["dataset"]["classes"] != first["dataset"]["classes"]:
            raise DatasetError(
                f"{name}: is about other classes than {documents[0][0]}; report them separately"
            )
        others = set().union(*(labels for other, labels in enumerate(seen) if other != place))
        for row in document["rows"]:
            label = f"{row['label']} ({name})" if row["label"] in others else row["label"]
            rows.append({**row, "label": label})
    examples = [example for _, document in documents for example in document["examples"]]
    settings = {name: document["settings"] for name, document in documents}
    return {**first, "rows": rows, "examples": examples, "settings": settings}


def write(document: Json, title: str, folder: Path) -> Path:
    """Write ``report.html`` and each plot as PNG and CSV; returns the page's path.

    Raises DatasetError when the folder cannot be written.
    """
    drawn = _plots(document)
    environment = Environment(
        loader=PackageLoader("alc_backend.simulate.report"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        title=title,
        summary=_summary(document),
        tables=_tables(document),
        plots=drawn,
        examples=[_example(example) for example in document["examples"]],
        examples_note=document.get(
            "examples_note", "The images of which most pixels were put right."
        ),
        settings=json.dumps(
            {name: document[name] for name in ("settings", "versions", "dataset")}, indent=1
        ),
    )
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


def _plots(document: Json) -> list[Plot]:
    rows, classes = document["rows"], document["dataset"]["classes"]
    found: list[Plot | None] = [plots.curves(rows, quality) for quality in plots.QUALITIES]
    found += [draw(rows[0], classes) for draw in (plots.class_iou, plots.repaired, plots.confusion)]
    if document.get("moved"):
        found += plots.moved(np.array(document["moved"]), classes)
    return [plot for plot in found if plot is not None]


def _summary(document: Json) -> Iterable[str]:
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
    if dataset["left_out"]:
        yield f"{len(dataset['left_out'])} images or files were left out; see the settings below."


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 1.5 else f"{hours:.1f} hours"


def _tables(document: Json) -> list[Table]:
    """As in the terminal, with the best of each column marked; a live project by its rounds."""
    if document["kind"] != "simulation":
        return [_rounds(document["rows"][0])]
    by_oracle: dict[str, dict[str, list[Json]]] = {}
    for (oracle, label), members in results.grouped(document["rows"]).items():
        by_oracle.setdefault(oracle, {})[label] = members
    found = []
    for oracle, groups in by_oracle.items():
        columns: list[tuple[str, int | None, str]] = [
            (f"data mIoU at {100 * (share or 0):.0f} % ({answers})", answers, "data_miou")
            for answers, share in results.points([row for rows in groups.values() for row in rows])
            if answers > 0
        ]
        columns += [
            (title, None, name)
            for title, name in (("precision", "precision"), ("recall", "recall"),
                                ("model mIoU", "model_miou"), ("accepted", "accept_rate"))
        ]  # fmt: skip
        figures = {
            label: [
                results.last(rows, name) if answers is None else results.at(rows, answers, name)
                for _, answers, name in columns
            ]
            for label, rows in groups.items()
        }
        tops = [
            max((cell.mean for line in figures.values() if (cell := line[column])), default=None)
            if name in ("data_miou", "model_miou", "recall")
            else None
            for column, (_, _, name) in enumerate(columns)
        ]
        rows = []
        for label, line in figures.items():
            hours = results.last(groups[label], "hours")
            cells = [
                Cell("–" if cell is None else str(cell), cell is not None and cell.mean == top)
                for cell, top in zip(line, tops, strict=True)
            ]
            shown = "–" if hours is None else f"{hours.mean:.2f}"
            rows.append([Cell(label), *cells, Cell(shown)])
        caption = f"Oracle {oracle}: percent, mean ± standard deviation over the seeds"
        found.append(Table(caption, ["", *(title for title, _, _ in columns), "hours"], rows))
    return found


def _rounds(row: Json) -> Table:
    names = ("data_miou", "model_miou", "accept_rate")
    rows = [
        [
            Cell("before" if point["round"] == 0 else f"round {point['round']}"),
            Cell(str(point["answers"])),
            *(Cell("–" if point[name] is None else f"{100 * point[name]:.1f}") for name in names),
            Cell(f"{point['hours']:.2f}" if point["hours"] is not None else "–"),
        ]
        for point in row["rounds"]
    ]
    header = ["", "answers", "data mIoU", "model mIoU", "accepted", "hours"]
    return Table("The rounds, in percent", header, rows)


def _example(example: Json) -> Json:
    told = example.get(
        "caption", f"{example.get('repaired')} pixels put right, {example.get('spoilt')} spoilt"
    )
    return {
        "key": example["key"],
        "caption": f"{example['label']}: {told}",
        "images": [
            (name, f"data:image/{form};base64,{example[field]}")
            for name, (field, form) in IMAGES.items()
            if example.get(field)
        ],
    }
