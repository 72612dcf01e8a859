from __future__ import annotations

import pytest
from rich.console import Console

from alc_backend.cli import common
from alc_backend.cli.common import MinuteLines, telling


def test_names_that_look_like_markup_are_shown_as_they_are():
    console = Console(record=True, width=80, force_terminal=True)
    with console.status("") as status:
        telling(status)("importing: 3 (folder/[/x])")
        console.print(status.renderable)
    assert "folder/[/x]" in console.export_text()


@pytest.fixture
def always(monkeypatch):
    """A minute passes between two sentences."""
    monkeypatch.setattr(common, "LINE_EVERY_S", 0.0)


@pytest.mark.usefixtures("always")
def test_where_no_terminal_shows_progress_it_is_printed(capsys):
    with Console().status("") as status:
        tell = telling(status)
        tell("importing: 1 ([/x])")
        tell("importing: 2")
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["importing: 1 ([/x])", "importing: 2"]
    assert shown.out == ""


@pytest.mark.usefixtures("always")
def test_a_terminal_shows_progress_itself(capsys):
    MinuteLines(Console(force_terminal=True))("importing: 1")
    assert capsys.readouterr().err == ""


def test_a_sentence_a_minute(capsys):
    lines = MinuteLines(Console())
    for number in range(5):
        lines(f"importing: {number}")
    assert capsys.readouterr().err == ""  # the first minute has not passed
