from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import start_backend
from alc_backend.cli.demo.start import start_demo
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings
from alc_backend.simulate.sample import write_sample
from tests.e2e.demonstration import HELD_OUT, IMAGES
from tests.e2e.label_studio import copy_migrated
from tests.ports import free_port


@contextmanager
def demonstration(folder: Path, start=start_backend):
    """The demonstration, started as `alc demo` starts it, before its first round."""
    options = DemoOptions(data_dir=folder, port=free_port(), backend_port=free_port())
    settings = Settings(
        iterations=20,
        input_size=64,
        batch_size=4,
        round_size=40,
        checkpoint_every=3,
        stale_after_s=20,
        questions="single",
        seconds_page=0.1,  # pages come early: so small a network believes little
        seconds_tile=0.1,
        _env_file=None,
    )
    write_sample(folder / "sample", settings.seed, images=IMAGES, held_out=HELD_OUT)
    copy_migrated(options)
    with (folder / "console.txt").open("w") as told, Processes(folder / "logs") as processes:
        demo = start_demo(options, settings, processes, Console(file=told), start=start)
        yield demo, processes
        demo.client.close()
        demo.store.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """The demonstration that most tests here share."""
    with demonstration(tmp_path_factory.mktemp("loop")) as started:
        yield started


@pytest.fixture
def running_alone(tmp_path):
    """A demonstration of a test's own, before its first round."""
    with demonstration(tmp_path) as started:
        yield started
