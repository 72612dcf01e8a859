"""What an operator meets: `alc doctor` in a real installation with planted faults."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import takewhile

import psutil
import pytest
from pydantic import SecretStr

from alc_backend.cli.doctor_checks import connections, installation
from alc_backend.cli.doctor_checks.examination import examine
from alc_backend.cli.doctor_checks.finding import State, run_checks
from alc_backend.cli.doctor_checks.installation import Installation
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.query import label_config
from alc_backend.loop.rounds import status
from alc_backend.store import migrate
from alc_backend.store.database import Store
from tests.conftest import wait_for
from tests.e2e.demonstration import IMAGES, alc, project_row, wait_open
from tests.ports import free_port

pytestmark = [pytest.mark.ls, pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(running):
    """The demonstration with an open round and nothing wrong."""
    demo, processes = running
    if status.latest_round(demo.store, demo.project_id) is None:
        alc(demo, "round", "start", "--size", "10", "--project", project_row(demo).name)
        wait_open(demo, processes)
    project = project_row(demo)
    assert problems(demo, project=project.name) == {}
    return demo, project, processes


def problems(demo, *, fix=False, project=None, state=State.PROBLEM, **changes) -> dict[str, str]:
    """What `alc doctor` names, by check; only about the installation and the first project."""
    settings = demo.settings.model_copy(update=changes)
    examined = takewhile(  # other tests have made more projects, which take their time
        lambda finding: finding.project in (None, project), examine(settings, fix=fix)
    )
    found = [finding for finding in examined if finding.state == state]
    assert [finding for finding in found if state == State.PROBLEM and not finding.remedy] == []
    return {finding.check: finding.detail for finding in found}


def test_a_sound_installation(installed):
    demo, *_ = installed
    said = json.loads(alc(demo, "doctor", "--json"))
    assert said["ok"]
    assert {finding["state"] for finding in said["findings"]} <= {"ok", "skipped", "warning"}


def test_a_wrong_token(installed):
    demo, *_ = installed
    found = problems(demo, label_studio_api_key=SecretStr("a.b.c"))
    assert found == {"token": "Label Studio refuses the personal access token"}


def test_an_expired_token(installed):
    demo, *_ = installed
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_700_000_000}).encode()).decode()
    found = problems(demo, label_studio_api_key=SecretStr(f"a.{claims.rstrip('=')}.c"))
    assert found == {"token": "the personal access token expired on 2023-11-14"}


def test_legacy_tokens_are_off(installed):
    demo, *_ = installed
    legacy = demo.client.get("/api/current-user/token")["token"]
    found = problems(demo, label_studio_api_key=SecretStr(legacy))
    assert found == {"token": "legacy tokens are switched off in Label Studio"}


def test_an_unreachable_backend(installed, monkeypatch):
    """The service is there, and does not answer."""
    demo, project, processes = installed
    service = processes.pid_of("backend")
    os.kill(service, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patched:
            for module in (installation, connections):
                patched.setattr(module, "TIMEOUT_S", 0.5)
            found = problems(demo, project=project.name)
    finally:
        os.kill(service, signal.SIGCONT)
    assert set(found) == {
        "service",
        "backend of the dataset project",
        "backend of the query project",
    }
    assert "does not reach" in found["backend of the query project"]
    assert problems(demo, project=project.name) == {}


def hook_of(demo, project: int):
    return demo.client.get("/api/webhooks/", project=project)[0]


def test_what_somebody_changed_in_label_studio_is_named_and_repaired(installed):
    demo, project, _ = installed
    client, queries = demo.client, project.query_project
    client.delete(f"/api/webhooks/{hook_of(demo, project.dataset_project)['id']}/")
    hook = hook_of(demo, queries)
    client.patch(
        f"/api/webhooks/{hook['id']}/",
        {"url": hook["url"], "headers": {}, "actions": ["ANNOTATION_CREATED"]},
    )
    client.patch(
        f"/api/projects/{queries}", {"sampling": "Sequential sampling", "model_version": ""}
    )
    view = client.get("/api/dm/views/", project=queries)[0]
    body = {"project": queries, "data": {**view["data"], "ordering": ["-tasks:id"]}}
    client.patch(f"/api/dm/views/{view['id']}/", body)

    found = problems(demo, project=project.name)
    assert set(found) == {
        "webhook of the dataset project",
        "webhook of the query project",
        "order of the queue",
        "model version",
        "tab of the queue",
    }
    assert "has no webhook" in found["webhook of the dataset project"]
    assert "lacks the header" in found["webhook of the query project"]
    assert "TASKS_DELETED" in found["webhook of the query project"]
    assert "Sequential sampling" in found["order of the queue"]

    repaired = problems(demo, fix=True, project=project.name, state=State.REPAIRED)
    assert set(repaired) == set(found)
    assert problems(demo, project=project.name) == {}


def test_a_disconnected_backend_is_connected_again(installed):
    demo, project, _ = installed
    connected = demo.client.get("/api/ml", project=project.query_project)[0]
    demo.client.delete(f"/api/ml/{connected['id']}")
    found = problems(demo, project=project.name)
    assert "is not connected" in found["backend of the query project"]
    problems(demo, fix=True, project=project.name)
    assert problems(demo, project=project.name) == {}


def test_another_password(installed):
    demo, project, _ = installed
    found = problems(demo, project=project.name, secret=SecretStr("s3cond-secret"))
    assert "has another ALC_SECRET" in found["service"]
    assert "another password" in found["webhook of the query project"]


def test_wrong_label_configs(installed):
    demo, project, _ = installed
    path = f"/api/projects/{project.dataset_project}"
    before = demo.client.get(path)["label_config"]
    wrong = before.replace("</BrushLabels>", '<Label value="zebra"/></BrushLabels>')
    demo.client.patch(path, {"label_config": wrong})
    found = problems(demo, project=project.name)
    demo.client.patch(path, {"label_config": before})
    assert set(found) == {"label config of the dataset project"}
    assert "zebra" in found["label config of the dataset project"]

    path = f"/api/projects/{project.query_project}"
    config = label_config(len(project.classes)).replace('name="hint"', 'name="other"')
    demo.client.patch(path, {"label_config": config})
    found = problems(demo, project=project.name)
    assert set(found) == {"label config of the query project"}
    problems(demo, fix=True, project=project.name)
    assert problems(demo, project=project.name) == {}


def test_a_name_that_label_studio_calls_no_webhook_on(installed):
    demo, project, _ = installed
    found = problems(demo, project=project.name, backend_url="http://alc:9090")
    assert "wants a host name with a dot" in found["addresses"]
    assert "addresses" not in problems(demo, backend_url="http://alc.internal:9090")
    for host, refused in (("alc", True), ("alc.internal", False)):  # its own validator
        hook = {"url": f"http://{host}:9090/webhook", "actions": ["NONE"]}
        with pytest.raises(LabelStudioError) as said:
            demo.client.post("/api/webhooks/", hook)
        assert ("valid URL" in str(said.value)) == refused


def test_redis_down(installed):
    demo, *_ = installed
    found = problems(demo, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert set(found) == {"redis"}


def workers_of(demo):
    found = run_checks(Installation(demo.settings).checks(), fix=False)
    return next(finding for finding in found if finding.check == "workers")


def test_a_dead_worker(installed):
    demo, _, processes = installed
    service = psutil.Process(processes.pid_of("backend"))
    worker = next(p for p in service.children() if "worker" in p.cmdline())
    service.suspend()  # it would start another one
    try:
        worker.kill()  # Redis still lists it
        wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
        found = workers_of(demo)
    finally:
        service.resume()
    assert "no worker is there" in found.detail
    assert "alc worker" in found.remedy
    wait_for(lambda: workers_of(demo).state == State.OK)


NEXT = '''"""A migration of the next version."""
revision, down_revision = "9999", "{newest}"


def upgrade():
    """Nothing."""
'''


def test_migrations_behind(installed, tmp_path, monkeypatch):
    demo, *_ = installed
    given = {"data_dir": tmp_path / "data", "redis_url": "redis://127.0.0.1:1/0"}
    settings = demo.settings.model_copy(update=given)
    Store(settings).close()
    there, newest = migrate.revisions(settings)
    assert there == newest
    monkeypatch.setattr(migrate, "MIGRATIONS", shutil.copytree(migrate.MIGRATIONS, tmp_path / "m"))
    (tmp_path / "m/versions/9999_next.py").write_text(NEXT.format(newest=newest))
    assert "migrations are behind" in problems(demo, **given)["database"]
    assert migrate.revisions(settings) == (newest, "9999")  # looking changes nothing
    assert set(problems(demo, fix=True, state=State.REPAIRED, **given)) == {"database"}
    assert "database" not in problems(demo, **given)


@contextmanager
def small_disk(folder):
    """A command prefix that runs in a world where ``folder`` is a disk of 64 kB."""
    unshare = shutil.which("unshare")
    mount = f"mount -t tmpfs -o size=64k tmpfs '{folder}' && exec \"$@\""
    prefix = [str(unshare), "-rm", "sh", "-c", mount, "sh"]
    if unshare is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a disk")
    yield prefix


def exported(demo, folder, **environment):
    alc(demo, "export", str(folder), "--project", "ALC sample", **environment)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_backup_gives_the_same_export(installed, tmp_path):
    demo, *_ = installed
    before = exported(demo, tmp_path / "before")
    alc(demo, "backup", str(tmp_path / "alc.tar"))
    elsewhere = {"ALC_DATA_DIR": str(tmp_path / "restored"), "REDIS_URL": "redis://127.0.0.1:1/0"}
    said = alc(demo, "restore", str(tmp_path / "alc.tar"), **elsewhere)
    assert "files restored" in said
    assert exported(demo, tmp_path / "after", **elsewhere) == before


def test_a_lost_store_is_made_again_from_label_studio(installed, tmp_path):
    """The database and all arrays are lost; there are Label Studio and the dataset folder."""
    demo, project, _ = installed
    before = exported(demo, tmp_path / "before")
    sample = demo.settings.data_dir / "sample"
    elsewhere = {"ALC_DATA_DIR": str(tmp_path / "rebuilt"), "REDIS_URL": "redis://127.0.0.1:1/0"}
    numbers = ("--dataset-project", str(project.dataset_project))
    numbers += ("--query-project", str(project.query_project))
    said = alc(demo, "rebuild", str(sample / "train"), *numbers, **elsewhere)
    assert "0 problems" in said
    after = exported(demo, tmp_path / "after", **elsewhere)
    assert (
        json.loads(after["manifest.json"])["ledger"]
        == json.loads(before["manifest.json"])["ledger"]
    )
    told = {"README.md", "manifest.json"}  # tell what networks and settings there were
    assert {name: after[name] for name in after.keys() - told} == {
        name: before[name] for name in before.keys() - told
    }
    assert len(before) > IMAGES
    again = alc(demo, "rebuild", str(sample / "train"), *numbers, status=1, **elsewhere)
    assert "has this project already" in again


def test_a_full_disk(installed, tmp_path):
    demo, *_ = installed
    settings = demo.settings.model_copy(update={"data_dir": tmp_path})
    with small_disk(tmp_path) as prefix:
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "alc_backend.cli", "doctor", "--json"],
            env={**os.environ, **settings.environment()},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1, done.stderr
    found = {f["check"]: f for f in json.loads(done.stdout)["findings"] if f["state"] == "problem"}
    assert "0.0 GiB are free" in found["disk"]["detail"]
    assert "make room" in found["disk"]["remedy"]
