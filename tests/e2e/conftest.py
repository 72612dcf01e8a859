from __future__ import annotations

import socket

import pytest
from rich.console import Console

from alc_backend.cli.demo.run import DemoOptions, start_demo
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """The demonstration, started as `alc demo` starts it, before its first round."""
    folder = tmp_path_factory.mktemp("loop")
    options = DemoOptions(data_dir=folder, port=free_port(), backend_port=free_port())
    settings = Settings(iterations=70, checkpoint_every=10, stale_after_s=20, _env_file=None)
    console = Console(file=(folder / "console.txt").open("w"))
    with Processes(folder / "logs") as processes:
        demo = start_demo(options, settings, processes, console)
        yield demo, processes
        demo.client.close()
        demo.store.close()
