"""What the commands share: the store, the project that a command is about, a progress line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.status import Status
from rich.text import Text

from alc_backend.errors import NotFoundError
from alc_backend.settings import settings

if TYPE_CHECKING:
    from alc_backend.store.database import Store

ProjectOption = Annotated[
    str | None, typer.Option("--project", help="Name of the project; needed with several.")
]


def telling(status: Status) -> Callable[[str], None]:
    """A function that shows a sentence in ``status`` as it is, even if it looks like markup."""
    return lambda message: status.update(Text(message))


def open_store() -> Store:
    """The store that the settings name."""
    from alc_backend.store.database import Store

    return Store(settings())


def project_id_of(store: Store, name: str | None) -> int:
    """The id of the named project or, without a name, of the only one; NotFoundError otherwise."""
    from sqlalchemy import select

    from alc_backend.store.models import Project

    with store.reading() as session:
        known = {project.name: project.id for project in session.scalars(select(Project))}
    if name is not None:
        if name not in known:
            raise NotFoundError(
                f"there is no project {name!r}; known: {', '.join(known) or 'none'}"
            )
        return int(known[name])
    if not known:
        raise NotFoundError("there is no project yet; make one with `alc init`")
    if len(known) > 1:
        raise NotFoundError(
            f"there are several projects; name one with --project: {', '.join(known)}"
        )
    return int(next(iter(known.values())))
