from __future__ import annotations

import socket

import pytest
from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import migrated, start_label_studio
from alc_backend.cli.demo.run import run_demo
from alc_backend.errors import ServiceError
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings
from tests.ports import free_port


@pytest.mark.parametrize("taken_by", ["port", "backend_port"])
def test_the_demo_refuses_a_port_in_use(tmp_path, taken_by):
    ports = {"port": free_port(), "backend_port": free_port()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports[taken_by] = taken.getsockname()[1]
        options = DemoOptions(data_dir=tmp_path, **ports)
        with pytest.raises(ServiceError, match=f"port {ports[taken_by]} is in use"):
            run_demo(options, Settings(_env_file=None), Console(quiet=True))


def test_label_studio_begins_with_the_migrated_data_but_not_with_their_secrets(tmp_path):
    program = tmp_path / "venv/bin/label-studio"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    (tmp_path / "venv/lib/python3/site-packages/label_studio-9.8.dist-info").mkdir(parents=True)
    kept = migrated(program)
    assert kept == tmp_path / "venv/.migrated/label_studio-9.8"
    kept.mkdir(parents=True)
    (kept / "label_studio.sqlite3").write_text("migrated")
    (kept / ".env").write_text("SECRET_KEY=1")
    options = DemoOptions(data_dir=tmp_path / "demo", label_studio=str(program))
    database = tmp_path / "demo/label-studio/label_studio.sqlite3"
    for found in ("migrated", "in use"):
        with Processes(tmp_path / "logs") as processes:
            start_label_studio(processes, options, "password")
        assert database.read_text() == found
        assert not database.with_name(".env").exists()
        database.write_text("in use")
