"""XML from outside: read without what only attacks need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree


class Builder(ElementTree.TreeBuilder):
    """Builds the elements of a document that has no document type."""

    def doctype(self, *_: object) -> None:
        """Refuse a document type: its entities could unfold to any size, or name files."""
        refuse_doctype()


def refuse_doctype() -> None:
    """Raise the ValueError of a document type, for targets of :func:`feed` of other kinds."""
    raise ValueError("it has a DOCTYPE, which nothing needs; remove it")


def feed(blocks: Iterable[str | bytes], target: Any) -> Any:
    """What ``target`` makes of a document, which comes in blocks; nothing else keeps it.

    ``target`` has the methods of a target of ``ElementTree.XMLParser``; its ``doctype`` must be
    that of :class:`Builder` or call :func:`refuse_doctype`. Raises a ValueError that says what is
    wrong with what is not XML.
    """
    parser = ElementTree.XMLParser(target=target)
    try:
        for block in blocks:
            parser.feed(block)
        return parser.close()
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"it is not XML ({error})") from error
