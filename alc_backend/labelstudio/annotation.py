"""Annotations, as Label Studio's API and its webhooks give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from alc_backend.common.types import Json
from alc_backend.labelstudio.page import PAGE, ticked
from alc_backend.labelstudio.query import CHOICE
from alc_backend.labelstudio.times import read_time

ANNOTATIONS, PREDICTIONS = "annotations", "predictions"
"""The fields of a task that have regions."""

MAX_SECONDS = 1e9
"""Lead times (in seconds) from here on are not believed: it is more than thirty years."""


@dataclass(frozen=True)
class Annotation:
    """One annotation, of a query task or of a dataset task.

    ``choice`` is the class that was chosen, None for a skip or an empty answer, and for the answer
    to a page of look-alikes. ``ticked`` are the positions (from 1) of the tiles that such an answer
    left ticked, None for everything else. ``annotator`` is the user's id; ``lead_time`` in seconds.
    ``round_number`` is the round whose question was on the screen, None when the regions do not
    tell. ``parent_prediction`` is the prediction (id) that the annotator started from.
    """

    annotation_id: int
    task_id: int
    choice: str | None
    annotator: str
    lead_time: float | None
    created_at: datetime
    updated_at: datetime
    round_number: int | None
    cancelled: bool
    result: list[Any]
    parent_prediction: int | None
    ticked: frozenset[int] | None = None


def parse(record: Json, task_id: int | None = None) -> Annotation:
    """The annotation in a record of the API or of a webhook.

    ``task_id`` replaces the record's own ``task``, which webhooks leave out. Raises ValueError
    naming the field for a record that is not an annotation's, and for an answer to a page that
    ticks what is no tile.
    """
    task = record.get("task") if task_id is None else task_id
    result = record.get("result")
    parent = record.get("parent_prediction")
    try:
        return Annotation(
            annotation_id=positive_integer(record["id"], "id"),
            task_id=positive_integer(task, "task"),
            choice=None if record.get("was_cancelled") else chosen(result),
            annotator=_annotator(record.get("completed_by")),
            lead_time=_number(record.get("lead_time")),
            created_at=_time(record["created_at"], "created_at"),
            updated_at=_time(record.get("updated_at") or record["created_at"], "updated_at"),
            round_number=round_of(result),
            cancelled=bool(record.get("was_cancelled")),
            result=result if isinstance(result, list) else [],
            parent_prediction=None if parent is None else positive_integer(parent, "prediction"),
            ticked=None if record.get("was_cancelled") else ticked(result),
        )
    except KeyError as error:
        raise ValueError(f"annotation has no field {error}") from None


def newest(task: Mapping[str, Any]) -> tuple[str, Json | None]:
    """A task's newest annotation with regions, or else prediction; and which field it is from."""
    for kind in (ANNOTATIONS, PREDICTIONS):
        listed = task.get(kind)
        records: Sequence[Json] = [
            item
            for item in (listed if isinstance(listed, list) else ())
            if isinstance(item, dict) and item.get("result") and not item.get("was_cancelled")
        ]
        if records:
            return kind, max(records, key=lambda item: str(item.get("created_at")))
    return "", None


def chosen(result: Any) -> str | None:
    """The class that a prediction's or an annotation's result chooses.

    None where it has none, as those of pages of look-alikes.
    """
    if not isinstance(result, list):
        return None
    for item in result:
        if isinstance(item, dict) and item.get("from_name") == CHOICE:
            value = item.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            if isinstance(choices, list) and choices and isinstance(choices[0], str):
                return None if choices[0] == PAGE else choices[0]
    return None


def round_of(result: Any) -> int | None:
    """The round whose marks a result has, None where it has none.

    Their ids tell it: see :func:`alc_backend.labelstudio.query.prediction`.
    """
    for item in result if isinstance(result, list) else []:
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(name, str) and (found := re.match(r"r(\d{1,9})-", name, re.ASCII)):
            return int(found[1])
    return None


def _annotator(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("id")
    return str(completed_by) if completed_by is not None else "unknown"


def positive_integer(value: Any, name: str) -> int:
    """Return ``value``; ValueError naming the field unless it is an integer from 1 to 2⁶³-1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise ValueError(f"annotation field {name!r} must be a positive integer, not {value!r}")
    return value


def _number(value: Any) -> float | None:
    """``value`` as a number below MAX_SECONDS, None for anything else."""
    known = isinstance(value, int | float) and abs(value) < MAX_SECONDS
    return float(value) if known else None


def _time(value: Any, name: str) -> datetime:
    try:
        return read_time(value)
    except ValueError as error:
        raise ValueError(f"annotation field {name!r}: {error}") from None
