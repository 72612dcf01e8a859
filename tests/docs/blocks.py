"""The shell blocks of the documentation, for the tests that run them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shell_blocks(page: Path) -> list[str]:
    """What a page's blocks of shell commands say, in order."""
    found = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S)
    return [textwrap.dedent(block) for block in found]
