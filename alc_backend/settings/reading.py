"""Reading the settings of this process from its environment, and from a file that it names."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from alc_backend.errors import SettingsError
from alc_backend.settings.fields import Settings, variable

ENV_FILE = "ALC_ENV_FILE"
"""The environment variable that names a file of settings. No other file is read: one that lies in
the working directory, such as a dataset's, could send the token of Label Studio anywhere."""


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once; SettingsError names each variable that is wrong.

    Environment variables come before the lines of the file that ALC_ENV_FILE names.
    """
    try:
        return Settings(_env_file=_env_file())
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable_at(problem['loc'])}: {problem['msg']}" for problem in error.errors()
        )
        raise SettingsError(f"environment: {problems}") from None


def _env_file() -> Path | None:
    """The file that ALC_ENV_FILE names; SettingsError when it cannot be read."""
    given = os.environ.get(ENV_FILE)
    if not given:
        return None
    path = Path(given)
    try:
        path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE}={given}: cannot be read ({error})") from None
    return path


def _variable_at(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "settings"
    return variable(name) if name in Settings.model_fields else name
