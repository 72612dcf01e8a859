"""A page of look-alikes as a Label Studio task: several superpixels, one proposed class.

Each superpixel is a tile of the page's sheet and a choice that the prediction ticks; annotators
untick those that are something else. The tiles' numbers, their *positions*, begin with 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from alc_backend.common.types import Json
from alc_backend.labelstudio.query import CHOICE, HOTKEYS, is_page_key
from alc_backend.labelstudio.sheets import MAX_TILES, tile_html
from alc_backend.labelstudio.texts import Texts, texts

TICKS = "right"
"""Name of the ``Choices`` tag with the tiles in the label config."""

PAGE = "a page\nof tiles"
"""The hidden choice that an annotation of a page has in place of a class.

No class is called so: names of classes have no line breaks.
"""

PAGE_KEY = "ctrl+alt+4"
"""The key of the hidden choice; without one, Label Studio would give it a tile's."""

LATEST_ROUND = 10**9
"""Numbers of rounds are lower than this."""


@dataclass(frozen=True)
class Tile:
    """What one tile asks about: a superpixel of an image, and the pixel that stands for it.

    ``pseudo_label`` is the id of the class that the pixel has now. A ``repeated`` tile is on the
    page though it is known to be something else, to see whether that is noticed.
    """

    image_key: str
    superpixel: int
    row: int
    col: int
    pseudo_label: int
    repeated: bool = False


@dataclass(frozen=True)
class PageContent:
    """What a page shows.

    ``key``, 32 hexadecimal digits, names the page; ``round_number`` is the round whose network
    chose the pixels, ``epsilon`` (0..1) its similarity threshold ε; ``proposed`` is a class id.
    ``tiles``, 1 to MAX_TILES, are in the order of their positions. ``sheet`` is the address of the
    page's sheet in Label Studio, empty before it is uploaded. ``review``: somebody has answered
    all of it with the proposed class, and another looks whether that is right.
    """

    key: str
    round_number: int
    epsilon: float
    proposed: int
    classes: list[str]
    tiles: tuple[Tile, ...]
    sheet: str
    review: bool = False


def task_data(page: PageContent, wording: Texts | None = None) -> Json:
    """The task's ``data``: the question, the sheet, and a choice for each tile.

    ``alc`` says what is asked, so that the store can be rebuilt from Label Studio.
    """
    wording = wording or texts()
    asked = [page.classes[tile.pseudo_label] for tile in page.tiles if not tile.repeated]
    proposed = page.classes[page.proposed]
    number = len(page.tiles)
    question = wording.ask_page(proposed, [*dict.fromkeys(asked)])
    if page.review:
        question = wording.ask_review(proposed)
    return {
        "image": page.sheet,
        "question": question,
        "hint": wording.page_hint,
        "closeup": "",
        "choices": [{"value": PAGE, "hotkey": PAGE_KEY}],
        "tiles": [
            {
                "value": str(place + 1),
                "html": tile_html(page.sheet, place, number, HOTKEYS[place]),
                "hotkey": HOTKEYS[place],
            }
            for place in range(number)
        ],
        "alc": {
            "page": page.key,
            "round": page.round_number,
            "epsilon": page.epsilon,
            "proposed": proposed,
            "review": page.review,
            "tiles": [
                {
                    "image": tile.image_key,
                    "superpixel": tile.superpixel,
                    "row": tile.row,
                    "col": tile.col,
                    "label": page.classes[tile.pseudo_label],
                    "repeated": tile.repeated,
                }
                for tile in page.tiles
            ],
        },
    }


def prediction(page: PageContent) -> list[Json]:
    """The prediction's ``result`` list, with all tiles ticked."""
    return annotation_result(page, range(1, len(page.tiles) + 1))


def annotation_result(page: PageContent, ticked: Collection[int]) -> list[Json]:
    """The result that Label Studio's screen submits with the tiles at these positions ticked."""
    places = [str(position) for position in sorted(ticked)]
    return [
        {
            "id": f"r{page.round_number}-{name}",
            "type": "choices",
            "from_name": name,
            "to_name": "image",
            "value": {"choices": choices},
        }
        for name, choices in ((CHOICE, [PAGE]), (TICKS, places))
        if choices
    ]


def ticked(result: Any) -> frozenset[int] | None:
    """The positions that an annotation's result left ticked; None when it answers no page.

    Raises ValueError when what is ticked are not positions of tiles.
    """
    items = [item for item in result if isinstance(item, dict)] if isinstance(result, list) else []
    if not any(item.get("from_name") == CHOICE and _choices(item) == [PAGE] for item in items):
        return None
    found: set[int] = set()
    for item in items:
        if item.get("from_name") == TICKS:
            choices = _choices(item)
            if not isinstance(choices, list):
                raise ValueError(f"what is ticked on a page must be a list, not {choices!r:.80}")
            found.update(_position(choice) for choice in choices)
    return frozenset(found)


def _choices(item: Json) -> Any:
    value = item.get("value")
    return value.get("choices") if isinstance(value, dict) else None


def _position(choice: Any) -> int:
    for position in range(1, MAX_TILES + 1):
        if choice == str(position):
            return position
    raise ValueError(f"a page's tiles are numbered 1 to {MAX_TILES}; {choice!r:.80} was ticked")


def described(data: Any, classes: Mapping[str, int]) -> PageContent | None:
    """The page that a task's ``data`` describes; None when the task is no page.

    ``classes`` are the ids of classes by all names that they may have there. Raises ValueError
    naming what is wrong with a page that cannot be read.
    """
    about = data.get("alc") if isinstance(data, dict) else None
    if not isinstance(about, dict) or "page" not in about:
        return None
    key, tiles = about["page"], about.get("tiles")
    if not is_page_key(key):
        raise ValueError(f"a page's key has 32 hexadecimal digits; this one is {key!r:.80}")
    if not isinstance(tiles, list) or not 1 <= len(tiles) <= MAX_TILES:
        raise ValueError(f"page {key}: its tiles must be a list of 1 to {MAX_TILES}")
    try:
        read = tuple(_tile(tile, classes) for tile in tiles)
        if len({(tile.image_key, tile.superpixel) for tile in read}) < len(read):
            raise ValueError("two of its tiles ask about the same superpixel")
        return PageContent(
            key=key,
            round_number=_integer(about, "round", 1, LATEST_ROUND),
            epsilon=_share(about.get("epsilon")),
            proposed=_class(about, "proposed", classes),
            classes=_names(classes),
            tiles=read,
            sheet=_text(data, "image"),
            review=about.get("review") is True,
        )
    except ValueError as error:
        raise ValueError(f"page {key}: {error}") from None


def _tile(tile: Any, classes: Mapping[str, int]) -> Tile:
    if not isinstance(tile, dict):
        raise ValueError(f"a tile must be an object, not {tile!r:.80}")
    image = _text(tile, "image")
    if not image:
        raise ValueError("a tile names no image")
    return Tile(
        image_key=image,
        superpixel=_integer(tile, "superpixel", 1),
        row=_integer(tile, "row", 0),
        col=_integer(tile, "col", 0),
        pseudo_label=_class(tile, "label", classes),
        repeated=tile.get("repeated") is True,
    )


def _integer(record: Json, name: str, least: int, end: int = 2**31) -> int:
    value = record.get(name)
    if type(value) is not int or not least <= value < end:
        raise ValueError(
            f"{name!r} must be an integer from {least} to {end - 1}, not {value!r:.80}"
        )
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"'epsilon' must be a number from 0 to 1, not {value!r:.80}")
    return float(value)


def _text(record: Json, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be a text, not {value!r:.80}")
    return value


def _class(record: Json, name: str, classes: Mapping[str, int]) -> int:
    value = _text(record, name)
    if value not in classes:
        raise ValueError(f"{name!r} names the class {value!r:.80}, which there is not")
    return classes[value]


def _names(classes: Mapping[str, int]) -> list[str]:
    """The class list, with the first of each class's names."""
    names: dict[int, str] = {}
    for name, index in classes.items():
        names.setdefault(index, name)
    return [names.get(index, "") for index in range(max(names, default=-1) + 1)]
