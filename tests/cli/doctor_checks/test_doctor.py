"""`alc doctor` where no real installation can be had; ``tests/e2e`` has one with planted faults."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from alc_backend.cli.doctor_checks import installation
from alc_backend.cli.doctor_checks.connection import Connection
from alc_backend.cli.doctor_checks.examination import examine
from alc_backend.cli.doctor_checks.finding import State, run_checks
from alc_backend.cli.doctor_checks.installation import Installation
from alc_backend.cli.doctor_checks.projects import ProjectChecks
from alc_backend.errors import SettingsError
from alc_backend.labelstudio import projects
from alc_backend.service.jobs import worker_registry
from alc_backend.store.models import Project
from tests.annotations import asked_project
from tests.fake_label_studio import LEGACY_TOKEN, FakeLabelStudio


@pytest.fixture
def forbidding():
    """A Label Studio whose token's user may not see the projects."""
    label_studio = FakeLabelStudio()
    label_studio.fail(403, "/api/")
    return label_studio.client(LEGACY_TOKEN)


def test_a_project_that_may_not_be_seen_does_not_end_the_report(store, dataset, forbidding):
    with store.reading() as session:
        project = session.get_one(Project, asked_project(store, dataset))
    found = list(run_checks(ProjectChecks(store, forbidding, project).checks(), fix=False))
    assert found[0].check == "projects"
    assert found[0].state == State.PROBLEM
    assert "permission" in found[0].detail
    assert [finding.check for finding in found][-1] == "work"


def test_weights_of_another_machine_are_no_problem(store, dataset, forbidding):
    project_id = asked_project(store, dataset)
    with store.session() as session:
        project = session.get_one(Project, project_id)
        project.warm_start = {"superpixels": "grounded-sam"}
    checks = ProjectChecks(store, forbidding, project).checks()
    found = {finding.check: finding for finding in run_checks(checks, fix=False)}
    assert found["weights"].state == State.WARNING
    assert "not on this machine" in found["weights"].detail


@pytest.mark.parametrize("backend", ["http://alc:9090", "https://backend/alc"])
def test_a_name_without_a_dot_is_refused(settings, backend):
    """Label Studio connects such a backend, and calls no webhook on it."""
    with pytest.raises(SettingsError, match="a dot"):
        projects.connect_backend(FakeLabelStudio().client(), 1, backend, "s3cret")
    found = checked(Installation(settings.model_copy(update={"backend_url": backend})), "addresses")
    assert found.state == State.PROBLEM
    assert "ALC_BACKEND_URL" in found.remedy


@pytest.mark.parametrize(
    "backend", ["http://localhost:9090", "http://10.0.0.3:9090", "http://[::1]:9090",
                "http://alc.internal:9090", "https://alc.example.com/alc"],
)  # fmt: skip
def test_other_addresses_are_taken(backend):
    assert projects.refused_host(backend) is None


def checked(checks, name):
    """The finding of the check of that name, which alone is run."""
    (check,) = (check for check in checks.checks() if check.name == name)
    (finding,) = run_checks([check], fix=False)
    return finding


def test_a_backend_beside_label_studio_may_have_a_local_address(settings):
    """Whether it is the same machine cannot be known: what Label Studio reaches is measured."""
    public = settings.model_copy(update={"label_studio_url": "https://labels.example.com"})
    assert checked(Installation(public), "addresses").state == State.WARNING


def test_what_label_studio_says_about_an_address_is_told(settings, monkeypatch):
    label_studio = FakeLabelStudio()
    label_studio.fail(400, "/api/ml", body={"url": ["Enter a valid URL."]})
    label_studio.serve(monkeypatch)
    looked = Connection(settings)
    looked.works = True
    found = checked(looked, "private addresses")
    assert found.state == State.PROBLEM
    assert "Enter a valid URL" in found.detail


def test_workers_elsewhere_need_what_they_share(settings, redis):
    queues = ("publish", "score", "train", "pseudo")
    worker_registry.sign_in(redis, worker_registry.RegisteredWorker("gpu-7", 42, queues), settings)
    found = checked(Installation(settings), "workers")
    assert found.state == State.WARNING
    assert "gpu-7 cannot see the database and the files" in found.detail
    shared = {"database_url": "postgresql://x/alc", "files_url": SecretStr("s3://bucket")}
    assert checked(Installation(settings.model_copy(update=shared)), "workers").state == State.OK


def test_a_graphics_card_that_nothing_needs_is_no_problem(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "Path", lambda _: tmp_path)  # as if /dev/nvidia0 were there
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert checked(Installation(settings), "gpu").state == State.WARNING
    wanting = settings.model_copy(update={"preset": "pascal"})
    assert checked(Installation(wanting), "gpu").state == State.PROBLEM


def test_nothing_secret_is_told(settings, monkeypatch):
    given = settings.model_copy(
        update={
            "secret": SecretStr("TopSecret123"),
            "redis_url": "redis://:redispass@127.0.0.1:1/0",
            "label_studio_url": "http://127.0.0.1:1",
            "port": 1,
        }
    )

    def leak(settings):
        raise RuntimeError("Bearer TopSecret123 at redis://:redispass@127.0.0.1:1/0")

    monkeypatch.setattr(installation, "connect", leak)
    told = " ".join(f"{finding.detail} {finding.remedy}" for finding in examine(given))
    assert "it could not be checked" in told
    assert "TopSecret123" not in told
    assert "redispass" not in told
