"""`alc doctor` where no real installation can be had; ``tests/e2e`` has one with planted faults."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from alc_backend.cli.doctor_checks import installation
from alc_backend.cli.doctor_checks.connection import Connection
from alc_backend.cli.doctor_checks.examination import examine
from alc_backend.cli.doctor_checks.finding import State, run_checks
from alc_backend.cli.doctor_checks.installation import Installation
from alc_backend.cli.doctor_checks.projects import ProjectChecks
from alc_backend.common.credentials import Credential, Purpose
from alc_backend.errors import SettingsError
from alc_backend.labelstudio import projects
from alc_backend.service.jobs import worker_registry
from alc_backend.store.derived import Standing
from alc_backend.store.models import Project
from tests.annotations import answer, arrive, asked_project, created, query_of, task_of
from tests.fake_label_studio import LEGACY_TOKEN, FakeLabelStudio
from tests.ports import free_port


@pytest.fixture
def forbidding():
    """A Label Studio whose token's user may not see the projects."""
    label_studio = FakeLabelStudio()
    label_studio.fail(403, "/api/")
    return label_studio.client(LEGACY_TOKEN)


def test_a_project_that_may_not_be_seen_does_not_end_the_report(store, dataset, forbidding):
    project_id = asked_project(store, dataset)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
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


def test_what_is_kept_beside_the_ledger_is_compared_with_it_and_made_anew(
    store, dataset, forbidding
):
    project_id = asked_project(store, dataset)
    arrive(store, project_id, created(answer(1, task_of(store, "a", 1), "dog")))
    with store.session() as session:
        project = session.get_one(Project, project_id)
        session.execute(update(Standing).values(class_id=0))
    checks = ProjectChecks(store, forbidding, project)

    def found(fix):
        kept = [check for check in checks.checks() if check.name == "standing state"]
        (finding,) = run_checks(kept, fix=fix)
        return finding

    told = found(fix=False)
    assert told.state == State.PROBLEM
    superpixel = query_of(store, "a", 1).superpixel_id
    assert f"superpixel {superpixel}: kept is" in told.detail
    assert "class_id=0" in told.detail
    assert "class_id=2" in told.detail
    assert "alc doctor --fix" in told.remedy
    found(fix=True)
    assert found(fix=False).state == State.OK
    with store.reading() as session:
        assert session.scalars(select(Standing.class_id)).all() == [2]


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
    there = worker_registry.RegisteredWorker("gpu-7", 42, queues, "gpu-7/boot/pid|42|99")
    worker_registry.sign_in(redis, there, settings)
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


@pytest.fixture
def connected(store, dataset, settings):
    """A project, and its Label Studio, connected as it should be."""
    project_id = asked_project(store, dataset)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
    label_studio = FakeLabelStudio()
    for number in (project.dataset_project, project.query_project):
        projects.connect_backend(label_studio.client(), number, settings.backend, "s3cret")
    return project, label_studio


def looked_at_webhooks(store, connected, *, fix=False):
    project, label_studio = connected
    checks = ProjectChecks(store, label_studio.client(), project).checks()
    (check,) = (check for check in checks if check.name == "webhook of the query project")
    (finding,) = run_checks([check], fix=fix)
    return finding


def hooks_of_queries(connected):
    project, label_studio = connected
    hooks = label_studio.webhooks.values()
    return [hook for hook in hooks if hook["project"] == project.query_project]


def test_a_webhook_that_shows_the_secret_is_found_and_replaced(store, connected):
    assert looked_at_webhooks(store, connected).state == State.OK
    (hook,) = hooks_of_queries(connected)
    hook["headers"] = {"Authorization": "Bearer s3cret"}
    found = looked_at_webhooks(store, connected)
    assert found.state == State.PROBLEM
    assert "shows ALC_SECRET itself" in found.detail
    assert "alc secret rotate" in found.remedy
    assert looked_at_webhooks(store, connected, fix=True).state == State.REPAIRED
    assert "s3cret" not in str(hooks_of_queries(connected))
    assert looked_at_webhooks(store, connected).state == State.OK


def test_a_webhook_elsewhere_that_shows_the_secret_is_named(store, connected):
    _, label_studio = connected
    (hook,) = hooks_of_queries(connected)
    elsewhere = {**hook, "id": 1, "url": "http://b.example/x", "headers": {"X": "k s3cret"}}
    label_studio.webhooks[1] = elsewhere
    found = looked_at_webhooks(store, connected, fix=True)
    assert found.state == State.PROBLEM
    assert "http://b.example/x shows ALC_SECRET" in found.detail
    assert label_studio.webhooks[1] == elsewhere  # it is somebody else's


def test_another_projects_password_is_found(store, connected):
    project, _ = connected
    theirs = Credential(Purpose.WEBHOOK, project.dataset_project).password("s3cret")
    (hook,) = hooks_of_queries(connected)
    hook["headers"] = {"Authorization": f"Bearer {theirs}"}
    assert "another password" in looked_at_webhooks(store, connected).detail


def test_a_rotation_that_was_not_ended_is_named(settings):
    rotating = settings.model_copy(update={"secret_previous": SecretStr("old")})
    found = checked(Installation(rotating), "secret")
    assert (found.state, "alc secret rotate" in found.remedy) == (State.WARNING, True)


@pytest.fixture
def serve():
    """Start a server that answers as told: (status, body, location) by path, or by None."""
    with ExitStack() as running:

        def start(answers):
            class Answer(BaseHTTPRequestHandler):
                def do_GET(self):
                    status, body, location = answers.get(self.path) or answers[None]
                    self.send_response(status)
                    if location is not None:
                        self.send_header("Location", location.format(path=self.path))
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_):
                    pass

            server = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


@pytest.mark.parametrize(
    ("health", "state", "told"),
    [
        (b'{"status": "UP", "model_class": "ALCBackend"}', State.WARNING, "label-studio-ml 2.x"),
        (b'{"status": "UP", "model_dir": "/a", "v2": false}', State.WARNING, "1.0.9"),
        (b'{"status": "UP", "model_class": "Other"}', State.PROBLEM, "another program"),
        (b"[]", State.PROBLEM, "another program"),
        (b"hello", State.PROBLEM, "another program"),
    ],
)
def test_label_studio_mls_server_is_told_with_what_it_leaves_undone(
    serve, settings, health, state, told
):
    url = serve({"/health": (200, health, None)})
    at = settings.model_copy(update={"backend_url": url, "port": free_port()})
    checks = [check for check in Installation(at).checks() if check.name == "service"]
    (found,) = run_checks(iter(checks), fix=False)
    assert (found.state, told in found.detail) == (state, True), found


@pytest.fixture
def elsewhere(serve):
    """The address of a server that sends all on to https."""
    return serve({None: (301, b"", "https://labels.example.com{path}")})


@pytest.mark.parametrize(
    ("path", "public", "state"),
    [
        ("", None, State.OK),
        ("", "https://example.com", State.OK),
        ("/labels", None, State.WARNING),
        ("/labels", "https://example.com/labels/", State.OK),
        ("", "https://example.com/labels", State.WARNING),
    ],
)
def test_a_path_that_browsers_need_is_told(serve, settings, path, public, state):
    """Label Studio is behind a proxy's path, and this backend reaches it without the proxy."""
    url = serve({
        "/api/version": (200, b'{"release": "1.23.2"}', None),
        None: (302, b"", f"{path}/user/login/?next=/"),
    })  # fmt: skip
    given = settings.model_copy(update={"label_studio_url": url, "label_studio_public_url": public})
    found = checked(Connection(given), "label studio")
    assert found.state == state
    assert state == State.OK or "/labels" in found.detail


def test_an_address_that_sends_on_is_told_with_the_right_one(settings, elsewhere):
    given = settings.model_copy(update={"label_studio_url": elsewhere})
    found = checked(Connection(given), "label studio")
    assert found.state == State.PROBLEM
    assert "sends on to https://labels.example.com/api/version" in found.detail
    assert found.remedy == "set LABEL_STUDIO_URL to https://labels.example.com"


def test_https_where_none_is_spoken_is_told(settings, elsewhere):
    wrong = settings.model_copy(update={"label_studio_url": elsewhere.replace("http:", "https:")})
    assert "use http://" in checked(Connection(wrong), "label studio").remedy
