"""`alc demo`: Label Studio, the backend and a dataset, started with one command."""

from __future__ import annotations

import json
import math
import os
import secrets
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from sqlalchemy import select

from alc_backend.cli.common import telling
from alc_backend.cli.demo.labeler import answer_queries
from alc_backend.common.files import write_atomically
from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import DatasetError, RoundError, ServiceError, SettingsError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.projects import set_keys
from alc_backend.labelstudio.tokens import create_personal_token
from alc_backend.loop.projects import connection
from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.status import latest_round, summary, workers
from alc_backend.service.jobs.processes import Processes
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.jobs.queues import connect as connect_redis
from alc_backend.settings import Settings
from alc_backend.simulate.sample import write_sample
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Round
from alc_backend.store.round_states import RUNNING, RoundState

EMAIL = "demo@example.com"
ENVIRONMENT = "environment"
"""A file in the demonstration's folder that lets a shell's `alc` commands be about it."""

LABEL_STUDIO_LIMIT_S = 600
BACKEND_LIMIT_S = 60


@dataclass(frozen=True)
class DemoOptions:
    """What `alc demo` was asked for; see its help."""

    data_dir: Path
    data: Path | None = None
    validation: Path | None = None
    auto: int = 0
    rounds: int = 2
    oracle: str = "object"
    exit: bool = False
    json_file: Path | None = None
    port: int = 8080
    backend_port: int = 9090
    label_studio: str | None = None


@dataclass(frozen=True)
class Demo:
    """A running demonstration: its store, its client and its project."""

    settings: Settings
    store: Store
    client: Client
    jobs: Jobs
    project_id: int
    query_project: int
    password: str


def run_demo(options: DemoOptions, settings: Settings, console: Console) -> None:
    """Start everything, walk the asked rounds, and stay until Ctrl-C (unless ``exit``)."""
    options = _checked(options)
    with Processes(options.data_dir / "logs") as processes:
        demo = start_demo(options, settings, processes, console)
        try:
            batch = math.ceil(options.auto / options.rounds) if options.auto else None
            ensure_open_round(demo, processes, console, batch)
            _greet(demo, console)
            if options.auto:
                walk_rounds(demo, options, processes, console)
            if options.json_file is not None:
                write_records(demo, options.json_file)
            if not options.exit:
                console.print("Press Ctrl-C to stop everything.")
                _stay(processes)
                console.print("Stopping everything …")
        finally:
            demo.client.close()
            demo.store.close()


def _stay(processes: Processes) -> None:
    """Keep the processes running until Ctrl-C."""
    try:
        while True:
            processes.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def start_demo(
    options: DemoOptions, settings: Settings, processes: Processes, console: Console
) -> Demo:
    """Start Label Studio and the backend, and bring the dataset into both."""
    for port in (options.port, options.backend_port):
        _refuse_used_port(port)
    folder = options.data_dir.absolute()
    keys = _Keys(folder / "secrets.json")
    url = f"http://127.0.0.1:{options.port}"
    console.print(f"Starting Label Studio at {url} (the first start takes about 90 s) …")
    start_label_studio(processes, options, keys.password)
    if not keys.token:
        keys.remember_token(create_personal_token(url, EMAIL, keys.password))

    sample = options.data is None
    settings = settings.model_copy(
        update={
            "data_dir": folder,
            "label_studio_url": url,
            "label_studio_api_key": SecretStr(keys.token),
            "secret": SecretStr(keys.secret),
            "database_url": None,
            "redis_url": None,
            "host": "127.0.0.1",
            "port": options.backend_port,
            "backend_url": None,
            "preset": "sample" if sample and "ALC_PRESET" not in os.environ else settings.preset,
        }
    )
    _write_environment(folder / ENVIRONMENT, settings)
    console.print(f"Starting the backend at {settings.backend} …")
    start_backend(processes, settings)

    store = Store(settings)
    training, validation = options.data, options.validation
    if training is None:
        training, validation = write_sample(folder / "sample", settings.seed)
    folder_name = training.absolute()
    if folder_name.name == "train":
        folder_name = folder_name.parent
    name = "ALC sample" if sample else f"ALC {folder_name.name}"
    with console.status("importing images") as status:
        summary = import_folder(
            store,
            training,
            name,
            validation=validation,
            progress=lambda done, key: telling(status)(f"importing images: {done} ({key})"),
        )
    if not sample:
        summary.show(console)
    if not summary.imported + summary.present:
        raise DatasetError(f"{training}: no image could be imported")
    with console.status("connecting Label Studio") as status:
        client = Client.from_settings(settings)
        project = connection.connect_project(store, client, summary.project_id, telling(status))
        # one key to accept, two to correct
        set_keys(client)
    assert project.query_project is not None
    jobs = Jobs(settings, connect_redis(settings))
    return Demo(settings, store, client, jobs, project.id, project.query_project, keys.password)


def start_label_studio(
    processes: Processes, options: DemoOptions, password: str, *, restart: bool = False
) -> None:
    """Start a Label Studio of our own on the loopback address and wait until it answers."""
    command = [
        _label_studio_command(options.label_studio),
        "start",
        "--no-browser",
        "--internal-host", "127.0.0.1",
        "--port", str(options.port),
        "--data-dir", str(options.data_dir.absolute() / "label-studio"),
    ]  # fmt: skip
    environment = {
        "LABEL_STUDIO_USERNAME": EMAIL,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # The backend listens on the loopback address, which Label Studio refuses by default.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    processes.start("label-studio", command, environment=environment, restart=restart)
    url = f"http://127.0.0.1:{options.port}/health"
    processes.wait_for(lambda: _is_up(url), "Label Studio", LABEL_STUDIO_LIMIT_S)


def start_backend(processes: Processes, settings: Settings, *, restart: bool = False) -> None:
    """Start `alc serve` with these settings and wait until it answers."""
    processes.start(
        "backend",
        [sys.executable, "-m", "alc_backend.cli", "serve"],
        environment=settings.environment(),
        restart=restart,
    )
    url = f"http://{settings.host}:{settings.port}/health"
    processes.wait_for(lambda: _is_up(url), "the backend", BACKEND_LIMIT_S)


def ensure_open_round(
    demo: Demo, processes: Processes, console: Console, size: int | None
) -> Round:
    """The open round of the project; starts the first one, or waits for the running one."""
    latest = latest_round(demo.store, demo.project_id)
    if latest is None or latest.state not in (RoundState.OPEN, *RUNNING):
        latest, _ = lifecycle.start(demo.store, demo.jobs.enqueue_part, demo.project_id, size=size)
    return wait_until_open(demo.store, demo.project_id, console, processes.check)


def walk_rounds(demo: Demo, options: DemoOptions, processes: Processes, console: Console) -> None:
    """Let the oracle annotator answer, retrain, and repeat; prints the table of rounds."""
    for number in range(1, options.rounds + 1):
        due = (
            options.auto * number // options.rounds - options.auto * (number - 1) // options.rounds
        )
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(f"answering {due} queries", total=due)
            given = answer_queries(
                demo.store,
                demo.client,
                demo.project_id,
                due,
                oracle=options.oracle,
                on_answer=lambda _, bar=bar: progress.advance(bar),  # type: ignore[misc]
            )
        console.print(f"The oracle annotator answered {given} queries.")
        lifecycle.start(demo.store, demo.jobs.enqueue_part, demo.project_id, size=due)
        wait_until_open(demo.store, demo.project_id, console, processes.check)
    console.print(rounds_table(demo.store, demo.project_id))


def wait_until_open(
    store: Store, project_id: int, console: Console, check: Callable[[], None] = lambda: None
) -> Round:
    """Show the progress of the running round until it is open; RoundError when it is not to be."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1, what="")
        while True:
            check()
            round_ = latest_round(store, project_id)
            if round_ is None:
                raise RoundError("no round was started; run `alc round start`")
            if round_.state not in RUNNING:
                break
            eta = summary(round_)["eta_s"]
            what = round_.message + (f", {eta} s left" if eta is not None else "")
            if not workers(store, round_):
                what = round_.message or "waiting for a worker (`alc serve` or `alc worker`)"
            progress.update(
                bar,
                description=f"round {round_.number}: {round_.state}",
                completed=round_.done,
                total=round_.total or 1,
                what=what,
            )
            time.sleep(0.3)
    if round_.state != RoundState.OPEN:
        raise RoundError(f"round {round_.number} {round_.state}: {round_.error or 'by the admin'}")
    return round_


def records(store: Store, project_id: int) -> list[dict[str, Any]]:
    """The project's rounds: answers, data mIoU and model mIoU at each round's start."""
    with store.reading() as session:
        found = session.scalars(
            select(Round).where(Round.project_id == project_id).order_by(Round.number)
        ).all()
    names = ("round", "answers", "data_miou", "model_miou")
    return [{name: summary(round_)[name] for name in names} for round_ in found]


def write_records(demo: Demo, path: Path) -> None:
    """Write the rounds as JSON."""
    content = json.dumps({"rounds": records(demo.store, demo.project_id)}, indent=1)
    write_atomically(path, lambda part: part.write_text(content + "\n", "utf-8"))


def rounds_table(store: Store, project_id: int) -> Table:
    """The project's rounds for the terminal."""
    table = Table("round", "answers", "data mIoU", "model mIoU")
    for entry in records(store, project_id):
        table.add_row(
            str(entry["round"]),
            "–" if entry["answers"] is None else str(entry["answers"]),
            *(
                "–" if entry[name] is None else f"{entry[name]:.3f}"
                for name in ("data_miou", "model_miou")
            ),
        )
    return table


def _checked(options: DemoOptions) -> DemoOptions:
    """Find what cannot work before anything is started."""
    if options.data is not None:
        folder = open_dataset(options.data)
        if options.auto and not (folder.root / "ground_truth").is_dir():
            raise DatasetError(
                f"{folder.root}: has no ground_truth/, from which --auto takes its answers; leave "
                "--auto out and answer yourself"
            )
    if options.validation is not None:
        open_dataset(options.validation, validation=True)
    if options.json_file is not None and not options.json_file.absolute().parent.is_dir():
        raise SettingsError(f"--json {options.json_file}: its folder does not exist")
    return replace(options, rounds=min(options.rounds, max(options.auto, 1)))


class _Keys:
    """The demonstration's own password, backend secret and token, readable by this user only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_file():
            content = json.loads(path.read_text("utf-8"))
        else:
            content = {"password": secrets.token_urlsafe(9), "secret": secrets.token_urlsafe(24)}
        self.password = str(content["password"])
        self.secret = str(content["secret"])
        self.token = str(content.get("token", ""))
        self._save()

    def remember_token(self, token: str) -> None:
        self.token = token
        self._save()

    def _save(self) -> None:
        content = {"password": self.password, "secret": self.secret, "token": self.token}
        _write_secret(self._path, json.dumps(content))


def _write_environment(path: Path, settings: Settings) -> None:
    lines = [f"export {key}={shlex.quote(value)}" for key, value in settings.environment().items()]
    _write_secret(path, "\n".join(lines) + "\n")


def _write_secret(path: Path, content: str) -> None:
    """Write a file that only this user can read."""

    def write(part: Path) -> None:
        part.touch(mode=0o600)
        part.write_text(content, "utf-8")

    write_atomically(path, write)


def _greet(demo: Demo, console: Console) -> None:
    secret = demo.settings.secret.get_secret_value() if demo.settings.secret else "none"
    url = f"{demo.settings.label_studio_url}/projects/{demo.query_project}/data?labeling=1"
    console.print(
        f"\n[bold]The first query waits at {url}[/bold]\n"
        f"Log in as {EMAIL} with the password {demo.password}\n"
        "Enter accepts; a class's key, then Enter, corrects; Space skips.\n"
        f"Rounds, figures and images: {demo.settings.backend} (user admin, password {secret})\n"
        f"For `alc` commands in another shell: . {demo.settings.data_dir / ENVIRONMENT}\n",
        soft_wrap=True,  # addresses and passwords stay whole
    )


def _label_studio_command(given: str | None) -> str:
    """The label-studio program: as given, in a virtual environment beside ours, on the path."""
    beside = Path(sys.prefix).parent / ".venv-label-studio" / "bin" / "label-studio"
    candidates = [given] if given else [str(beside), "label-studio"]
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    raise ServiceError(
        "Label Studio is not installed; run `make install`, or install it into an environment of "
        "its own and give --label-studio PATH"
    )


def _refuse_used_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"port {port} is in use; stop what listens there, or choose --port and "
                "--backend-port"
            ) from error


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
