"""A classification query as a Label Studio task: what is this pixel? No label is proposed.

It looks like a correction query, of which it is the counterpart in user studies, but nothing is
chosen beforehand, and the classes stand in the order of their ids.
"""

from __future__ import annotations

from alc_backend.common.types import Json
from alc_backend.labelstudio import query
from alc_backend.labelstudio.query import CHOICE, HOTKEYS, QueryContent
from alc_backend.labelstudio.texts import Texts, texts


def task_data(asked: QueryContent, wording: Texts | None = None) -> Json:
    """The task's ``data``: image, question, and the class choices by id.

    The first classes, as many as HOTKEYS, have keys; others are searched.
    """
    wording = wording or texts()
    choices = [
        {"value": name} | ({"hotkey": HOTKEYS[index]} if index < len(HOTKEYS) else {})
        for index, name in enumerate(asked.classes)
    ]
    return {
        **query.task_data(asked, wording),
        "question": wording.classify,
        "hint": wording.classify_hint,
        "choices": choices,
    }


def prediction(asked: QueryContent) -> list[Json]:
    """The prediction's ``result`` list: box, outlines and star, without a choice."""
    return [item for item in query.prediction(asked) if item["from_name"] != CHOICE]
