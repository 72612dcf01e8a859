"""The options of `alc demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from alc_backend.settings import MOST_QUERIES


@dataclass(frozen=True)
class DemoOptions:
    """The options of `alc demo`."""

    data: Annotated[
        Path | None, typer.Option(help="A dataset folder instead of the built-in sample.")
    ] = None
    val: Annotated[
        Path | None, typer.Option(help="Validation folder; default: val beside a folder train.")
    ] = None
    auto: Annotated[
        int,
        typer.Option(
            help="Let an oracle annotator answer so many queries.", min=0, max=MOST_QUERIES
        ),
    ] = 0
    rounds: Annotated[
        int, typer.Option(help="Rounds that --auto is spread over.", min=1, max=1000)
    ] = 2
    oracle: Annotated[str, typer.Option(help="Oracle annotator: object or pixel.")] = "object"
    stop: Annotated[bool, typer.Option("--exit", help="End after that.")] = False
    data_dir: Annotated[Path, typer.Option(help="Folder for all state.")] = Path("alc-data/demo")
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rounds' figures to this file.")
    ] = None
    port: Annotated[int, typer.Option(help="Port of Label Studio.", min=1, max=65535)] = 8080
    backend_port: Annotated[int, typer.Option(help="Port of the backend.", min=1, max=65535)] = 9090
    label_studio: Annotated[
        str | None, typer.Option(help="The label-studio program, when it is elsewhere.")
    ] = None
