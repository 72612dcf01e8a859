"""The ``alc`` command as a whole: a mistake of the user ends in one sentence."""

from __future__ import annotations

import pytest

from tests.command_line import alc, alc_program, alc_with
from tests.ports import free_port

NODE_1 = ("--nodes", "2", "--node", "1", "--meeting", "127.0.0.1:29500")


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        (["init", "nowhere"], {"label_studio_api_key": "x"}, "nowhere"),
        (["init", "nowhere"], {}, "LABEL_STUDIO_API_KEY"),
        (["init"], {}, "--from-project"),
        (["init", "x", "--name", " "], {}, "--name"),
        (["init", "/"], {}, "--name"),
        (["init", "x\udcff"], {}, "--name"),
        (["init", "--from-project", "3", "--strict"], {}, "--strict"),
        (["init", "x"], {"label_studio_api_key": "x", "label_studio_url": "http://h:8a"}, "8a"),
        (["demo", "--data", "nowhere"], {}, "nowhere"),
        (["demo", "--json", "no/such/folder/x.json"], {}, "x.json"),
        (["init", "--from-project", "3"], {"label_studio_api_key": "x"}, "LABEL_STUDIO_URL"),
        (["round", "start"], {}, "alc init"),
        (["round", "cancel"], {}, "alc init"),
        (["round", "status", "--project", "cats"], {}, "'cats'"),
        (["export", "out"], {}, "alc init"),
        (["reconcile"], {}, "alc init"),
        (["worker", "--queues", "trian"], {}, "'trian'"),
        (["worker", "--nodes", "2"], {}, "--meeting HOST:PORT"),
        (["worker", "--nodes", "2", "--node", "2", "--meeting", "h:1"], {}, "from 0 to 1"),
        (["worker", "--nodes", "2", "--meeting", "29500"], {}, "'29500'"),
        (["worker", "--nodes", "2", "--meeting", "192.0.2.1:29500"], {}, "192.0.2.1:29500"),
        (["worker", *NODE_1, "--burst"], {}, "--burst"),
        (["worker", *NODE_1, "--queues", "score"], {}, "--queues"),
        (["worker", "--nodes", "2", "--meeting", "h:1", "--queues", "score"], {}, "queue train"),
        (["worker", *NODE_1], {"database_url": "nonsense"}, "DATABASE_URL"),
        (["worker", *NODE_1], {}, "no database"),
        (["worker", "--burst"], {"redis_url": "redis://127.0.0.1:1"}, "REDIS_URL"),
        (["serve"], {"host": "0.0.0.0", "secret": None}, "ALC_SECRET"),
        (["demo", "--oracle", "delphi"], {}, "delphi"),
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


def test_a_demonstration_without_label_studio_says_how_to_install_it(settings):
    settings.data_dir.mkdir(parents=True)
    ports = ["--port", str(free_port()), "--backend-port", str(free_port())]
    done = alc(settings, "demo", "--label-studio", "/no/such/program", *ports)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "make install" in " ".join(done.stderr.split())


def test_the_program_ends_as_its_main_function_does(settings):
    settings.data_dir.mkdir(parents=True)
    done = alc_program(settings.environment(), settings.data_dir, "round", "cancel")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no project yet")
    assert alc_program({}, settings.data_dir, "version").returncode == 0


def test_a_wrong_environment_variable_is_named(settings):
    settings.data_dir.mkdir(parents=True)
    done = alc_with({"ALC_EPSILON": "7"}, settings.data_dir, "round", "status")
    assert done.returncode == 1
    assert "epsilon" in done.stderr.lower()
    assert "Traceback" not in done.stderr
