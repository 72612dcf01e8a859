"""What docs/security.md says that each password opens."""

from __future__ import annotations

import re
from pathlib import Path

TABLE = Path(__file__).parents[1] / "docs/security.md"


def documented() -> dict[tuple[str, str], dict[str, str]]:
    """The table of routes: (method, path) → password → what its cell says."""
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("|")]
    head = next(i for i, line in enumerate(lines) if line.startswith("| route "))
    columns = [cell.strip() for cell in lines[head].strip("|").split("|")][1:]
    found = {}
    for line in lines[head + 2 :]:
        routes, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        named = re.findall(r"`([A-Z]+) (/\S*)`", routes)
        if not named:
            break
        for method, path in named:
            found[method, path] = dict(zip(columns, cells, strict=True))
    return found


def address_of(path: str) -> str:
    """An address that a route with this path answers: each of its parameters is 1."""
    return re.sub(r"\{[^}]*\}", "1", path)
