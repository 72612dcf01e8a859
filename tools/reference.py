"""Writes docs/configuration.md from the settings and docs/commands.md from the command line.

`make reference` runs it; a test tells when the pages are out of date.
"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from alc_backend.cli.main import app
from alc_backend.settings import Settings, variable

DOCS = Path(__file__).resolve().parent.parent / "docs"

GROUPS = {
    "Label Studio and addresses": (
        "label_studio_url", "label_studio_api_key", "label_studio_public_url", "backend_url",
        "host", "port", "secret", "secret_previous", "trusted_proxies", "image_hosts",
    ),
    "CVAT": ("cvat_url", "cvat_token", "cvat_user", "cvat_password"),
    "Where everything is kept": (
        "data_dir", "files_url", "database_url", "redis_url", "model_dir",
        "min_free_gb",
    ),
    "Rounds and queries": (
        "acquisition", "round_size", "per_image", "gap", "min_area", "epsilon", "questions",
        "tiles", "repeats", "relabel", "relabel_precision", "overlap", "fallen_out",
        "start_by_itself", "seed",
    ),
    "What questions cost": (
        "seconds_accept", "seconds_correct", "seconds_classify", "seconds_page", "seconds_tile",
    ),
    "What labelers see": ("language", "regions", "regions_by_class"),
    "First label maps": ("superpixels", "detector", "segmenter", "box_threshold"),
    "Training": (
        "preset", "encoder", "encoder_weights", "input_size", "iterations", "batch_size",
        "base_rate", "folds", "share_iterations", "flip", "holdout", "train_processes",
        "loader_threads", "checkpoint_every", "image_cache_mb",
    ),
    "Operation": (
        "log_format", "max_request_mb", "reconcile_every_s", "job_timeout_hours", "stale_after_s",
        "hung_after_minutes",
    ),
}  # fmt: skip
"""The settings by topic, for the reference page."""

CONFIGURATION = """\
# Configuration

Every setting is an environment variable, or a line `NAME=VALUE` of the file that `ALC_ENV_FILE` \
names; the variable comes first. No other file is read, least of all a `.env` in the folder where \
a command happens to run. All `alc` processes of an installation need the same settings. Where \
the default is "unset", an empty value means the same. This page is written by `make reference`.
"""

COMMANDS = """\
# Commands

`--help` shows the same for every command. An error ends a command with one sentence and exit \
code 1. This page is written by `make reference`.
"""


def configuration() -> str:
    """The page about the settings."""
    fields = Settings.model_fields
    parts = [CONFIGURATION]
    for title, names in GROUPS.items():
        rows = [
            f"| `{variable(name)}` | {_default(fields[name])} | {_about(fields[name])} |"
            for name in names
        ]
        head = ["| variable | default | meaning |", "|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", *head, *rows, ""]))
    return "\n".join(parts)


def commands() -> str:
    """The page about the command line, from what `--help` is made of."""
    parts = [COMMANDS]
    _describe(typer.main.get_command(app), ["alc"], parts)
    return "\n".join(parts)


def _describe(command: Any, path: list[str], parts: list[str]) -> None:
    inner = getattr(command, "commands", None)
    if inner:
        if len(path) > 1:
            parts.append(f"## {' '.join(path)}\n\n{_paragraphs(command.help)}\n")
        for name in sorted(
            inner, key=lambda name: (bool(getattr(inner[name], "commands", None)), name)
        ):
            _describe(inner[name], [*path, name], parts)
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    words = [
        entry.name.upper() if entry.required else f"[{entry.name.upper()}]" for entry in arguments
    ]
    usage = " ".join([*path, *words, *(["[OPTIONS]"] if options else [])])
    level = "#" * min(3, len(path))
    text = [f"{level} {' '.join(path)}", "", f"    {usage}", "", _paragraphs(command.help), ""]
    if arguments or options:
        text += ["| | default | meaning |", "|---|---|---|"]
        for entry in arguments:
            text.append(f"| `{entry.name.upper()}` |  | {_cell(entry.help)} |")
        for entry in options:
            names = ", ".join(f"`{name}`" for name in (*entry.opts, *entry.secondary_opts))
            text.append(f"| {names} | {_preset(entry)} | {_cell(entry.help)} |")
        text.append("")
    parts.append("\n".join(text))


def _preset(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is True:
        return f"`{option.opts[0]}`"
    if option.default is None or option.default is False or option.default == ():
        return ""
    return f"`{getattr(option.default, 'value', option.default)}`"


def _paragraphs(text: str | None) -> str:
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _about(field: FieldInfo) -> str:
    text = _cell(field.description)
    bounds = [
        f"{sign} {_number(getattr(rule, name))}"
        for rule in field.metadata
        for name, sign in (("gt", "above"), ("ge", "from"), ("le", "to"), ("lt", "below"))
        if getattr(rule, name, None) is not None
    ]
    choices = _choices(field.annotation)
    if choices:
        text += f" ({', '.join(f'`{choice}`' for choice in choices)})"
    if bounds:
        text += f" ({' '.join(bounds)})"
    return text


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return ()


def _is_secret(annotation: Any) -> bool:
    union = get_origin(annotation) in (typing.Union, types.UnionType)
    return annotation is SecretStr or (union and SecretStr in get_args(annotation))


def _default(field: FieldInfo) -> str:
    if _is_secret(field.annotation):
        return "unset; secret"
    if field.default in (None, PydanticUndefined, ""):
        return "unset"
    value = field.default
    shown = (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
    return f"`{shown}`"


def main() -> None:
    """Write both pages."""
    (DOCS / "configuration.md").write_text(configuration(), "utf-8")
    (DOCS / "commands.md").write_text(commands(), "utf-8")


if __name__ == "__main__":
    main()
