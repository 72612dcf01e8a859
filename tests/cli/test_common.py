from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from alc_backend.cli import common
from alc_backend.cli.common import MinuteLines, print_table, telling


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


@pytest.fixture
def wide_table():
    table = Table(*(f"column {number}" for number in range(30)))
    table.add_row(*(f"value {number}" for number in range(30)))
    return table


def test_a_table_is_never_cut_in_a_file(wide_table):
    written = StringIO()
    print_table(Console(file=written, width=80), wide_table)
    assert all(f"value {number} " in written.getvalue() for number in range(30))
    assert len(written.getvalue().splitlines()) == 5


def test_a_table_fits_a_terminal(wide_table):
    console = Console(file=StringIO(), record=True, width=80, force_terminal=True)
    print_table(console, wide_table)
    assert max(map(len, console.export_text().splitlines())) <= 80
