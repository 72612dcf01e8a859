"""Column types: words of a closed set, a round's configuration, moments in UTC."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import JSON, DateTime, String, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from alc_backend.common.types import Json, TextEnum
from alc_backend.store.round_config import RoundConfig


class Words(TypeDecorator[TextEnum]):
    """A word of a closed set, stored as text.

    A word that is not in the set is a ValueError, which SQLAlchemy wraps in a StatementError.
    """

    impl = String
    cache_ok = True

    def __init__(self, words: type[TextEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: TextEnum | str | None, dialect: Dialect) -> str | None:
        """Return the text to store."""
        return None if value is None else str(self.words(value).value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> TextEnum | None:
        """Return the word of the set that the text stands for."""
        return None if value is None else self.words(value)


class RoundConfigJson(TypeDecorator[RoundConfig]):
    """A round's configuration, stored as JSON."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: RoundConfig | None, dialect: Dialect) -> Json | None:
        """Return the JSON to store."""
        return None if value is None else value.as_json()

    def process_result_value(self, value: Json | None, dialect: Dialect) -> RoundConfig | None:
        """Return the configuration that was stored."""
        return None if value is None else RoundConfig.of_json(value)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, UTC on every database (SQLite drops the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC, to store it."""
        return value.astimezone(timezone.utc) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored moment, in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)  # PostgreSQL answers in the session's zone


def plain_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of a column in the database itself, without the conversions made here."""
    return kind.impl_instance if isinstance(kind, TypeDecorator) else kind
