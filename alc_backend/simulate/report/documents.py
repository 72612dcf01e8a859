"""The documents that a report is made from: read from files, and several joined into one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from alc_backend.common.types import Json
from alc_backend.errors import DatasetError

NEEDED = ("rows", "dataset", "settings", "versions", "examples")


def read(path: Path) -> Json:
    """The document that ``alc simulate --json`` wrote; DatasetError for any other file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: cannot be read ({error}); give files that `alc simulate --json` wrote"
        ) from None
    fits = isinstance(found, dict) and found.get("kind") == "simulation"
    if not fits or not found.get("rows") or any(name not in found for name in NEEDED):
        raise DatasetError(
            f"{path}: is not the result of a simulation; `alc simulate --json` writes one"
        )
    return dict(found)


def together(documents: Sequence[tuple[str, Json]]) -> Json:
    """Several documents, each with its name, as one.

    Labels that occur in more than one get the document's name added. Raises DatasetError when two
    hold the same results, or when their classes differ.
    """
    _, first = documents[0]
    if len(documents) == 1:
        return first
    _check_comparable(documents)
    labels = [{row["label"] for row in document["rows"]} for _, document in documents]
    rows: list[Json] = []
    for index, (name, document) in enumerate(documents):
        elsewhere = set().union(*labels[:index], *labels[index + 1 :])
        for row in document["rows"]:
            label = f"{row['label']} ({name})" if row["label"] in elsewhere else row["label"]
            rows.append({**row, "label": label})
    examples = [example for _, document in documents for example in document["examples"]]
    settings = {name: document["settings"] for name, document in documents}
    return {**first, "rows": rows, "examples": examples, "settings": settings}


def _check_comparable(documents: Sequence[tuple[str, Json]]) -> None:
    first_name, first = documents[0]
    for index, (name, document) in enumerate(documents):
        if any(document["rows"] == other["rows"] for _, other in documents[:index]):
            raise DatasetError(f"{name}: holds the same results as another file; give each once")
        if document["dataset"]["classes"] != first["dataset"]["classes"]:
            raise DatasetError(
                f"{name}: is about other classes than {first_name}; report them separately"
            )
