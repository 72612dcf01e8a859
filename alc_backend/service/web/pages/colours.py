"""The colours of classes on the pages: those of their label maps."""

from __future__ import annotations

from alc_backend.datasets.images import voc_palette


def colours(classes: int) -> list[str]:
    """The colour of each class in the label maps, as ``#rrggbb``, by its number."""
    palette = voc_palette()
    return [
        "#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3])
        for index in range(classes)
    ]
