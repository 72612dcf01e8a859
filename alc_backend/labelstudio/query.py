"""A correction query as a Label Studio task: the question, the marks on the image, the choices.

The task's prediction has a star on the representative pixel, a box around the superpixel and its
outlines, and the pseudo label as the preselected choice.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.labelstudio.closeup import closeup_html
from alc_backend.labelstudio.texts import Texts, texts


class Key(NamedTuple):
    """What a task is about: an image (its key), a superpixel of it, and whether it adjudicates.

    For a page of look-alikes it is the page's key alone.
    """

    image: str
    superpixel: int
    adjudication: bool = False
    page: str = ""


NOT_OURS = Key("", 0)
"""The key of a task that does not say what it asks."""

CHOICE = "label"
"""Name of the ``Choices`` tag in the label config."""

HOTKEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
"""The key of each class by its id; a class keeps its key in every question."""

LIKELY_KEYS = "1234567890"
"""Where there are more classes than HOTKEYS: the keys of the first choices, in their order."""

MAX_OUTLINES = 12
"""How many connected parts of a superpixel are outlined, the largest first."""

STAR_RADIUS = 0.018
"""Outer radius of the star as a share of the image's longer side."""

STAR = np.array(
    [
        [radius * math.cos(turn), radius * math.sin(turn)]
        for step in range(10)
        for radius, turn in [(0.45 if step % 2 else 1.0, math.pi * (step / 5 - 0.5))]
    ]
)
"""The corners (x, y) of a five-pointed star of radius 1 around the origin."""


@dataclass(frozen=True)
class QueryContent:
    """What a query shows: an image (``height`` × ``width``) with a superpixel and a pixel of it.

    ``shape`` is the superpixel as :func:`shape_of` gives it; ``pseudo_label``, ``proposed`` and
    ``likely`` are class ids. ``proposed`` are those that annotators disagree about, for an
    adjudication query; ``likely`` those that the network finds most probable at the pixel, where
    there are many classes. ``epsilon`` (0..1) is the round's similarity threshold ε.
    """

    url: str
    image_key: str
    height: int
    width: int
    superpixel: int
    row: int
    col: int
    pseudo_label: int
    classes: list[str]
    round_number: int
    shape: Json
    proposed: tuple[int, ...] = ()
    likely: tuple[int, ...] = ()
    epsilon: float = 0.0


def label_config(classes: int = 2, wording: Texts | None = None) -> str:
    """The label config of a query project with so many classes.

    With more classes than HOTKEYS it has a field to search them.
    """
    wording = wording or texts()
    text = (resources.files(__package__) / "label_config.xml").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    for view in root.iter("View"):
        for index, tag in enumerate(list(view)):
            if tag.tag == "Choices" and tag.get("name") == CHOICE:
                tag.set("requiredMessage", wording.required)
                if classes > len(HOTKEYS):
                    search = {"toName": CHOICE, "minlength": "0", "placeholder": wording.search}
                    view.insert(index, ElementTree.Element("Filter", name="search", attrib=search))
    return ElementTree.tostring(root, encoding="unicode")


def task_data(query: QueryContent, wording: Texts | None = None) -> Json:
    """The task's ``data``: image, question, and the class choices, pseudo label first.

    Where there are more classes than HOTKEYS, the likely ones come next, and only these have keys.
    ``alc`` says which superpixel is meant, so that the store can be rebuilt from Label Studio.
    """
    wording = wording or texts()
    first = [*(query.proposed or (query.pseudo_label,))]
    keys = {index: key for index, key in enumerate(HOTKEYS) if index < len(query.classes)}
    if len(query.classes) > len(HOTKEYS):
        first += [index for index in query.likely if index not in first]
        keys = dict(zip(first, LIKELY_KEYS, strict=False))
    order = [*first, *(index for index in range(len(query.classes)) if index not in first)]
    choices = [
        {"value": query.classes[index]} | ({"hotkey": keys[index]} if index in keys else {})
        for index in order
    ]
    about: Json = {"image": query.image_key, "superpixel": query.superpixel}
    if query.proposed:
        question = wording.ask_again([query.classes[index] for index in query.proposed])
        hint = wording.dispute_hint
        about["adjudication"] = True
    else:
        question, hint = wording.ask(query.classes[query.pseudo_label]), wording.hint
    return {
        "image": query.url,
        "question": question,
        "hint": hint,
        "closeup": closeup_html(
            query.url, query.height, query.width, query.row, query.col, query.shape, wording.closeup
        ),
        "choices": choices,
        "tiles": [],
        "alc": about,
    }


def digest(data: Json) -> str:
    """The SHA-256 of a task's data, cut to 32 hexadecimal digits.

    It tells whether the data that Label Studio holds is the present one.
    """
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


def asked_about(data: Any) -> Key:
    """What a task's ``data`` says it is about; NOT_OURS for tasks that somebody else made.

    Tasks of a dataset project that we uploaded name their image and superpixel 0.
    """
    about = data.get("alc") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        return NOT_OURS
    if "page" in about:
        return Key("", 0, page=about["page"]) if is_page_key(about["page"]) else NOT_OURS
    image, superpixel = about.get("image"), about.get("superpixel")
    return Key(
        image if isinstance(image, str) else "",
        superpixel if isinstance(superpixel, int) and 0 <= superpixel < 2**31 else 0,
        about.get("adjudication") is True,
    )


def is_page_key(key: Any) -> bool:
    """Whether something names a page of look-alikes: 32 hexadecimal digits."""
    return isinstance(key, str) and re.fullmatch("[0-9a-f]{32}", key) is not None


def prediction(query: QueryContent) -> list[Json]:
    """The prediction's ``result`` list: preselected choice, box, outlines, star.

    The ids of the regions carry the round, that of the star also ε where it is above 0. Annotations
    keep these ids, which tells what an annotator was shown.
    """

    def region(kind: str, name: str, number: int, value: Json) -> Json:
        return {
            "id": f"r{query.round_number}-{name}{number}",
            "type": kind,
            "from_name": name,
            "to_name": "image",
            "original_width": query.width,
            "original_height": query.height,
            "image_rotation": 0,
            "readonly": True,
            "value": value,
        }

    result: list[Json] = [
        {
            "id": f"r{query.round_number}-{CHOICE}",
            "type": "choices",
            "from_name": CHOICE,
            "to_name": "image",
            "value": {"choices": [query.classes[query.pseudo_label]]},
        }
    ]
    box = {**query.shape["box"], "rotation": 0, "rectanglelabels": ["region"]}
    result.append(region("rectanglelabels", "box", 0, box))
    for number, outline in enumerate(query.shape["outlines"]):
        value = {"points": outline, "closed": True, "polygonlabels": ["superpixel"]}
        result.append(region("polygonlabels", "outline", number, value))
    longer = max(query.height, query.width)
    middle = np.array([query.col + 0.5, query.row + 0.5])
    star = _percent(middle + STAR_RADIUS * longer * STAR, (query.height, query.width))
    value = {"points": star, "closed": True, "polygonlabels": ["pixel"]}
    result.append(region("polygonlabels", "star", 0, value))
    if query.epsilon > 0:
        result[-1]["id"] += f"-e{query.epsilon!r}"
    return result


def epsilon_of(result: list[Any]) -> float:
    """The round's similarity threshold ε, which the star of a result carries; 0.0 without one."""
    name = _star(result).get("id")
    found = re.search(r"-e([0-9.e-]{1,30})$", name, re.ASCII) if isinstance(name, str) else None
    try:
        return float(found[1]) if found else 0.0
    except ValueError:
        return 0.0


def size_shown(result: list[Any]) -> tuple[int, int] | None:
    """The image's (height, width), which the star of a result carries; None without one."""
    star = _star(result)
    height, width = (star.get(f"original_{name}") for name in ("height", "width"))
    if type(height) is not int or type(width) is not int:
        return None
    return (height, width) if 0 < height < 2**31 and 0 < width < 2**31 else None


def _star(result: list[Any]) -> Json:
    """The first star among the regions of a result; empty when there is none."""
    stars = (item for item in result if isinstance(item, dict) and item.get("from_name") == "star")
    return next(stars, {})


def starred(result: list[Any], height: int, width: int) -> tuple[int, int] | None:
    """The (row, column) under the star of a result, for an image of ``height`` × ``width`` pixels.

    None without a star of all ten corners. The corners that :func:`prediction` moved to the image's
    edge are left out of account.
    """
    for item in result:
        if not isinstance(item, dict) or item.get("from_name") != "star":
            continue
        value = item.get("value")
        points = value.get("points") if isinstance(value, dict) else None
        try:
            corners = np.asarray(points, dtype=np.float64)
        except (TypeError, ValueError):
            return None
        if corners.shape != STAR.shape or not np.isfinite(corners).all():
            return None
        found = corners * [width, height] / 100 - STAR_RADIUS * max(height, width) * STAR - 0.5
        whole = (corners > 0) & (corners < 100)
        if not whole.any(axis=0).all():
            return None
        col, row = (round(float(np.median(found[whole[:, axis], axis]))) for axis in (0, 1))
        if 0 <= row < height and 0 <= col < width:
            return row, col
    return None


def shape_of(
    mask: NDArray[np.bool_], top: int = 0, left: int = 0, image: tuple[int, int] | None = None
) -> Json:
    """The box and the outlines of a superpixel, in per cent of the image.

    ``mask``, bool (h, w), is the part of an ``image`` (H, W) that begins at row ``top`` and column
    ``left``, by default all of it; the less of it there is beside the superpixel, the less time it
    takes. Box and outlines are the same in all rounds.
    """
    whole = image or (mask.shape[0], mask.shape[1])
    found = outlines(mask, whole)
    return {
        "box": box_of(mask, top, left, whole),
        "outlines": [_percent(np.add(outline, [left, top]), whole) for outline in found],
    }


def box_of(
    mask: NDArray[np.bool_], top: int = 0, left: int = 0, image: tuple[int, int] | None = None
) -> dict[str, float]:
    """The box around a superpixel, in per cent of the image, as in :func:`shape_of`."""
    rows, cols = np.nonzero(mask)
    corners = np.array([[cols.min(), rows.min()], [cols.max() + 1, rows.max() + 1]])
    (x, y), (right, bottom) = _percent(np.add(corners, [left, top]), image or mask.shape)
    return {"x": x, "y": y, "width": right - x, "height": bottom - y}


def _percent(points: NDArray[np.float64], shape: tuple[int, ...]) -> list[list[float]]:
    """(x, y) in pixels as shares of an image (height, width), in per cent."""
    height, width = shape[:2]
    scaled = [(x / width * 100, y / height * 100) for x, y in points.tolist()]
    return [[round(min(max(part, 0.0), 100.0), 3) for part in point] for point in scaled]


def outlines(
    mask: NDArray[np.bool_], image: tuple[int, int] | None = None
) -> list[NDArray[np.float64]]:
    """The borders of the connected parts of ``mask``, bool (h, w): polygons, float64 (n, 2).

    Their corners are (x, y) in pixels of the mask. At most MAX_OUTLINES, the largest first; each
    follows the pixel edges within about a pixel, in large images (H, W) within a 500th of their
    size. The mask is all of the ``image`` by default.
    """
    from skimage.measure import approximate_polygon, find_contours

    contours = find_contours(np.pad(mask, 1).astype(np.float64), 0.5)
    size = max(np.ptp(axis) + 1 for axis in np.nonzero(mask))
    tolerance = max(0.5, min(0.002 * max(image or mask.shape), 0.05 * float(size)))
    polygons = []
    for contour in sorted(contours, key=_area, reverse=True)[:MAX_OUTLINES]:
        simple = approximate_polygon(contour, tolerance)
        # from the padded array's pixel centres to image coordinates, x first
        points = (simple if len(simple) >= 4 else contour)[:-1, ::-1] - 0.5
        polygons.append(points)
    return polygons


def _area(contour: NDArray[np.float64]) -> float:
    y, x = contour.T
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2
