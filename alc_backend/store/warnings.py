"""What an admin should know about a round that goes on all the same."""

from __future__ import annotations

from sqlalchemy.orm import Session

from alc_backend.store.models import Round


def warn(session: Session, round_id: int, sentence: str) -> None:
    """Add a sentence to a round's warning, once."""
    row = session.get_one(Round, round_id)
    if sentence not in (row.warning or ""):
        row.warning = "; ".join(filter(None, [row.warning, sentence]))
