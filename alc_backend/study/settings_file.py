"""Measured times as settings: lines of the file that ALC_ENV_FILE names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alc_backend.common.files import write_atomically
from alc_backend.errors import SettingsError
from alc_backend.settings import variable


def lines_of(seconds: Mapping[str, float]) -> list[str]:
    """The lines that set measured times, by the fields of core's ``Pace``."""
    return [f"{variable(f'seconds_{name}')}={value:.3g}" for name, value in seconds.items()]


def write(path: Path, seconds: Mapping[str, float]) -> None:
    """Set the times in a file of settings: lines that set them are replaced, others stay.

    The file is made where there is none; SettingsError when it cannot be read or written.
    """
    new = lines_of(seconds)
    ours = {line.partition("=")[0] for line in new}
    try:
        old = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in old if _name(line) not in ours]
        text = "\n".join([*kept, *new]) + "\n"
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        write_atomically(path, lambda part: _write(part, text, mode))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--settings {path}: cannot be written ({error})") from error


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text, "utf-8")
    path.chmod(mode)


def _name(line: str) -> str:
    """The variable that a line sets; a comment sets none."""
    return line.partition("=")[0].strip().removeprefix("export ").strip()
