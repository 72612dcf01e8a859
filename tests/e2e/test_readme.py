"""The README's four steps, run as they stand beside a Label Studio that is there already."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from sqlalchemy import select

from alc_backend.loop.rounds import status
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Query
from alc_backend.store.pages import Page
from alc_backend.store.round_states import RoundState
from tests.conftest import wait_for
from tests.docs.blocks import ROOT, shell_blocks
from tests.e2e.demonstration import IMAGES, is_up
from tests.ports import free_port

pytestmark = [pytest.mark.ls, pytest.mark.slow]


def test_connecting_an_existing_label_studio(running, tmp_path):
    demo, _ = running
    section = (ROOT / "README.md").read_text().split("## Connect an existing Label Studio")[1]
    page = tmp_path / "section.md"
    page.write_text(section.split("\n## ")[0])
    settings, serve, init, start = shell_blocks(page)
    export = re.search(r"`(\S*alc export \w+)`", section)[1]

    token = demo.settings.label_studio_api_key.get_secret_value()
    port = free_port()
    for placeholder, value in {
        "http://labels.example.com:8080": demo.settings.label_studio_url,
        "LABEL_STUDIO_API_KEY=…": f"LABEL_STUDIO_API_KEY={token}",
        "ALC_SECRET=…": "ALC_SECRET=a-password-of-ours",
        "http://backend.example.com:9090": f"http://127.0.0.1:{port}",
    }.items():
        assert placeholder in settings
        settings = settings.replace(placeholder, value)
    init = init.replace("FOLDER", str(demo.settings.data_dir / "sample/train"))

    (tmp_path / ".venv").symlink_to(sys.prefix)
    small = {
        "ALC_PRESET": "sample",
        "ALC_ITERATIONS": "10",
        "ALC_INPUT_SIZE": "64",
        "ALC_BATCH_SIZE": "4",
        "ALC_ROUND_SIZE": "30",
        "ALC_PORT": str(port),
    }
    options = {"cwd": tmp_path, "env": {**os.environ, **small}, "text": True}

    def shell(block: str) -> str:
        script = f"set -eu\n{settings}\n{block}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=300, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with (tmp_path / "log").open("w") as log:
        service = subprocess.Popen(
            ["bash", "-c", f"{settings}\nexec {serve}"], stdout=log, stderr=log, **options
        )
    try:
        wait_for(lambda: is_up(f"http://127.0.0.1:{port}/health"))
        said = shell(init)
        assert "Label All Tasks" in said
        assert "0 problems" in shell(start)
        shell(export)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    store = Store(demo.settings.model_copy(update={"data_dir": tmp_path / "alc-data"}))
    with store.reading() as session:
        project = session.scalars(select(Project)).one()
        asked = session.scalars(select(Query)).all()
        pages = session.scalars(select(Page)).all()
    assert status.latest_round(store, project.id).state == RoundState.OPEN
    tasks = list(demo.client.tasks(project.query_project))
    assert len(asked) >= 30  # the batch, and what the first plan asks beside it
    assert len(tasks) == len(asked) + len(pages)
    assert len(list((tmp_path / "repaired/labels").glob("*.png"))) == IMAGES
    store.close()
