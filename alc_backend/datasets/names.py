"""Names of files that come from elsewhere: image keys, and what indexes and lists refer to."""

from __future__ import annotations

from pathlib import Path

from alc_backend.datasets.images import IMAGE_SUFFIXES
from alc_backend.errors import DatasetError


def checked_name(name: object, source: str) -> str:
    """Return ``name`` as a relative path with / that stays below any folder.

    Raises DatasetError, naming ``source``, for what is absolute, leads upwards, or holds control
    characters or backslashes.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    text = "".join(parts)
    odd = "\\" in text or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text)
    if odd or any(part in ("", ".", "..") for part in parts):
        raise DatasetError(
            f"{source}: {name!r} is no name of a file inside the folder; rename the image"
        )
    return str(name)


def key_of(path: Path, folder: Path) -> str:
    """The image key of a file in ``folder``: its path there without the ending."""
    return path.relative_to(folder).with_suffix("").as_posix()


def place(root: Path, folder: str, key: str, ending: str) -> Path:
    """Where the file of an image key lies: ``root/folder/KEY + ending``; its folder is made.

    Raises DatasetError for a key that would lie outside ``root``.
    """
    path = root / folder / f"{checked_name(key, 'image key')}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_image(path: Path) -> bool:
    """Whether the name of a file is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and its folders, sorted; hidden ones are left out."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    )
