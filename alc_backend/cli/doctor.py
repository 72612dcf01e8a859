"""``alc doctor``: whether this installation works."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from alc_backend.cli.doctor_checks.finding import Finding, State
from alc_backend.settings import settings

console = Console()

STYLES = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.PROBLEM: "bold red",
    State.REPAIRED: "cyan",
    State.SKIPPED: "dim",
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
    from alc_backend.cli.doctor_checks.examination import examine

    findings: list[Finding] = []
    for finding in examine(settings(), fix=fix):
        findings.append(finding)
        if not as_json:
            _show(finding)
    problems = sum(finding.state == State.PROBLEM for finding in findings)
    if as_json:
        found = [finding.as_dict() for finding in findings]
        print(json.dumps({"ok": not problems, "findings": found}, indent=1, ensure_ascii=False))
    else:
        warnings = sum(finding.state == State.WARNING for finding in findings)
        console.print(f"{len(findings)} checks, {problems} problems, {warnings} warnings")
    if problems:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    about = f"{finding.project}: " if finding.project else ""
    line = Text.assemble((f"{finding.state:9}", STYLES[finding.state]), about, finding.check, ": ")
    console.print(line.append(finding.detail), highlight=False, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"{'':9}→ {finding.remedy}"), highlight=False, soft_wrap=True)
