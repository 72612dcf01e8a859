"""Large results of numbers as arrays, without an object for each row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import SelectBase
from sqlalchemy.orm import Session

from alc_backend.store.connections import POSTGRESQL

AT_ONCE = 20_000
"""Rows in memory at once."""


def read_numbers(session: Session, statement: SelectBase) -> Iterator[NDArray[np.float64]]:
    """The rows of a statement, float64 (R, columns), some thousand at a time.

    Its columns are integers of up to 53 bits and floats, none of them NULL, and its parameters are
    numbers. The database's driver is asked, as SQLAlchemy makes an object of each row, which takes
    most of the time.
    """
    connection = session.connection()
    driver: Any = connection.connection.driver_connection
    text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    columns = len(statement.selected_columns)
    # PostgreSQL's keeps the rows in the server until they are wanted.
    named = ("numbers",) if connection.dialect.name == POSTGRESQL else ()
    with closing(driver.cursor(*named)) as cursor:
        cursor.execute(text)
        while part := cursor.fetchmany(AT_ONCE):
            values = np.fromiter(chain.from_iterable(part), np.float64, len(part) * columns)
            yield values.reshape(-1, columns)
