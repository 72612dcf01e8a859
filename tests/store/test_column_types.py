from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import StatementError

from alc_backend.store.column_types import UtcDateTime, Words, plain_type
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Project, Round
from alc_backend.store.round_states import RoundState
from tests.annotations import round_config
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES

DIALECTS = [sqlite.dialect(), postgresql.dialect()]
WORDS = Words(RoundState)


@pytest.mark.parametrize("dialect", DIALECTS, ids=["sqlite", "postgresql"])
def test_a_word_is_stored_as_text_and_read_as_itself(dialect):
    for word in RoundState:
        stored = WORDS.process_bind_param(word, dialect)
        assert type(stored) is str
        assert WORDS.process_result_value(stored, dialect) is word
    assert WORDS.process_bind_param(None, dialect) is None
    assert WORDS.process_result_value(None, dialect) is None


@pytest.mark.parametrize("word", ["nonsense", "", "OPEN", EntryKind.EDIT, 1])
def test_a_word_outside_the_set_is_refused(word):
    for dialect in DIALECTS:
        with pytest.raises(ValueError, match="is not a valid RoundState"):
            WORDS.process_bind_param(word, dialect)


@pytest.fixture
def add_round(store):
    with store.session() as session:
        session.add(Project(id=1, name="pets", classes=["cat", "dog"]))

    def add(**values):
        with store.session() as session:
            session.add(Round(project_id=1, number=1, config=round_config(), **values))

    return add


def test_a_database_takes_and_gives_words_configurations_and_moments(store, add_round):
    east = timezone(timedelta(hours=9))
    moment = datetime(2026, 1, 1, 8, 30, tzinfo=east)
    add_round(state=RoundState.OPEN, opened_at=moment)
    with store.reading() as session:
        assert session.execute(text("SELECT state FROM rounds")).scalar() == "open"
        found = session.scalars(select(Round).where(Round.state == RoundState.OPEN)).one()
    assert found.state is RoundState.OPEN
    assert found.failed_in is None
    assert found.config == round_config()
    assert (found.opened_at, found.opened_at.tzinfo) == (moment, timezone.utc)


def test_a_row_with_a_word_outside_the_set_is_not_written(store, add_round):
    with pytest.raises(StatementError, match="'nonsense' is not a valid RoundState"):
        add_round(state="nonsense")
    with store.reading() as session:
        assert session.scalars(select(Round)).all() == []


def test_the_plain_type_makes_no_conversion():
    assert not isinstance(plain_type(UtcDateTime()), UtcDateTime)
    assert plain_type(UtcDateTime()).timezone
    assert plain_type(Project.name.type) is Project.name.type
