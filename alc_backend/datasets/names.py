"""Image keys and other file names in a dataset, checked because they come from outside."""

from __future__ import annotations

from pathlib import Path

from alc_backend.datasets.images import IMAGE_SUFFIXES
from alc_backend.errors import DatasetError


def checked_name(name: object, source: str) -> str:
    """``name``, unchanged, when it is a relative path with / that leads out of no folder.

    Raises DatasetError, naming ``source``, for absolute paths, the parts ``.`` and ``..``, control
    characters and backslashes.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    text = "".join(parts)
    odd = "\\" in text or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text)
    if odd or any(part in ("", ".", "..") for part in parts):
        raise DatasetError(
            f"{source}: {name!r} does not name a file inside the folder; rename the image"
        )
    return str(name)


def key_of(path: Path, folder: Path) -> str:
    """The image key of a file: its path below ``folder`` without the extension."""
    return path.relative_to(folder).with_suffix("").as_posix()


def path_below(root: Path, folder: str, key: str, ending: str) -> Path:
    """The path ``root/folder/KEY + ending`` of an image key's file, whose folder is created.

    Raises DatasetError for a key that would lead out of the folder.
    """
    path = root / folder / f"{checked_name(key, 'image key')}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_image(path: Path) -> bool:
    """Whether a file has the extension of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    )
