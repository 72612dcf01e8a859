"""What `alc demo` does from start to end."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import replace

from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import EMAIL
from alc_backend.cli.demo.rounds import ensure_open_round, walk_rounds, write_records
from alc_backend.cli.demo.start import ENVIRONMENT, Demo, start_demo
from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import CancelledError, DatasetError, SettingsError
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import ENV_FILE, Settings
from alc_backend.simulate.oracle import ORACLES


def run_demo(options: DemoOptions, settings: Settings, console: Console) -> None:
    """Start everything, run the rounds that were asked for, and stay until Ctrl-C or ``--exit``."""
    options = _checked(options)
    with Processes(options.data_dir / "logs") as processes:
        demo = start_demo(options, settings, processes, console)
        try:
            run_rounds(demo, options, processes, console)
            if not options.stop:
                console.print("Press Ctrl-C to stop everything.")
                _stay(processes)
                console.print("Stopping everything …")
        finally:
            demo.client.close()
            demo.store.close()


def run_rounds(demo: Demo, options: DemoOptions, processes: Processes, console: Console) -> None:
    """Open the first round, greet, go through the others, and write the records of all.

    They end when somebody cancels one, which is told. Raises CancelledError then if ``--exit``
    leaves nobody to start it again.
    """
    cancelled: CancelledError | None = None
    try:
        batch = math.ceil(options.auto / options.rounds) if options.auto else None
        ensure_open_round(demo, processes, console, batch)
    except CancelledError as error:
        cancelled = error
    _greet(demo, console, is_open=cancelled is None)
    if options.auto and cancelled is None:
        try:
            walk_rounds(demo, options, processes, console)
        except CancelledError as error:
            cancelled = error
    if options.json_file is not None:
        write_records(demo, options.json_file)
    if cancelled is not None:
        if options.stop:
            raise cancelled
        console.print(f"{cancelled}: press Start round at {demo.settings.backend}", soft_wrap=True)


def _stay(processes: Processes) -> None:
    """Keep the processes running until Ctrl-C."""
    try:
        while True:
            processes.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def _checked(options: DemoOptions) -> DemoOptions:
    """The options, completed; SettingsError or DatasetError for what cannot work."""
    if options.oracle not in ORACLES:
        raise SettingsError(f"--oracle must be one of {', '.join(ORACLES)}, not {options.oracle!r}")
    if options.val is None and options.data is not None and options.data.absolute().name == "train":
        beside = options.data.absolute().parent / "val"
        options = replace(options, val=beside if beside.is_dir() else None)
    if options.data is not None:
        folder = open_dataset(options.data)
        if options.auto and not (folder.root / "ground_truth").is_dir():
            raise DatasetError(
                f"{folder.root}: has no ground_truth/, from which --auto takes its answers; leave "
                "--auto out and answer yourself"
            )
    if options.val is not None:
        open_dataset(options.val, validation=True)
    if options.json_file is not None and not options.json_file.absolute().parent.is_dir():
        raise SettingsError(f"--json {options.json_file}: its folder does not exist")
    return replace(options, rounds=min(options.rounds, max(options.auto, 1)))


def _greet(demo: Demo, console: Console, *, is_open: bool) -> None:
    secret = demo.settings.secret.get_secret_value() if demo.settings.secret else "none"
    environment = shlex.quote(str(demo.settings.data_dir / ENVIRONMENT))
    url = f"{demo.settings.label_studio_url}/projects/{demo.query_project}/data?labeling=1"
    console.print(
        f"\n[bold]The first query {'waits' if is_open else 'will wait'} at {url}[/bold]\n"
        f"Log in as {EMAIL} with the password {demo.password}\n"
        "Enter accepts; a class's key, then Enter, corrects; Space skips.\n"
        f"Rounds, figures and images: {demo.settings.backend} (user admin, password {secret})\n"
        f"For `alc` commands in another shell: export {ENV_FILE}={environment}\n",
        soft_wrap=True,  # addresses and passwords stay whole
    )
