from __future__ import annotations

import subprocess
import sys

import pytest
from rich.console import Console

from alc_backend.cli.common import telling
from alc_backend.cli.demo import run as demo_run
from alc_backend.errors import RoundError, ServiceError
from alc_backend.settings import Settings
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Round
from tests.annotations import round_config


@pytest.fixture
def database_url():
    """What the command line says does not depend on the database: one is enough."""


def alc(settings, *arguments):
    return alc_with(settings.environment(), settings, *arguments)


def alc_with(environment, settings, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "alc_backend.cli", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=settings.data_dir.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        (["init", "nowhere"], {"label_studio_api_key": "x"}, "nowhere"),
        (["init", "nowhere"], {}, "LABEL_STUDIO_API_KEY"),
        (["init"], {}, "--from-project"),
        (["init", "--from-project", "3", "--strict"], {}, "--strict"),
        (["init", "x"], {"label_studio_api_key": "x", "label_studio_url": "http://h:8a"}, "8a"),
        (["demo", "--data", "nowhere"], {}, "nowhere"),
        (["demo", "--json", "no/such/folder/x.json"], {}, "x.json"),
        (["init", "--from-project", "3"], {"label_studio_api_key": "x"}, "LABEL_STUDIO_URL"),
        (["round", "start"], {}, "alc init"),
        (["round", "cancel"], {}, "alc init"),
        (["round", "status", "--project", "cats"], {}, "'cats'"),
        (["export", "out"], {}, "alc init"),
        (["reconcile"], {}, "LABEL_STUDIO_API_KEY"),
        (["worker", "--queues", "trian"], {}, "'trian'"),
        (["worker", "--burst"], {"redis_url": "redis://127.0.0.1:1"}, "REDIS_URL"),
        (["serve"], {"host": "0.0.0.0", "secret": None}, "ALC_SECRET"),
        (["demo", "--oracle", "delphi"], {}, "delphi"),
        (["demo", "--label-studio", "/no/such/program"], {}, "make install"),
        (["round", "status"], {"database_url": "nonsense"}, "DATABASE_URL"),
    ],
)
def test_a_users_mistake_ends_in_one_sentence(settings, arguments, changes, named):
    settings.data_dir.mkdir(parents=True)
    changed = settings.model_copy(
        update={"label_studio_url": "http://127.0.0.1:1", "port": 1, **changes}
    )
    done = alc(changed, *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert named in " ".join(done.stderr.split())


def test_a_wrong_environment_variable_is_named(settings):
    settings.data_dir.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "alc_backend.cli", "round", "status"],
        env={"PATH": "/usr/bin:/bin", "ALC_EPSILON": "7"},
        cwd=settings.data_dir,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "epsilon" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_settings_survive_the_way_through_the_environment(monkeypatch, tmp_path):
    sent = Settings(
        data_dir=tmp_path,
        secret="s",
        label_studio_api_key="k",
        redis_url="redis://elsewhere",
        iterations=7,
        epsilon=0.5,
        _env_file=None,
    )
    for name, value in sent.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == sent


def test_secrets_are_not_shown(settings):
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.model_dump())


def test_the_demo_refuses_a_port_in_use(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = demo_run.DemoOptions(data_dir=tmp_path, port=taken.getsockname()[1])
        with pytest.raises(ServiceError, match="is in use"):
            demo_run.run_demo(options, Settings(_env_file=None), Console(quiet=True))


def test_waiting_for_a_failed_round_tells_why(store, dataset):
    project_id = import_folder(store, dataset, "pets").project_id
    with store.session() as session:
        session.add(
            Round(
                project_id=project_id,
                number=1,
                state="failed",
                config=round_config(),
                error="disk is full",
            )
        )
    with pytest.raises(RoundError, match="disk is full"):
        demo_run.wait_until_open(store, project_id, Console(quiet=True))


def test_names_that_look_like_markup_are_shown_as_they_are():
    console = Console(record=True, width=80, force_terminal=True)
    with console.status("") as status:
        telling(status)("importing: 3 (folder/[/x])")
        console.print(status.renderable)
    assert "folder/[/x]" in console.export_text()
