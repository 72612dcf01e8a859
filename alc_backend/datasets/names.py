"""Image keys and other file names in a dataset, checked because they come from outside.

One rule for keys, :func:`checked_key`, is applied when images are imported, so that every export in
every format can be written, read back, and unpacked on Linux, macOS and Windows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from alc_backend.datasets.images import IMAGE_SUFFIXES
from alc_backend.errors import DatasetError

MAX_PART_BYTES = 200
"""Longest part of a key between slashes, in UTF-8: file systems take 255 bytes, and formats add
their own endings."""

MAX_KEY_BYTES = 1000
"""Longest key, in UTF-8; the path of a file may have 4096 bytes on Linux, 1024 on macOS."""

_RESERVED_CHARACTERS = frozenset('<>:"|?*\\')
_RESERVED_NAMES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
)
"""What Windows does not take as a file name."""

_UNSEEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_UNSEEN = frozenset("\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""The byte order mark, and marks that turn the direction of what is shown after them."""


def checked_key(key: str) -> str:
    """``key``, unchanged, when files can be called so in every format and on every system.

    Raises DatasetError, saying what is wrong: parts that are empty, hidden (``.a``), too long or
    reserved by Windows; folders that are called like an image (``d.png/e``: in an export, ``d.png``
    is the file of the image ``d``); characters that cannot be seen, or that Windows reserves.
    """
    problem = _problem(key)
    if problem:
        raise DatasetError(f"image {key!r}: {problem}; rename the image")
    return key


def _problem(key: str) -> str | None:
    """What is wrong with a key; None when nothing is."""
    for character in key:
        if 0xD800 <= ord(character) < 0xE000:
            return "its name is not UTF-8"
        if unicodedata.category(character) in _UNSEEN_CATEGORIES or character in _UNSEEN:
            return f"its name holds the control character U+{ord(character):04X}"
        if character in _RESERVED_CHARACTERS:
            return f"its name holds {character}, which Windows reserves"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"its name is longer than {MAX_KEY_BYTES} bytes"
    *folders, _ = parts = key.split("/")
    return next(
        (
            problem
            for problem in (*map(_part_problem, parts), *map(_folder_problem, folders))
            if problem
        ),
        None,
    )


def _part_problem(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "its name is no path inside the folder"
    if part.startswith("."):
        return f"{part!r} is a hidden file or folder"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"a part of its name is longer than {MAX_PART_BYTES} bytes"
    if part.partition(".")[0].rstrip(" ").casefold() in _RESERVED_NAMES:
        return f"Windows reserves the name {part!r}"
    return None


def _folder_problem(folder: str) -> str | None:
    if folder.endswith((" ", ".")):
        return f"Windows removes the end of the folder's name {folder!r}"
    if folder.casefold().endswith(IMAGE_SUFFIXES):
        return f"the folder {folder!r} is called like an image file"
    return None


def same_file(key: str) -> str:
    """What two keys share that macOS or Windows would take for one file.

    Letter case and the two ways of writing accented letters make no difference there.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())


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


def inside(root: Path, path: Path) -> Path:
    """``path``, unchanged, when it lies below ``root`` once all links are followed.

    Raises DatasetError for a link that leads out: whoever made the dataset would otherwise choose
    which files of this machine are read.
    """
    try:
        leads_out = not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        leads_out = True
    if leads_out:
        raise DatasetError(
            f"{path}: is a link that leads out of the dataset's folder; put the file itself there"
        )
    return path


def file_below(root: Path, name: str) -> Path | None:
    """The file ``root/name``, whose extension may be in capitals; None where there is none.

    Raises DatasetError for a link that leads out of ``root``.
    """
    path = root / name
    for spelled in (path, path.with_suffix(path.suffix.upper())):
        if spelled.is_file():
            return inside(root, spelled)
    return None


def is_image(path: Path) -> bool:
    """Whether a file has the extension of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def files_below(root: Path, folder: str = "") -> list[Path]:
    """All files below ``root/folder``, sorted, without hidden files and folders.

    Linked folders are not entered; they are listed like files. Raises DatasetError when ``folder``
    itself is a link that leads out of ``root``.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(inside(root, root / folder)):
        linked = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = _shown(folders)
        found += [Path(place, name) for name in _shown([*names, *linked])]
    return sorted(found)


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]
