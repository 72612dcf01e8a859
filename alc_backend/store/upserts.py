"""Writing rows that may be there already, all in one statement, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from alc_backend.store.models import Base


def upsert(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    replace: Collection[str] = (),
    add: Collection[str] = (),
) -> None:
    """Write ``rows``; of those whose primary key is there, change these columns alone.

    The columns of ``replace`` get the new value, to those of ``add`` it is added. Two transactions
    whose rows come in the same order never wait for each other in a circle.
    """
    if not rows:
        return
    on_postgresql = session.get_bind().dialect.name == "postgresql"
    statement = (postgresql.insert if on_postgresql else sqlite.insert)(table)
    new = statement.excluded
    changed = {name: new[name] for name in replace}
    changed |= {name: getattr(table, name) + new[name] for name in add}
    keys = [column.name for column in inspect(table).primary_key]
    written = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    session.execute(written, [dict(row) for row in rows])
