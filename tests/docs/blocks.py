"""The blocks of code in the documentation, for the tests that run them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shell_blocks(page: Path) -> list[str]:
    """What a page's blocks of shell commands say, in order."""
    return blocks(page.read_text("utf-8"), "sh")


def blocks(text: str, language: str) -> list[str]:
    """The blocks of a language in Markdown, in order."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.M | re.S)
    return [textwrap.dedent(block) for block in found]
