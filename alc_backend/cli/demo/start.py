"""Brings the demonstration up: Label Studio, the backend, and a dataset in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from alc_backend.cli.common import telling
from alc_backend.cli.demo.credentials import Keys, write_environment
from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import (
    EMAIL,
    refuse_used_port,
    start_backend,
    start_label_studio,
    wait_for_label_studio,
)
from alc_backend.errors import DatasetError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.projects import set_keys
from alc_backend.labelstudio.tokens import create_personal_token
from alc_backend.loop.projects import connection
from alc_backend.service.jobs.processes import Processes
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.settings import Settings
from alc_backend.simulate.sample import write_sample
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder

ENVIRONMENT = "environment"
"""The file in the demonstration's folder for ALC_ENV_FILE, which makes `alc` commands use it."""


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


def start_demo(
    options: DemoOptions,
    settings: Settings,
    processes: Processes,
    console: Console,
    *,
    start: Callable[[Processes, Settings], None] = start_backend,
) -> Demo:
    """Start Label Studio and the backend, and bring the dataset into both.

    ``start`` starts the backend, and waits until it answers.

    Raises ServiceError when a port is in use or a process does not start, DatasetError when no
    image can be imported.
    """
    for port in (options.port, options.backend_port):
        refuse_used_port(port)
    folder = options.data_dir.absolute()
    keys = Keys(folder / "secrets.json")
    url = f"http://127.0.0.1:{options.port}"
    console.print(f"Starting Label Studio at {url} (it takes about a minute) …")
    start_label_studio(processes, options, keys.password)
    early = Store(_settings(options, settings, keys, url))
    project_id = _import(early, options, console)  # meanwhile
    early.close()
    wait_for_label_studio(processes, options)
    if not keys.token:
        keys.remember_token(create_personal_token(url, EMAIL, keys.password))
    settings = _settings(options, settings, keys, url)
    write_environment(folder / ENVIRONMENT, settings)
    console.print(f"Starting the backend at {settings.backend} …")
    start(processes, settings)
    store = Store(settings)
    with console.status("connecting Label Studio") as status:
        client = Client.from_settings(settings)
        project = connection.connect_project(store, client, project_id, telling(status))
        set_keys(client)  # one key to accept, two to correct
    assert project.query_project is not None
    jobs = Jobs(settings, connect(settings))
    return Demo(settings, store, client, jobs, project.id, project.query_project, keys.password)


def _settings(options: DemoOptions, settings: Settings, keys: Keys, url: str) -> Settings:
    """The settings of the demonstration's processes: all its own, on the loopback address."""
    small = options.data is None and "preset" not in settings.model_fields_set
    return settings.model_copy(
        update={
            "data_dir": options.data_dir.absolute(),
            "label_studio_url": url,
            "label_studio_api_key": SecretStr(keys.token),
            "secret": SecretStr(keys.secret),
            "database_url": None,
            "redis_url": None,
            "host": "127.0.0.1",
            "port": options.backend_port,
            "backend_url": None,
            "preset": "sample" if small else settings.preset,
        }
    )


def _import(store: Store, options: DemoOptions, console: Console) -> int:
    """Import the dataset, or the built-in sample; the id of its project."""
    training: Path
    validation: Path | None
    if options.data is None:
        name = "ALC sample"
        training, validation = write_sample(store.settings.data_dir / "sample", store.settings.seed)
    else:
        name = f"ALC {_name_of(options.data)}"
        training, validation = options.data, options.val
    with console.status("importing images") as status:
        tell = telling(status)
        summary = import_folder(
            store,
            training,
            name,
            validation=validation,
            progress=lambda done, key: tell(f"importing images: {done} ({key})"),
        )
    if options.data is not None:
        summary.show(console)
    if not summary.imported + summary.present:
        raise DatasetError(f"{training}: no image could be imported")
    return summary.project_id


def _name_of(data: Path) -> str:
    """The name of a dataset's folder; of the one above for a folder called train."""
    folder = data.absolute()
    return folder.parent.name if folder.name == "train" else folder.name
