"""All checks of `alc doctor`, run one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from sqlalchemy import select

from alc_backend.cli.doctor_checks.connection import Connection
from alc_backend.cli.doctor_checks.cvat import CvatChecks
from alc_backend.cli.doctor_checks.finding import Finding, State, run_checks
from alc_backend.cli.doctor_checks.installation import Installation
from alc_backend.cli.doctor_checks.projects import ProjectChecks
from alc_backend.common.logs import redact
from alc_backend.labelstudio.client import Client
from alc_backend.settings import Settings
from alc_backend.store.cvat import CvatProject
from alc_backend.store.database import Store
from alc_backend.store.models import Project


def examine(settings: Settings, *, fix: bool = False) -> Iterator[Finding]:
    """The findings of all checks, one after the other; with ``fix`` what is safe is repaired.

    A repair is safe when it only sets Label Studio up as this backend needs it, or migrates the
    database. Secrets are blotted out of the findings.
    """
    hidden = settings.hidden()
    for finding in _examine(settings, fix):
        detail, remedy = (redact(text, hidden) for text in (finding.detail, finding.remedy))
        yield replace(finding, detail=detail, remedy=remedy)


def _examine(settings: Settings, fix: bool) -> Iterator[Finding]:
    installation, connection = Installation(settings), Connection(settings)
    yield from run_checks(installation.checks(), fix=fix)
    migrated = installation.is_migrated()
    if migrated and settings.label_studio_api_key is None and _is_all_in_cvat(settings):
        yield from _examine_in_cvat(settings, fix)
        return
    yield from run_checks(connection.checks(), fix=fix)
    if not migrated:
        yield Finding("projects", State.SKIPPED, "the database comes first")
        return
    yield from _examine_in_cvat(settings, fix)
    if not connection.works:
        yield Finding("projects", State.SKIPPED, "Label Studio and the token come first")
        return
    with closing(Store(settings)) as store, Client.from_settings(settings) as client:
        with store.reading() as session:
            projects = session.scalars(
                select(Project)
                .where(Project.id.not_in(select(CvatProject.project_id)))
                .order_by(Project.id)
            ).all()
        for project in projects:
            yield from run_checks(ProjectChecks(store, client, project).checks(), fix=fix)


def _is_all_in_cvat(settings: Settings) -> bool:
    """Whether there are projects, all of them asked in CVAT: then Label Studio is not needed."""
    with closing(Store(settings)) as store, store.reading() as session:
        known = set(session.scalars(select(Project.id)))
        return bool(known) and known == set(session.scalars(select(CvatProject.project_id)))


def _examine_in_cvat(settings: Settings, fix: bool) -> Iterator[Finding]:
    with closing(Store(settings)) as store:
        with store.reading() as session:
            projects = session.scalars(
                select(Project)
                .join(CvatProject, CvatProject.project_id == Project.id)
                .order_by(Project.id)
            ).all()
        for project in projects:
            yield from run_checks(CvatChecks(store, project).checks(), fix=fix)
