"""The XML of *CVAT for images 1.1*: read a block at a time, and written an image at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from alc_backend.common import safe_xml
from alc_backend.errors import DatasetError

MASK, POLYGON = "mask", "polygon"
SHAPES = (MASK, POLYGON)

MAX_BYTES = 2**30
"""Larger files are refused."""

MAX_DEPTH = 20
"""Files that are nested deeper are refused: CVAT needs six levels."""

_BLOCK = 2**20
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""The characters that no XML can hold."""


@dataclass(frozen=True)
class Shape:
    """A mask or a polygon as the file has it, not yet checked.

    ``points`` are a mask's run lengths in its ``box`` (left, top, width, height), or a polygon's
    corners; ``group`` is 0 for none.
    """

    kind: str
    label: str
    points: str
    box: tuple[int, int, int, int]
    z_order: int
    group: int


@dataclass
class Record:
    """An image in the file: its shapes, and how many of each other kind it has.

    ``problem`` says what is wrong with it, empty where nothing is known to be.
    """

    name: str
    width: int
    height: int
    subset: str
    shapes: list[Shape] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    problem: str = ""


@dataclass(frozen=True)
class Index:
    """What a file holds: the labels' names in order, and the images."""

    labels: list[str]
    records: list[Record]


def read(path: Path) -> Index:
    """The content of a file; DatasetError unless it is *CVAT for images*."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes; export parts of it")
        with path.open("rb") as file:
            index: Index = safe_xml.feed(iter(lambda: file.read(_BLOCK), b""), _Target())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); check the file") from error
    except ValueError as error:
        raise DatasetError(
            f"{path}: {error}; export the task or project as 'CVAT for images 1.1'"
        ) from error
    return index


class _Target:
    """Takes the elements of a file as they come."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._labels: list[str] = []
        self._records: list[Record] = []
        self._text: list[str] = []

    def doctype(self, *_: object) -> None:
        safe_xml.refuse_doctype()

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._open.append(tag)
        self._text.clear()
        depth = len(self._open)
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if depth == 1 and tag != "annotations":
            raise ValueError(f"it begins with <{tag[:40]}>, not with <annotations>")
        if depth == 2 and tag == "track":
            raise ValueError("it has tracks of a video")
        if depth == 2 and tag == "image":
            self._records.append(_record(attributes))
        elif depth == 3 and self._open[1] == "image":
            self._take(self._records[-1], tag, attributes)

    def data(self, text: str) -> None:
        if self._open[-3:] == ["labels", "label", "name"]:
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self._open[-3:] == ["labels", "label", "name"]:
            name = "".join(self._text).strip()
            if name not in self._labels:
                self._labels.append(name)
        self._open.pop()

    def close(self) -> Index:
        return Index(self._labels, self._records)

    @staticmethod
    def _take(record: Record, kind: str, attributes: Mapping[str, str]) -> None:
        if kind == "tag":
            return  # of the whole image
        if kind not in SHAPES:
            record.passed_over[kind] += 1
            return
        try:
            record.shapes.append(_shape(kind, attributes))
        except (KeyError, ValueError) as error:
            record.problem = record.problem or (
                f"image {record.name}: a {kind} has no usable {_told(error)}"
            )


def _record(attributes: Mapping[str, str]) -> Record:
    name = attributes.get("name", "")
    record = Record(name, 0, 0, attributes.get("subset", ""))
    try:
        record.width, record.height = int(attributes["width"]), int(attributes["height"])
    except (KeyError, ValueError) as error:
        record.problem = f"image {name} has no usable {_told(error)}"
    return record


def _shape(kind: str, attributes: Mapping[str, str]) -> Shape:
    box = (0, 0, 0, 0)
    if kind == MASK:
        left, top, width, height = (
            int(attributes[name]) for name in ("left", "top", "width", "height")
        )
        box = (left, top, width, height)
    return Shape(
        kind,
        attributes["label"],
        attributes["rle" if kind == MASK else "points"],
        box,
        int(attributes.get("z_order", "0")),
        int(attributes.get("group_id", "0")),
    )


def _told(error: Exception) -> str:
    return f"attribute {error}" if isinstance(error, KeyError) else f"number ({str(error)[:80]})"


def meta(labels: Iterable[tuple[str, int]]) -> str:
    """The head of a file, which names the labels with their colours, R + 256·G + 65536·B."""
    root = ElementTree.Element("meta")
    listed = ElementTree.SubElement(ElementTree.SubElement(root, "task"), "labels")
    for name, colour in labels:
        label = ElementTree.SubElement(listed, "label")
        ElementTree.SubElement(label, "name").text = _writable(name)
        shown = "#" + colour.to_bytes(3, "little").hex()
        ElementTree.SubElement(label, "color").text = shown
        ElementTree.SubElement(label, "type").text = "mask"
        ElementTree.SubElement(label, "attributes")
    return text(root)


def text(element: ElementTree.Element) -> str:
    """An element below the root as text; DatasetError for what XML cannot hold."""
    for value in _values(element):
        _writable(value)
    ElementTree.indent(element, level=1)
    return f"  {ElementTree.tostring(element, encoding='unicode').rstrip()}\n"


def _values(element: ElementTree.Element) -> Iterator[str]:
    for found in element.iter():
        yield from found.attrib.values()


def _writable(value: str) -> str:
    if _UNWRITABLE.search(value):
        raise DatasetError(
            f"{value!r} holds a character that XML cannot; rename the class or the image"
        )
    return value
