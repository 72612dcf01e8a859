"""What every part of the ``alc`` command shares: the store and the project it is about."""

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
    """Show sentences as they are: names in them may look like markup."""
    return lambda message: status.update(Text(message))


def open_store() -> Store:
    """The store of the settings in force."""
    from alc_backend.store.database import Store

    return Store(settings())


def project_id_of(store: Store, name: str | None) -> int:
    """The id of the named project, or of the only one."""
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
