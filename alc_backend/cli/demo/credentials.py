"""The passwords and tokens of the demonstration, in files that only this user can read."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from alc_backend.common.files import write_atomically
from alc_backend.settings import Settings


class Keys:
    """The demonstration's own password, backend secret and token, readable by this user only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_file():
            content = json.loads(path.read_text("utf-8"))
        else:
            content = {"password": secrets.token_urlsafe(9), "secret": secrets.token_urlsafe(24)}
        self.password = str(content["password"])
        self.secret = str(content["secret"])
        self.token = str(content.get("token", ""))
        self._save()

    def remember_token(self, token: str) -> None:
        """Keep a personal access token of Label Studio for the next start."""
        self.token = token
        self._save()

    def _save(self) -> None:
        content = {"password": self.password, "secret": self.secret, "token": self.token}
        write_secret(self._path, json.dumps(content))


def write_environment(path: Path, settings: Settings) -> None:
    """Write a file for ALC_ENV_FILE; all settings are in it, secrets included."""
    lines = [f"{key}={_quoted(value)}" for key, value in settings.environment().items()]
    write_secret(path, "\n".join(lines) + "\n")


def _quoted(value: str) -> str:
    """A value in single quotes, as python-dotenv reads it; it replaces ``${NAME}`` even there."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def write_secret(path: Path, content: str) -> None:
    """Write a file that only this user can read."""

    def write(part: Path) -> None:
        part.touch(mode=0o600)
        part.write_text(content, "utf-8")

    write_atomically(path, write)
