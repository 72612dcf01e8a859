"""The label config of a dataset project: its tags, its classes, and which regions are masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

from alc_backend.common.types import Json
from alc_backend.datasets.classes import background
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import label_configs

SHAPES = ("brush", "bitmask", "polygon", "rectangle", "ellipse")
"""The shapes that are masks: a region's type is one of these words, or with ``labels`` after it."""

MAIN_TAGS = {"brush": "BrushLabels", "bitmask": "BitmaskLabels", "polygon": "PolygonLabels"}
"""The tags whose labels can be a project's classes, by the shape of their regions; the first kind
that there is counts. With each of them masks can be shown."""

ADDED_BACKGROUND = "background"
"""The class, with id 0, that a label config of one label gets: what is not of the label."""


@dataclass(frozen=True)
class ShownWith:
    """The tag that shows masks: the shape of its regions, its name, and the labels that it has."""

    shape: str
    tag: str
    labels: Sequence[str]


@dataclass(frozen=True)
class DatasetTags:
    """What a dataset project's label config names: its tags and its classes, in order.

    ``image_field`` is the field of a task's data that holds the image's address. ``brush_name`` is
    the brush that has the classes, empty where none has. ``showing`` are the tags that can show
    masks. ``labels`` are the labels that the tag has:
    the classes, but for ADDED_BACKGROUND. ``aliases`` are the classes by what Label Studio writes
    into annotations in place of their names. Regions of the tags ``own`` are masks of the image;
    those of ``others`` are something else: of another image, or with labels of their own.
    ``prompts`` are the ``predicted_values`` of the classes that have some: what a detector is asked
    to look for.
    """

    image_name: str
    image_field: str
    brush_name: str
    classes: list[str]
    labels: list[str]
    prompts: dict[str, list[str]]
    aliases: Mapping[str, str]
    own: frozenset[str]
    others: frozenset[str]
    showing: Sequence[ShownWith] = ()

    def shown_with(self, shape: str) -> ShownWith | None:
        """The tag to show masks with: of the wanted ``shape``, or else one that is exact.

        None where there is neither: polygons are shown only where they are wanted.
        """
        wanted = [tag for tag in self.showing if tag.shape == shape]
        exact = [tag for tag in self.showing if tag.shape != "polygon"]
        return next(iter([*wanted, *exact]), None)

    def knowing(self, renamed: Mapping[str, str]) -> DatasetTags:
        """The same tags, to which classes are also known by the names that they had before."""
        return replace(self, aliases={**renamed, **self.aliases})

    def masks(self, results: Iterable[object]) -> list[Json]:
        """The regions, in an annotation's or a prediction's ``result``, that are masks.

        Each has, under its type in its ``value``, the name of its class in place of an alias. Left
        out is what tags in ``others`` made, and what no shape belongs to. Raises a ValueError that
        names the region for what is a mask but cannot be understood: of an unknown tag or type, or
        without exactly one label.
        """
        return [
            self._named(item) for item in results if isinstance(item, dict) and self._is_mask(item)
        ]

    def _is_mask(self, item: Json) -> bool:
        kind, tag = item.get("type"), str(item.get("from_name"))
        if tag in self.others or item.get("to_name", self.image_name) != self.image_name:
            return False
        if tag not in self.own:
            if not _is_shape(kind):
                return False  # such as a relation, or what a tag has left that was removed
            raise ValueError(
                f"{_region(item)} is of the tag {tag!r}, which the label config does not have; "
                "restore the tag, or delete the region"
            )
        if not _is_shape(kind):
            raise ValueError(
                f"{_region(item)} has the type {str(kind)[:40]!r}, which covers no pixels; draw it "
                f"with one of {', '.join(SHAPES)}, or delete it"
            )
        if item.get("item_index"):
            raise ValueError(f"{_region(item)} is of a further image of its task; delete it")
        return True

    def _named(self, item: Json) -> Json:
        kind, value = str(item["type"]), item.get("value")
        value = value if isinstance(value, dict) else {}
        names = value.get(kind)
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            some = isinstance(names, list) and len(names) > 1
            raise ValueError(
                f"{_region(item)} has {'several labels' if some else 'no label'}; give it one, or "
                "delete it"
            )
        return {**item, "value": {**value, kind: [self.aliases.get(names[0], names[0])]}}


def dataset_config(classes: list[str], shape: str = "brush") -> str:
    """The label config of a new dataset project with these classes.

    ``shape`` is a key of MAIN_TAGS: what masks are shown as, and drawn with.
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    main = ElementTree.SubElement(view, MAIN_TAGS[shape], name="label", toName="image")
    for name in classes:
        ElementTree.SubElement(main, "Label", value=name)
    return ElementTree.tostring(view, encoding="unicode")


def with_labels(config: str, names: Iterable[str]) -> str:
    """A label config with further labels, those left out that it has already.

    Raises LabelStudioError as :func:`read_dataset_config` does.
    """
    root, main, _ = _parsed(config)
    there = set(_labels(main))
    for name in names:
        if name not in there:
            ElementTree.SubElement(main, "Label", value=name)
    return ElementTree.tostring(root, encoding="unicode")


def with_new_name(config: str, old: str, new: str) -> str:
    """A label config in which a label has a new name, and the old one as its alias.

    So annotations that have the old one stay valid; an alias that it has stays. Raises
    LabelStudioError as :func:`read_dataset_config` does.
    """
    root, _, own = _parsed(config)
    for label in (label for tag in own for label in tag.iter("Label")):
        if label.get("value") == old:
            label.set("value", new)
            label.set("alias", label.get("alias") or old)
            if label.get("alias") == new:
                del label.attrib["alias"]
    return ElementTree.tostring(root, encoding="unicode")


def read_dataset_config(config: str) -> DatasetTags:
    """The tags and classes of a dataset project's label config.

    One label stands for two classes: itself, and ADDED_BACKGROUND before it. Raises
    LabelStudioError when there is no ``Image`` with one of MAIN_TAGS that has labels, when a task
    has several images of one tag, and when one word stands for two labels.
    """
    root, main, own = _parsed(config)
    images = _images(root)
    tags = _tags(root)
    image = next(images[name] for name in _targets(main) if name in images)
    if image.get("valueList"):
        raise LabelStudioError(
            f"the <Image> {image.get('name')!r} of the label config shows several images of one "
            "task (valueList); make a task of each image, and give the tag a value"
        )
    name, labels = str(image.get("name")), _labels(main)
    ours = frozenset(str(tag.get("name")) for tag in own)
    return DatasetTags(
        image_name=name,
        image_field=str(image.get("value", "$image")).lstrip("$"),
        brush_name=str(main.get("name")) if main.tag == MAIN_TAGS["brush"] else "",
        classes=_classes(labels),
        labels=labels,
        prompts=_prompts(main),
        aliases=_aliases(own, set(labels)),
        own=ours,
        others=frozenset(str(tag.get("name")) for tag in tags) - ours,
        showing=_showing(own),
    )


def _parsed(
    config: str,
) -> tuple[ElementTree.Element, ElementTree.Element, list[ElementTree.Element]]:
    """A label config, its tag whose labels are the classes, and all tags that share these."""
    try:
        root = label_configs.parse(config)
    except ValueError as error:
        raise LabelStudioError(f"the label config cannot be read: {error}") from error
    tags, images = _tags(root), _images(root)
    main = _main_tag(tags, images)
    name = next(name for name in _targets(main) if name in images)
    known = set(_labels(main))
    return root, main, [tag for tag in tags if tag is main or _shares(tag, name, known)]


def _images(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {str(tag.get("name")): tag for tag in root.iter("Image")}


def _tags(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The tags by which annotators say something."""
    return [tag for tag in root.iter() if tag.get("name") and tag.get("toName")]


def _main_tag(
    tags: Sequence[ElementTree.Element], images: Mapping[str, ElementTree.Element]
) -> ElementTree.Element:
    """The tag whose labels are the classes."""
    for kind in MAIN_TAGS.values():
        for tag in tags:
            if tag.tag == kind and images.keys() & set(_targets(tag)) and _labels(tag):
                return tag
    raise LabelStudioError(
        "the project's label config needs an <Image> and a <BrushLabels> for it with a <Label> for "
        "each class; add them in Settings → Labeling Interface"
    )


def _showing(own: Iterable[ElementTree.Element]) -> list[ShownWith]:
    """The tags that can show masks, in the order of MAIN_TAGS."""
    tags = list(own)
    return [
        ShownWith(shape, str(tag.get("name")), _labels(tag))
        for shape, kind in MAIN_TAGS.items()
        for tag in tags
        if tag.tag == kind
    ]


def _classes(labels: list[str]) -> list[str]:
    """The classes that labels stand for."""
    if len(labels) > 1 or background(labels) is not None:
        return labels
    return [ADDED_BACKGROUND, *labels]


def _targets(tag: ElementTree.Element) -> list[str]:
    """The names of the tags that a tag is for."""
    return [name.strip() for name in tag.get("toName", "").split(",")]


def _labels(tag: ElementTree.Element) -> list[str]:
    return [label.get("value", "") for label in tag.iter("Label")]


def _shares(tag: ElementTree.Element, image: str, known: set[str]) -> bool:
    """Whether a tag has labels of the classes, for the image."""
    return image in _targets(tag) and not known.isdisjoint(_labels(tag))


def _aliases(tags: Sequence[ElementTree.Element], known: set[str]) -> dict[str, str]:
    """The labels by their aliases; LabelStudioError where a word stands for two of them."""
    found: dict[str, str] = {}
    for label in (label for tag in tags for label in tag.iter("Label")):
        name, alias = label.get("value", ""), label.get("alias", "")
        if not alias or alias == name:
            continue
        if alias in known or found.get(alias, name) != name:
            raise LabelStudioError(
                f"the label config calls two labels {alias!r}: the alias of {name!r} is also the "
                "name or the alias of another label; choose another alias"
            )
        found[alias] = name
    return found


def _prompts(brush: ElementTree.Element) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label in brush.iter("Label"):
        values = label.get("predicted_values", "").split(",")
        words = [value.strip() for value in values if value.strip()]
        if words:
            found[label.get("value", "")] = words
    return found


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, str) and kind.removesuffix("labels") in SHAPES


def _region(item: Json) -> str:
    return f"region {str(item.get('id'))[:40]!r}"
