"""Class lists: the names of a dataset's classes, in the order of their ids, and its background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alc_backend.core.arrays import VOID
from alc_backend.errors import DatasetError

MAX_CLASSES = 255
"""Class ids are uint8, and 255 is void."""

BACKGROUND_NAMES = ("background", "_background_", "bg", "void", "other", "none")
"""Class names, in any letter case, of the class that pixels outside all masks belong to."""


def read_classes(path: Path) -> list[str]:
    """The class names in a text file, one per line, in the order of the class ids.

    Raises DatasetError when the file is missing or unreadable, or :func:`checked_classes` does.
    """
    return checked_classes(read_lines(path), str(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a class list, without blanks around them and without empty ones.

    Raises DatasetError when the file is missing or unreadable.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: not found; write one class name per line, in the order of the ids"
        ) from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); check the file") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def write_classes(path: Path, classes: list[str]) -> None:
    """Write a class list that :func:`read_classes` can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in classes), "utf-8")


def checked_classes(names: list[str], source: str) -> list[str]:
    """The class names; DatasetError unless there are 2 to 255 different, non-empty ones.

    ``source`` names where they come from, for the message.
    """
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DatasetError(f"{source}: names {len(names)} classes; 2 to {MAX_CLASSES} are possible")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"{source}: names {twice[0]!r} twice; each class needs its own name")
    odd = [name for name in names if name != name.strip() or len(name.splitlines()) != 1]
    if odd:
        raise DatasetError(
            f"{source}: the class name {odd[0]!r} is empty, or has blanks around it or a line "
            "break in it; rename the class"
        )
    return names


def background(classes: Sequence[str]) -> int | None:
    """The id of the first class with a name in BACKGROUND_NAMES; None when there is none."""
    found = [c for c, name in enumerate(classes) if name.casefold() in BACKGROUND_NAMES]
    return found[0] if found else None


def uncovered_class(classes: Sequence[str]) -> int:
    """The label of pixels outside all masks: the background class, or void without one."""
    found = background(classes)
    return VOID if found is None else found
