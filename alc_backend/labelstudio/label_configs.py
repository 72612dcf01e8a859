"""Label configs as XML: read without what only attacks need."""

from __future__ import annotations

from xml.etree import ElementTree

from alc_backend.common import safe_xml

MAX_LENGTH = 2**20
"""Longer label configs, in characters, are refused: one of 255 classes has some 20 000."""


def parse(config: str) -> ElementTree.Element:
    """The root element of a label config.

    Raises a ValueError that says what is wrong with what is not XML, has a document type (whose
    entities could unfold to any size, or name files), or is longer than MAX_LENGTH.
    """
    if len(config) > MAX_LENGTH:
        raise ValueError(f"it is longer than {MAX_LENGTH:,} characters")
    root: ElementTree.Element = safe_xml.feed([config], safe_xml.Builder())
    return root
