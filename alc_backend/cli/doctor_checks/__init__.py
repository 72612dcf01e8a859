"""`alc doctor`: what keeps an installation from working, each with its remedy.

:mod:`installation` looks at this machine, :mod:`connection` at Label Studio and its token,
:mod:`projects` at each project there. Nothing is changed unless a repair is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from sqlalchemy import select

from alc_backend.cli.doctor_checks.connection import Connection
from alc_backend.cli.doctor_checks.finding import SKIPPED, Finding, run
from alc_backend.cli.doctor_checks.installation import Installation
from alc_backend.cli.doctor_checks.projects import ProjectChecks
from alc_backend.common.logs import redact
from alc_backend.labelstudio.client import Client
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Project


def examine(settings: Settings, *, fix: bool = False) -> Iterator[Finding]:
    """Look at everything, one finding after the other; with ``fix`` repair what is safe.

    Safe is what only brings a setting in Label Studio, or the form of the tables, to what this
    backend works with.
    """
    hidden = settings.hidden()
    for finding in _examine(settings, fix):
        detail, remedy = (redact(text, hidden) for text in (finding.detail, finding.remedy))
        yield replace(finding, detail=detail, remedy=remedy)


def _examine(settings: Settings, fix: bool) -> Iterator[Finding]:
    installation, connection = Installation(settings), Connection(settings)
    yield from run(installation.checks(), fix=fix)
    yield from run(connection.checks(), fix=fix)
    if not installation.is_migrated():
        yield Finding("projects", SKIPPED, "the database comes first")
        return
    if not connection.works:
        yield Finding("projects", SKIPPED, "Label Studio and the token come first")
        return
    with closing(Store(settings)) as store, Client.from_settings(settings) as client:
        with store.reading() as session:
            projects = session.scalars(select(Project).order_by(Project.id)).all()
        for project in projects:
            yield from run(ProjectChecks(store, client, project).checks(), fix=fix)
