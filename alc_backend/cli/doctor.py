"""`alc doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from alc_backend.settings import settings

if TYPE_CHECKING:
    from alc_backend.cli.doctor_checks.finding import Finding

console = Console()

STYLES = {
    "ok": "green",
    "warning": "yellow",
    "problem": "bold red",
    "repaired": "cyan",
    "skipped": "dim",
}


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what is safe to repair, such as webhooks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for what keeps this installation from working, with remedies.

    Ends with exit code 1 when there is a problem.
    """
    from alc_backend.cli.doctor_checks import examine
    from alc_backend.cli.doctor_checks.finding import PROBLEM, WARNING

    findings: list[Finding] = []
    for finding in examine(settings(), fix=fix):
        findings.append(finding)
        if not as_json:
            _show(finding)
    problems = sum(finding.state == PROBLEM for finding in findings)
    if as_json:
        found = [finding.as_dict() for finding in findings]
        print(json.dumps({"ok": not problems, "findings": found}, indent=1, ensure_ascii=False))
    else:
        warnings = sum(finding.state == WARNING for finding in findings)
        console.print(f"{len(findings)} checks, {problems} problems, {warnings} warnings")
    if problems:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    about = f"{finding.project}: " if finding.project else ""
    line = Text.assemble((f"{finding.state:9}", STYLES[finding.state]), about, finding.check, ": ")
    console.print(line.append(finding.detail), highlight=False, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"{'':9}→ {finding.remedy}"), highlight=False, soft_wrap=True)
