from __future__ import annotations

import gc
import os
import shutil
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from alc_backend.labelstudio import json_answers
from alc_backend.service.jobs.processes import Processes, start_redis
from alc_backend.service.jobs.queues import connect
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from tests import compiled_sql
from tests.postgres import PostgresServer

hypothesis_settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("tests")

compiled_sql.share()

gc.disable()  # until all tests are collected: nothing that importing makes is garbage


def pytest_collection_finish():
    """Collect garbage from now on, but do not search the imported modules for it, again and again.

    That took a seventh of the tests' processor time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


pytest_plugins = ["tests.fuzz.report"]

CLASSES = ["background", "cat", "dog"]

OURS = ("DATABASE_URL", "REDIS_URL", "PYTHONSAFEPATH")
"""Variables that are settings, and the one that `alc`, run in the tests' process, leaves behind."""


def wait_for(condition, limit_s=120):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found


DEMONSTRATION = "tests/e2e/"
"""The tests below this folder share one running demonstration, all but those of ALONE."""

ALONE = tuple(f"tests/e2e/test_{name}.py" for name in ("chaos", "pages_loop", "shapes"))
"""These have a Label Studio of their own."""

LONG = tuple(
    f"tests/{name}.py"
    for name in (
        "foundation/test_models",
        "loop/annotations/test_webhooks",
        "loop/rounds/test_nodes",
        "loop/rounds/test_training",
        "segmentation/test_train",
        "service/jobs/test_dask",
        "service/jobs/test_worker",
        "service/web/test_admin_screen",
        "store/test_upkeep",
    )
)
"""These take half a minute and more: at the end, the other processes would wait for one of them."""


def pytest_collection_modifyitems(items):
    """Begin with what takes longest: the demonstration, what has a Label Studio of its own, LONG.

    The fuzzers come between: while they run, the first run of all on a machine makes Label
    Studio's database, which the tests with a Label Studio of their own copy after that.
    """
    items.sort(key=_turn)


def _turn(item) -> int:
    if _together(item.nodeid) == DEMONSTRATION:
        return 0
    if item.path.parent.name == "fuzz":
        return 1
    if item.get_closest_marker("ls"):
        return 2
    return 3 if _together(item.nodeid) in LONG else 4


def _together(nodeid: str) -> str:
    """What one process runs as a whole: a file, or all that use the demonstration."""
    file = nodeid.partition("::")[0]
    shared = file.startswith(DEMONSTRATION) and file not in ALONE
    return DEMONSTRATION if shared else file


class _WholeFiles(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of the processes of ``-n``, one runs all that belongs together."""
    return _WholeFiles(config, log)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    """Tests see no setting of the person who runs them."""
    for name in list(os.environ):
        if name.startswith(("ALC_", "CVAT_", "LABEL_STUDIO_")) or name in OURS:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


BOTH_DATABASES = pytest.mark.both_databases
"""For tests, or a file of tests, whose subject is SQL; all others run on SQLite alone."""


def pytest_generate_tests(metafunc):
    """Run what is marked ``BOTH_DATABASES`` and uses a database on SQLite and on PostgreSQL."""
    marked = metafunc.definition.get_closest_marker(BOTH_DATABASES.name)
    if marked and "database_url" in metafunc.fixturenames:
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request) -> str | None:
    """SQLite; PostgreSQL too for tests marked ``BOTH_DATABASES``; each has an empty one."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    server = request.getfixturevalue("postgres")
    template = "template0"
    if "database" in request.fixturenames:
        template = request.getfixturevalue("new_postgres_database")
    name = f"t{uuid.uuid4().hex}"
    yield server.create_database(name, template)
    server.drop_database(name)


@pytest.fixture
def settings(tmp_path, database_url) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        secret="s3cret",
        preset="sample",
        questions="single",
        _env_file=None,
    )


@pytest.fixture(scope="session")
def new_database(tmp_path_factory) -> Path:
    """A SQLite database as this version makes it; copying it is quicker than making another."""
    folder = tmp_path_factory.mktemp("new")
    Store(Settings(data_dir=folder, database_url=None, _env_file=None)).close()
    return folder / "alc.sqlite"


@pytest.fixture(scope="session")
def new_postgres_database(postgres, tmp_path_factory) -> str:
    """The name of a PostgreSQL database as this version makes it, to be copied."""
    name = "new"
    url = postgres.create_database(name)
    folder = tmp_path_factory.mktemp("new_postgres")
    Store(Settings(data_dir=folder, database_url=url, _env_file=None)).close()
    return name


@pytest.fixture
def database(settings, new_database) -> None:
    """The test's database has its tables already."""
    if settings.database_url is None and not (settings.data_dir / new_database.name).exists():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copy(new_database, settings.data_dir)


@pytest.fixture
def store(settings, database):
    opened = Store(settings)
    yield opened
    opened.close()


def write_dataset(root: Path, names=("a", "b", "c"), height: int = 48, width: int = 64) -> Path:
    """A dataset folder: each image has a cat (superpixel 1) and a dog called cat (2)."""
    for folder in ("images", "pseudo_labels", "objects", "ground_truth"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    rng = np.random.default_rng(0)
    for name in names:
        truth = np.zeros((height, width), dtype=np.uint8)
        truth[8:24, 8:24], truth[24:40, 32:56] = 1, 2
        colours = np.array([[90, 120, 80], [200, 60, 50], [50, 70, 200]])
        image = np.clip(colours[truth] + rng.normal(0, 12, (height, width, 3)), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray((truth > 0).astype(np.uint8)).save(root / "pseudo_labels" / f"{name}.png")
        Image.fromarray(truth).save(root / "objects" / f"{name}.png")
        Image.fromarray(truth).save(root / "ground_truth" / f"{name}.png")
    return root


@pytest.fixture
def dataset(tmp_path) -> Path:
    return write_dataset(tmp_path / "dataset")


@pytest.fixture
def redis(settings, tmp_path):
    """A private Redis for the test's data folder."""
    with Processes(tmp_path / "logs") as processes:
        start_redis(processes, settings)
        yield connect(settings)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio's answers are read up to 20 kB: not one with a task that the fake spoils."""
    monkeypatch.setattr(json_answers, "MAX_BYTES", 20_000)
