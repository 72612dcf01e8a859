"""Folders and files that only the present user may enter and read.

An installation's state holds tokens, other people's images and what they answered. On a machine
with several users, the mode bits of the files are what keeps it from the others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_MODE = 0o700
OTHERS = 0o077
"""The mode bits that let the group and everybody else in."""


@contextmanager
def private_files(*, unless: bool = False) -> Iterator[None]:
    """A context in which this process and its children create files for the present user alone.

    It sets the process's umask, which all threads share: enter it once, when the process starts.
    ``unless`` leaves everything as it is.
    """
    if unless:
        yield
        return
    before = os.umask(OTHERS)  # nosemgrep: folder-that-others-can-enter  # keeps others out
    try:
        yield
    finally:
        os.umask(before)  # nosemgrep: folder-that-others-can-enter  # what was before


def make_private_folder(path: Path) -> None:
    """Create a folder with mode 0700, and so those above it that are missing.

    One that is there already stays as it is. Raises OSError when it cannot be created.
    """
    if path.is_dir():
        return
    make_private_folder(path.parent)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def why_not_private(folder: Path) -> str | None:
    """Why others than the present user may enter a folder; None when only they may, or it is none.

    The text names the folder and the remedy. Links are followed.
    """
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    if found.st_uid != os.getuid():
        return (
            f"{folder} belongs to user {found.st_uid}, not to user {os.getuid()} who runs this; "
            "run the command as that user, or remove the folder"
        )
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & OTHERS:
        return f"{folder} may be entered by others; run `chmod 700 {folder}`, or remove it"
    return None
