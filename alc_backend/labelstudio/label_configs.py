"""Label configs as XML: read without what only attacks need."""

from __future__ import annotations

from xml.etree import ElementTree

MAX_LENGTH = 2**20
"""Longer label configs, in characters, are refused: one of 255 classes has some 20 000."""


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        raise ValueError("it has a DOCTYPE, which no label config needs; remove it")


def parse(config: str) -> ElementTree.Element:
    """The root element of a label config.

    Raises a ValueError that says what is wrong with what is not XML, has a document type (whose
    entities could unfold to any size, or name files), or is longer than MAX_LENGTH.
    """
    if len(config) > MAX_LENGTH:
        raise ValueError(f"it is longer than {MAX_LENGTH:,} characters")
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(config)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"it is not XML ({error})") from error
    return root
