"""One session of the database at a time in each thread."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, text

from alc_backend.store.database import NestedSessionError, Store
from alc_backend.store.models import Project
from tests.conftest import BOTH_DATABASES


@BOTH_DATABASES
@pytest.mark.parametrize("inner", ["session", "reading"])
@pytest.mark.parametrize("outer", ["session", "reading"])
def test_a_second_session_in_one_thread_is_refused(store, outer, inner):
    with (
        getattr(store, outer)(),
        pytest.raises(NestedSessionError, match="pass that one on"),
        getattr(store, inner)(),
    ):
        pass
    with getattr(store, inner)() as session:  # afterwards, all is as it was
        assert session.scalar(text("SELECT 1")) == 1


def test_after_an_error_a_thread_may_have_a_session_again(store):
    with pytest.raises(KeyError), store.session():
        raise KeyError
    with store.session() as session:
        assert session.scalars(select(Project)).all() == []


def test_other_threads_and_other_stores_have_sessions_of_their_own(store, settings, tmp_path):
    found = []

    def read():
        with store.reading() as session:
            found.append(session.scalar(text("SELECT 1")))

    other = Store(settings.model_copy(update={"data_dir": tmp_path / "other"}))
    with store.session(), other.session() as session:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert session.scalars(select(Project)).all() == []
    other.close()
    assert found == [1]
