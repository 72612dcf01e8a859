"""The documentation: references in step with the code, links that lead somewhere, real commands."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

from alc_backend.cli.main import app
from alc_backend.settings import ENV_FILE, Settings, variable
from tests.docs.blocks import ROOT, shell_blocks
from tools import reference
from tools.reference import GROUPS

PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docker", ROOT / "docker/label-studio-ml")
    for path in folder.glob("*.md")
)  # fmt: skip
GUIDES = [page for page in PAGES if page.name not in ("commands.md", "CHANGELOG.md")]
TO_BE_GIVEN = {"ALC_IMAGE": "docker", "ALC_PUBLISH": "docker"}
"""Variables of compose files, which are no settings."""


UsageError = typer.BadParameter.__mro__[1]
"""What the command line raises for words that it does not take."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_references_are_in_step():
    """`make reference` writes them."""
    assert (ROOT / "docs/configuration.md").read_text("utf-8") == reference.configuration()
    assert (ROOT / "docs/commands.md").read_text("utf-8") == reference.commands()


def test_every_setting_is_in_the_reference():
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    for page in PAGES:
        assert page.name in ("README.md", "CHANGELOG.md") or f"({name_of(page)})" in text


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def architecture() -> str:
    return (ROOT / "docs/architecture.md").read_text("utf-8")


def test_modules_of_the_architecture_exist():
    """A module without a folder belongs to the room at the start of its line."""
    checked = 0
    for line in architecture().splitlines():
        names = re.findall(r"`([\w/]+(?:\.\w+|/))`", line)
        room = names[0] if line.startswith("| `") and names and names[0].endswith("/") else ""
        for name in names:
            places = [ROOT / "alc_backend" / name, ROOT / "alc_backend" / room / name, ROOT / name]
            assert any(place.exists() for place in places), name
            checked += 1
    assert checked > 60


def test_modules_of_the_data_flow_exist():
    (drawing,) = re.findall(r"## How data flows\n\n```\n(.*?)```", architecture(), re.S)
    named = re.findall(r"\b[a-z_]+(?:/[a-z_]+)+", drawing)
    assert len(named) > 15
    for name in named:
        assert (ROOT / "alc_backend" / f"{name}.py").exists(), name


def test_the_architecture_tells_of_every_room():
    rooms = {path.parent for path in (ROOT / "alc_backend").rglob("__init__.py")}
    named = set(re.findall(r"`([\w/]+/)`", architecture()))
    parents = {room.parent for room in rooms}
    for room in rooms:
        name = f"{room.relative_to(ROOT / 'alc_backend')}/"
        assert name in named or room in parents or name == "./", f"no word about {name}"
    for module in (ROOT / "alc_backend/loop").glob("*.py"):
        assert module.name == "__init__.py" or f"`loop/{module.name}`" in architecture()


def test_the_layers_of_the_architecture_are_those_that_are_proven():
    contracts = (
        (ROOT / "pyproject.toml").read_text("utf-8").split("[[tool.importlinter.contracts]]")
    )
    layers = re.findall(r'^    "(.+)",$', contracts[1], re.M)
    assert "cli" in layers
    (drawing,) = re.findall(r"## Layers\n\n```\n(.*?)```", architecture(), re.S)
    assert drawing.splitlines() == layers
    inside = re.findall(r'^    "(.+)",$', contracts[2], re.M)
    (table,) = re.findall(r"The layers inside the loop.*?\n\n(.*?)\n\n", architecture(), re.S)
    rooms = re.findall(r"loop/(\w+)", table)
    assert rooms == [name for layer in inside for name in layer.split(" | ")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page):
    """Links within the project lead to a file and a heading that are there."""
    text = without_code(page.read_text("utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith(("http://", "https://")):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/[\w./%#-]*)?", link), link
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks, continued ones joined."""
    blocks = "".join(shell_blocks(page)).replace("\\\n", " ")
    return [line.strip() for line in blocks.splitlines() if line.strip()]


def commands_in(line: str) -> list[list[str]]:
    """The words of each ``alc`` in a line, and of each ``make``."""
    words = shlex.split(line, comments=True)
    found, present = [], []
    for word in [*words, ";"]:
        if word in (";", "&&", "||", "|", "&", "(", ")"):
            found.append(present)
            present = []
        else:
            present.append(word)
    cut = []
    for words in found:
        while words and ("=" in words[0] or words[0] == "time"):
            words = words[1:]
        if words[:2] == ["docker", "compose"] and "alc" in words:
            words = words[words.index("alc") :]  # the service, whose entry point is the program
        if words and Path(words[0]).name in ("alc", "make"):
            cut.append([Path(words[0]).name, *words[1:]])
    return cut


def parse(words: list[str]) -> None:
    """Let the command line read these words, without running anything."""
    command = typer.main.get_command(app)
    while getattr(command, "commands", None):
        assert words, "a command is missing"
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("alc", words)


def all_lines():
    return [(page, line) for page in GUIDES for line in shell_lines(page)]


def test_the_command_line_says_what_it_does_not_know():
    """What the next test relies on."""
    for words in (["export"], ["init", "--nonsense"], ["nothing"], ["backup", "--networks", "x"]):
        with pytest.raises((AssertionError, UsageError)):
            parse(words)


def test_commands_of_the_guides_exist():
    """Every command of every shell block is one that the command line takes."""
    seen = 0
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for page, line in all_lines():
        for program, *words in commands_in(line):
            seen += 1
            try:
                if program == "make":
                    assert {w for w in words if "=" not in w} <= set(targets)
                else:
                    parse([word for word in words if word != ">"])
            except (AssertionError, UsageError) as error:
                raise AssertionError(f"{name_of(page)}: {line}: {error}") from error
    assert seen > 40


def options_of(words: list[str]) -> tuple[set[str], set[str]]:
    """The options of the command that the words begin with, and those among the words."""
    command = typer.main.get_command(app)
    for word in words:
        inner = getattr(command, "commands", None)
        if not inner:
            break
        if word not in inner:
            names = set(word.split("|"))  # `alc weights list|download|verify`
            assert names <= set(inner), f"there is no command {word!r}"
            command = inner[min(names)]
            break
        command = inner[word]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    return known, {w.split("=")[0] for w in words if w.startswith("--")}


def test_commands_in_the_text_exist():
    seen = 0
    for page in [*GUIDES, ROOT / "CHANGELOG.md"]:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.M | re.S)
        for inline in re.findall(r"`([^`\n]*\balc [^`\n]*)`", text):
            for _, *words in (c for c in commands_in(inline) if c[0] == "alc"):
                words = [word for word in words if word not in ("…", "--help")]
                known, used = options_of(words)
                assert used <= known, f"{name_of(page)}: {inline}"
                seen += 1
    assert seen > 40


def test_variables_of_the_guides_exist():
    known = {ENV_FILE, *map(variable, Settings.model_fields)}
    for page in GUIDES:
        for name in set(re.findall(r"\bALC_[A-Z_]+\b", page.read_text("utf-8"))):
            assert name in known or name in TO_BE_GIVEN, f"{name_of(page)}: {name}"


def test_the_program_names_every_variable_rightly():
    """Messages of the package name settings that exist."""
    known = {ENV_FILE, *map(variable, Settings.model_fields)}
    for path in (ROOT / "alc_backend").rglob("*.py"):
        for name in re.findall(r"\bALC_[A-Z_]+\b", path.read_text("utf-8")):
            assert name in known, f"{path}: {name}"


def test_every_command_has_help():
    def walk(command, path):
        assert command.help, path
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, [*path, name])
        for parameter in command.params:
            if parameter.param_type_name == "argument" or parameter.opts != ["--help"]:
                assert parameter.help, [*path, parameter.name]

    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        walk(command, [name])
