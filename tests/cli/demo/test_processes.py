from __future__ import annotations

import socket

import pytest
from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.run import run_demo
from alc_backend.errors import ServiceError
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
