from __future__ import annotations

from rich.console import Console

from alc_backend.cli.common import telling


def test_names_that_look_like_markup_are_shown_as_they_are():
    console = Console(record=True, width=80, force_terminal=True)
    with console.status("") as status:
        telling(status)("importing: 3 (folder/[/x])")
        console.print(status.renderable)
    assert "folder/[/x]" in console.export_text()
