"""``alc secret``: a new ALC_SECRET, and the passwords that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alc_backend.settings import settings

if TYPE_CHECKING:
    from alc_backend.labelstudio.client import Client
    from alc_backend.store.database import Store

console = Console()
app = typer.Typer(no_args_is_help=True, help="Replace ALC_SECRET; show what is made of it.")

BYTES = 24
"""The length of a new secret before it is written in hexadecimal digits."""


@app.command()
def rotate() -> None:
    """Replace ALC_SECRET: give Label Studio, and CVAT, the passwords made of a new one.

    Without ALC_SECRET_PREVIOUS, makes a new secret and says what to set. With it, connects every
    project anew; the service must run with the new secret. Safe to repeat.
    """
    from alc_backend.cli.common import open_store
    from alc_backend.errors import SettingsError
    from alc_backend.labelstudio.client import Client

    if settings().secret is None:
        raise SettingsError("ALC_SECRET is not set; choose one (`openssl rand -hex 24`)")
    if settings().secret_previous is None:
        _propose()
        return
    if settings().secret_previous == settings().secret:
        raise SettingsError("ALC_SECRET is still ALC_SECRET_PREVIOUS; set a new one")
    store = open_store()
    with ExitStack() as opened:
        failed = _connect_all(
            store, lambda: opened.enter_context(Client.from_settings(store.settings))
        )
    if failed:
        console.print("Keep ALC_SECRET_PREVIOUS, mend what is said above, and run this again.")
        raise typer.Exit(1)
    console.print(
        "Done. Remove ALC_SECRET_PREVIOUS and restart `alc serve` and every worker: until then "
        "what Label Studio had of the old secret still opens the service to it."
    )


@app.command()
def show(
    project: Annotated[int, typer.Argument(help="Number of a project in Label Studio.", min=1)],
) -> None:
    """Print the password of one Label Studio project, for its "Connect Model" form.

    It opens what Label Studio asks of a backend, for this project, and nothing else.
    """
    from alc_backend.common.credentials import Credential, Purpose
    from alc_backend.loop.projects.connection import checked_secret

    print(Credential(Purpose.BACKEND, project).password(checked_secret(settings())))


def _propose() -> None:
    """Say how to go from the present secret to a new one."""
    import secrets

    console.print(
        "Set these for `alc serve` and every other `alc` process, and restart them; Label Studio "
        "goes on with what it has:\n\n"
        f"    ALC_SECRET={secrets.token_hex(BYTES)}\n"
        "    ALC_SECRET_PREVIOUS=…  (the present ALC_SECRET)\n\n"
        "Then run `alc secret rotate` again.",
        highlight=False,
        soft_wrap=True,
    )


def _connect_all(store: Store, label_studio: Callable[[], Client]) -> int:
    """Connect every project anew; says what became of each, and returns how many failed."""
    from sqlalchemy import select

    from alc_backend.errors import AlcError
    from alc_backend.loop.cvat.projects import reconnect
    from alc_backend.loop.projects.connection import connect_backends
    from alc_backend.store.models import Project

    with store.reading() as session:
        known = session.scalars(select(Project).order_by(Project.id)).all()
    there = [project for project in known if project.dataset_project or project.query_project]
    client = label_studio() if there else None
    failed = 0
    for project in known:
        try:
            if client is not None:
                connect_backends(store.settings, client, project)
            reconnect(store, project.id)
        except AlcError as error:
            failed += 1
            console.print(f"{project.name}: {error}", style="red", markup=False, soft_wrap=True)
        else:
            console.print(f"{project.name}: connected with the new secret", markup=False)
    return failed
