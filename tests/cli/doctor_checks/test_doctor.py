"""`alc doctor` where no real installation can be had; ``tests/e2e`` has one with planted faults."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from pydantic import SecretStr

from alc_backend.cli.doctor_checks import connection, examine, installation
from alc_backend.cli.doctor_checks.connection import Connection
from alc_backend.cli.doctor_checks.finding import OK, PROBLEM, WARNING, run
from alc_backend.cli.doctor_checks.installation import Installation
from alc_backend.cli.doctor_checks.projects import ProjectChecks
from alc_backend.errors import LabelStudioError, SettingsError
from alc_backend.labelstudio import projects
from alc_backend.service.jobs import worker_registry
from alc_backend.store.models import Project
from tests.annotations import asked_project


@pytest.fixture
def database_url():
    """One database is enough."""


class Forbidding:
    """A Label Studio whose token's user may not see the projects."""

    def get(self, path, **parameters):
        raise LabelStudioError(f"{path}: you do not have permission", 403)


def test_a_project_that_may_not_be_seen_does_not_end_the_report(store, dataset):
    with store.reading() as session:
        project = session.get_one(Project, asked_project(store, dataset))
    found = list(run(ProjectChecks(store, Forbidding(), project).checks(), fix=False))
    assert found[0].check == "projects"
    assert found[0].state == PROBLEM
    assert "permission" in found[0].detail
    assert [finding.check for finding in found][-1] == "work"


def test_weights_of_another_machine_are_no_problem(store, dataset):
    project_id = asked_project(store, dataset)
    with store.session() as session:
        project = session.get_one(Project, project_id)
        project.warm_start = {"superpixels": "grounded-sam"}
    checks = ProjectChecks(store, Forbidding(), project).checks()
    found = {finding.check: finding for finding in run(checks, fix=False)}
    assert found["weights"].state == WARNING
    assert "not on this machine" in found["weights"].detail


@pytest.mark.parametrize("backend", ["http://alc:9090", "https://backend/alc"])
def test_a_name_without_a_dot_is_refused(settings, backend):
    """Label Studio connects such a backend, and calls no webhook on it."""
    with pytest.raises(SettingsError, match="a dot"):
        projects.connect_backend(None, 1, backend, "s3cret")
    found = checked(Installation(settings.model_copy(update={"backend_url": backend})), "addresses")
    assert found.state == PROBLEM
    assert "ALC_BACKEND_URL" in found.remedy


@pytest.mark.parametrize(
    "backend", ["http://localhost:9090", "http://10.0.0.3:9090", "http://[::1]:9090",
                "http://alc.internal:9090", "https://alc.example.com/alc"],
)  # fmt: skip
def test_other_addresses_are_taken(backend):
    assert projects.refused_host(backend) is None


def checked(checks, name):
    return next(finding for finding in run(checks.checks(), fix=False) if finding.check == name)


def test_a_backend_beside_label_studio_may_have_a_local_address(settings):
    """Whether it is the same machine cannot be known: what Label Studio reaches is measured."""
    public = settings.model_copy(update={"label_studio_url": "https://labels.example.com"})
    assert checked(Installation(public), "addresses").state == WARNING


def test_what_label_studio_says_about_an_address_is_told(settings, monkeypatch):
    class Refusing:
        def post(self, path, body):
            raise LabelStudioError("400: {'url': ['Enter a valid URL.']}", 400)

    monkeypatch.setattr(connection.Client, "from_settings", lambda _: nullcontext(Refusing()))
    looked = Connection(settings)
    looked.works = True
    state, detail, _ = looked._private_addresses()
    assert state == PROBLEM
    assert "Enter a valid URL" in detail


def test_workers_elsewhere_need_what_they_share(settings, redis):
    queues = ("publish", "score", "train", "pseudo")
    worker_registry.note(redis, worker_registry.Present("gpu-7", 42, queues), settings)
    found = checked(Installation(settings), "workers")
    assert found.state == WARNING
    assert "gpu-7 cannot see the database and the files" in found.detail
    shared = {"database_url": "postgresql://x/alc", "files_url": SecretStr("s3://bucket")}
    assert checked(Installation(settings.model_copy(update=shared)), "workers").state == OK


def test_a_graphics_card_that_nothing_needs_is_no_problem(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "Path", lambda _: tmp_path)  # as if /dev/nvidia0 were there
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Installation(settings)._gpu()[0] == WARNING
    assert Installation(settings.model_copy(update={"preset": "pascal"}))._gpu()[0] == PROBLEM


def test_nothing_secret_is_told(settings, monkeypatch):
    given = settings.model_copy(
        update={
            "secret": SecretStr("TopSecret123"),
            "redis_url": "redis://:redispass@127.0.0.1:1/0",
        }
    )

    def leak(self):
        raise RuntimeError("Bearer TopSecret123 at redis://:redispass@127.0.0.1:1/0")

    monkeypatch.setattr(Installation, "_redis", leak)
    told = " ".join(f"{finding.detail} {finding.remedy}" for finding in examine(given))
    assert "it could not be checked" in told
    assert "TopSecret123" not in told
    assert "redispass" not in told
