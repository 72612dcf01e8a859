"""A cluster under Dask in place of a worker: real processes, a real scheduler, a real Redis."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from sqlalchemy import select, update

from alc_backend.errors import SettingsError
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.loop.projects import image_queue
from alc_backend.loop.rounds import executor, lifecycle, plan, status
from alc_backend.service.jobs import counters, dask_cluster, dask_work, functions
from alc_backend.service.jobs.dask_cluster import Cluster
from alc_backend.service.jobs.processes import Processes
from alc_backend.service.jobs.queues import Jobs, QueueName, queue_of
from alc_backend.service.jobs.worker import run_worker
from alc_backend.settings import Settings
from alc_backend.store.importing import create_project, import_folder
from alc_backend.store.models import Image, Part, Project, Score, Superpixel
from alc_backend.store.round_states import RoundState, Step
from tests.command_line import alc
from tests.conftest import CLASSES, wait_for, write_dataset
from tests.fake_label_studio import DATASET_PROJECT, FakeLabelStudio
from tests.ports import free_port
from tests.service.jobs import fake_network

IMAGES, SHARD = 12, 4
"""Three shards, and a part that measures the network, which here is nothing to do."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """One data folder for all of these tests, and so for one cluster."""
    return Settings(
        data_dir=tmp_path_factory.mktemp("dask") / "data",
        database_url=None,
        preset="sample",
        questions="single",
        _env_file=None,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    names = [f"p{number:03d}" for number in range(IMAGES)]
    return write_dataset(tmp_path_factory.mktemp("images") / "many", names=names)


@pytest.fixture
def steps(monkeypatch):
    """What this process does; its network is the made-up one, too."""
    monkeypatch.setattr(executor, "STEPS", dict(executor.STEPS))
    monkeypatch.setattr(plan, "SHARD_IMAGES", SHARD)
    fake_network.use()
    return executor.STEPS


@pytest.fixture
def project(store, images, steps, request):
    return import_folder(store, images, request.node.name).project_id


def local_cluster(**options):
    distributed = pytest.importorskip("distributed")
    return distributed.LocalCluster(
        n_workers=options.pop("n_workers", 1),
        threads_per_worker=1,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        **options,
    )


@pytest.fixture(scope="module")
def processes(settings):
    """The scheduler's address of a cluster of two processes."""
    environment = {**settings.environment(), "OMP_NUM_THREADS": "1"}
    preload = ["tests.service.jobs.fake_network"]
    with local_cluster(n_workers=2, env=environment, preload=preload) as cluster:
        yield cluster


@pytest.fixture
def threads(monkeypatch):
    """The same with one process, this one, which keeps its log."""
    monkeypatch.setattr(dask_work, "_begin", lambda: None)
    monkeypatch.setattr(dask_work, "PAUSE_S", 0.0)
    with local_cluster(processes=False, protocol="tcp://", host="127.0.0.1") as cluster:
        yield cluster.scheduler_address


def begin(store, project) -> list[Part]:
    """Start a round; the parts of its scoring, which are to be done."""
    queue: list[Part] = []
    lifecycle.start(store, queue.append, project)
    while status.latest_round(store, project).state != RoundState.SCORING:
        executor.run_part(store, queue.append, queue.pop(0).id)
    return queue


def scores(store, project) -> list[tuple[object, ...]]:
    """Everything that was written about each superpixel of the last round."""
    number = status.latest_round(store, project).id
    columns = (Score.score, Score.row, Score.col, Score.pseudo_label, Score.dominant, Score.likely)
    with store.reading() as session:
        found = session.execute(
            select(Image.key, Superpixel.number, *columns)
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == number)
            .order_by(Image.key, Superpixel.number)
        )
        return [tuple(row) for row in found]


def claims(store, project) -> list[int]:
    number = status.latest_round(store, project).id
    with store.reading() as session:
        found = select(Part).where(Part.round_id == number, Part.step == Step.SCORING)
        return [part.claims for part in session.scalars(found.order_by(Part.number))]


def claimed(store, project) -> list[str]:
    """Who has shards of the round now."""
    number = status.latest_round(store, project).id
    with store.reading() as session:
        found = select(Part.claimed_by).where(Part.round_id == number, Part.total > 0)
        return [name for name in session.scalars(found) if name is not None]


@contextmanager
def meanwhile(act):
    """Something that happens beside what this process does, and has happened at the end."""
    failed: list[BaseException] = []

    def run():
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert not failed, failed


def not_here(store, part, report):
    raise AssertionError("the cluster was to do this")


def test_two_processes_write_the_scores_that_our_own_worker_writes(
    store, here, redis, images, project, steps, processes
):
    own = import_folder(store, images, "own").project_id
    queue = begin(store, own)
    while status.latest_round(store, own).state == RoundState.SCORING:
        executor.run_part(store, queue.append, queue.pop(0).id)
    jobs = Jobs(here, redis)
    for part in begin(store, project):
        jobs.enqueue_part(part)
    steps[Step.SCORING] = not_here
    before = {count.queue: count.done for count in counters.read(redis)}
    run_worker(here, ["score"], burst=True, cluster=Cluster(here, processes.scheduler_address))
    assert status.latest_round(store, project).state == RoundState.PUBLISHING
    assert claims(store, project) == [1, 1, 1, 1]
    found = scores(store, project)
    assert found == scores(store, own)
    assert len(found) == 2 * IMAGES
    round_ = status.latest_round(store, project)
    assert f"round-{round_.id}-publishing-0" in queue_of("publish", redis).job_ids
    done = {count.queue: count.done for count in counters.read(redis)}
    assert done[QueueName.SCORE] - before[QueueName.SCORE] == 4


def test_a_killed_process_of_the_cluster_loses_nothing(
    store, here, redis, project, steps, processes
):
    steps[Step.SCORING] = not_here
    for part in begin(store, project):
        Jobs(here, redis).enqueue_part(part)
    fake_network.held(project).touch()

    def kill():
        (name, *_) = wait_for(lambda: claimed(store, project))
        os.kill(int(name.split("|")[1]), signal.SIGKILL)
        fake_network.held(project).unlink()

    with meanwhile(kill):
        run_worker(here, ["score"], burst=True, cluster=Cluster(here, processes.scheduler_address))
    wait_for(lambda: _goes_on(store, here, project, processes))
    assert sum(claims(store, project)) > 4
    assert len(scores(store, project)) == 2 * IMAGES


def _goes_on(store, here, project, processes) -> bool:
    """Let the cluster do what is left; whether nothing is."""
    if status.latest_round(store, project).state == RoundState.SCORING:
        run_worker(here, ["score"], burst=True, cluster=Cluster(here, processes.scheduler_address))
    return status.latest_round(store, project).state == RoundState.PUBLISHING


def test_a_round_is_cancelled_in_the_middle(store, here, redis, project, steps, processes):
    steps[Step.SCORING] = not_here
    for part in begin(store, project):
        Jobs(here, redis).enqueue_part(part)
    fake_network.held(project).touch()

    def cancel():
        wait_for(lambda: claimed(store, project))
        lifecycle.cancel(store, project)
        fake_network.held(project).unlink()

    with meanwhile(cancel):
        run_worker(here, ["score"], burst=True, cluster=Cluster(here, processes.scheduler_address))
    assert status.latest_round(store, project).state == RoundState.CANCELLED
    assert len(scores(store, project)) < 2 * IMAGES


def test_what_runs_when_the_worker_is_told_to_stop_is_finished(
    store, here, redis, project, processes, tmp_path
):
    for part in begin(store, project):
        Jobs(here, redis).enqueue_part(part)
    fake_network.held(project).touch()
    address = processes.scheduler_address
    command = [sys.executable, "-m", "alc_backend.cli", "worker", "--queues", "score"]
    with Processes(tmp_path / "workers") as ours:
        ours.start("worker", [*command, "--dask", address], environment=here.environment())
        wait_for(lambda: len(claimed(store, project)) == 2)
        worker = psutil.Process(ours.pid_of("worker"))
        worker.terminate()
        wait_for(lambda: worker.status() == psutil.STATUS_ZOMBIE)
        said = ours.log_of("worker").read_text()
    begun = claimed(store, project)
    fake_network.held(project).unlink()
    assert "Traceback" not in said
    assert len(begun) == 2
    wait_for(lambda: not claimed(store, project))
    assert sorted(claims(store, project)[1:]) == [0, 1, 1]  # the third was not begun
    assert scores(store, project)


def test_first_label_maps_are_made_by_the_cluster(store, here, redis, threads, monkeypatch):
    label_studio = FakeLabelStudio()
    label_studio.serve(monkeypatch)
    tags = "".join(f'<Label value="{name}"/>' for name in CLASSES)
    label_studio.projects[DATASET_PROJECT]["label_config"] = (
        '<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image">'
        f"{tags}</BrushLabels></View>"
    )
    superpixels = np.zeros((48, 64), dtype=np.int32)
    superpixels[5:15, 5:20] = 1
    regions = mask_regions((superpixels * 2).astype(np.uint8), superpixels, CLASSES)
    content = sorted((write_dataset(here.data_dir / "three") / "images").iterdir())
    for number, path in enumerate(content, start=1):
        url = f"/data/upload/{number}.png"
        label_studio.files[url] = path.read_bytes()
        shown = [{"result": regions, "created_at": "2026-01-01T00:00:00Z"}]
        label_studio.add_task(number, {"image": url}, DATASET_PROJECT, predictions=shown)
    project = create_project(store, "arriving", CLASSES)
    with store.session() as session:
        session.get_one(Project, project).dataset_project = DATASET_PROJECT
    image_queue.note(store, label_studio.client(), project)
    functions.enqueue_images(Jobs(here, redis))
    monkeypatch.setattr(functions, "label_images", not_here)
    run_worker(here, ["pseudo"], burst=True, cluster=Cluster(here, threads))
    assert image_queue.waiting(store, project).left == 0
    assert image_queue.count(store, project).images == 3


def test_another_version_is_told_and_nothing_is_lost(
    store, here, redis, project, threads, caplog, monkeypatch
):
    (part, *_) = begin(store, project)
    Jobs(here, redis).enqueue_part(part)
    monkeypatch.setattr(dask_cluster, "__version__", "99.0")
    monkeypatch.setattr("alc_backend.service.jobs.worker.executor.recover", lambda *_: 0)
    run_worker(here, ["score"], burst=True, cluster=Cluster(here, threads))
    assert f"alc-part-{part.id} is still to be done" in caplog.text
    assert "`alc worker` has 99.0; install the same one on both" in caplog.text
    assert claims(store, project) == [0, 0, 0, 0]
    assert status.latest_round(store, project).state == RoundState.SCORING


def test_a_process_without_this_package_is_told(
    store, here, redis, project, threads, caplog, monkeypatch
):
    def unpickled(*_):
        raise ModuleNotFoundError("No module named 'alc_backend'")

    (part, *_) = begin(store, project)
    Jobs(here, redis).enqueue_part(part)
    monkeypatch.setattr(dask_cluster, "work", unpickled)
    monkeypatch.setattr("alc_backend.service.jobs.worker.executor.recover", lambda *_: 0)
    run_worker(here, ["score"], burst=True, cluster=Cluster(here, threads))
    assert f"alc-part-{part.id} is still to be done" in caplog.text
    assert "No module named 'alc_backend'" in caplog.text
    assert "each of which needs alc-backend" in caplog.text
    assert claims(store, project) == [0, 0, 0, 0]


def test_a_scheduler_that_is_away_is_waited_for(store, here, redis, project, caplog, monkeypatch):
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 0.2)
    monkeypatch.setattr(dask_work, "_begin", lambda: None)
    for part in begin(store, project):
        Jobs(here, redis).enqueue_part(part)
    port, started = free_port(), []

    def start():
        wait_for(lambda: f"no Dask scheduler answers at tcp://127.0.0.1:{port}" in caplog.text)
        started.append(
            local_cluster(
                n_workers=0,
                processes=False,
                protocol="tcp://",
                host="127.0.0.1",
                scheduler_port=port,
            )
        )
        wait_for(lambda: "has no workers, waiting for one" in caplog.text)
        started[0].scale(1)

    pytest.importorskip("distributed")
    with meanwhile(start):
        run_worker(here, ["score"], burst=True, cluster=Cluster(here, f"tcp://127.0.0.1:{port}"))
    started[0].close()
    assert status.latest_round(store, project).state == RoundState.PUBLISHING


def test_a_scheduler_that_is_silent_is_not_hung_on(here, redis, caplog, monkeypatch):
    pytest.importorskip("distributed")
    port = free_port()
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1.0)
    cluster = Cluster(here, f"tcp://127.0.0.1:{port}")
    command = "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)
    scheduler = subprocess.Popen([sys.executable, "-m", *command, "--no-dashboard"])
    try:
        wait_for(lambda: cluster._threads() == 0 and "has no workers" in caplog.text)
        caplog.clear()
        scheduler.send_signal(signal.SIGSTOP)
        assert cluster._threads() == 0
        assert "no Dask scheduler answers" in caplog.text
    finally:
        scheduler.kill()
        scheduler.wait()
        cluster.close()


@pytest.fixture
def asked(store, here, project, monkeypatch):
    """A part of a round's scoring, and what the worker that hands it over says of its project."""
    monkeypatch.setattr(dask_work, "PAUSE_S", 0.0)
    monkeypatch.setattr(dask_work.logs, "configure", lambda settings: None)
    monkeypatch.setattr(dask_work, "_watch", lambda: None)
    dask_work._begin.cache_clear()
    (part, *_) = begin(store, project)
    with store.reading() as session:
        mark = dask_work.mark_of(session.get_one(Project, project))
    store.storage.write(mark, b"shared")
    yield part, mark
    dask_work._begin.cache_clear()


def ask(asked, **other) -> str | None:
    part, mark = asked
    given = {"row_id": part.id, "project_id": part.round.project_id, "mark": mark, **other}
    return dask_work.work("part", version=dask_work.__version__, **given)["problem"]


def test_a_process_without_settings_is_told_to_have_some(store, here, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("ALC_DATA_DIR", str(tmp_path / "nowhere"))
    dask_work.settings.cache_clear()
    assert "it has no database; give it the settings of `alc worker`" in ask(asked)
    assert not (tmp_path / "nowhere").exists()
    monkeypatch.setenv("ALC_DATA_DIR", str(here.data_dir))
    with monkeypatch.context() as wrong:
        wrong.setenv("ALC_PORT", "none")
        dask_work.settings.cache_clear()
        assert "ALC_PORT" in ask(asked)


def test_a_process_with_another_database_or_storage_begins_nothing(store, here, asked, project):
    other = "give it the DATABASE_URL of `alc worker`"
    assert other in ask(asked, project_id=10**6)
    with store.session() as session:
        session.execute(update(Project).values(created_at=image_queue.utc_now()))
    assert other in ask(asked)
    with store.reading() as session:
        mark = dask_work.mark_of(session.get_one(Project, project))
    assert "give it the same ALC_FILES_URL" in ask(asked, mark=mark)
    assert claims(store, project) == [0, 0, 0, 0]
    store.storage.write(mark, b"shared")
    assert ask(asked, mark=mark) is None
    assert claims(store, project) == [1, 0, 0, 0]


def test_an_error_comes_back_as_a_text_without_secrets(store, here, asked, steps, monkeypatch):
    def fail(store, part, report):
        raise ValueError("opening sesame-street")

    steps[Step.SCORING] = fail
    monkeypatch.setattr(Settings, "hidden", lambda settings: ["sesame-street"])
    problem = ask(asked)
    assert "ValueError: opening …; see its log" in problem


def test_what_is_sent_is_a_function_by_its_name():
    assert len(pickle.dumps(dask_work.work)) < 100


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["host:8786"], "give one such as tls://host:8786"),
        (["http://host:8786"], "give one such as tls://host:8786"),
        (["tcp://host:8786/x"], "give one such as tls://host:8786"),
        (["tcp://10.1.2.3:8786"], "use tls://, or add --dask-without-tls"),
        (["tls://host:8786"], "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"),
    ],
)
def test_an_address_of_no_use_is_refused(settings, given, told):
    if given[0].startswith("tls"):
        pytest.importorskip("distributed")
    done = alc(settings, "worker", "--dask", *given)
    assert done.returncode == 1
    assert told in " ".join(done.stderr.split())


def test_files_for_tls_that_are_not_there_are_told(settings, tmp_path):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    files = {"ca-file": "ca.pem", "client.cert": "cert.pem", "client.key": "key.pem"}
    named = {f"distributed.comm.tls.{name}": str(tmp_path / file) for name, file in files.items()}
    with dask.config.set(named), pytest.raises(SettingsError, match="cannot be used"):
        Cluster(settings, "tls://127.0.0.1:8786")


def test_the_extra_is_named_where_dask_is_missing(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingsError, match=r"pip install 'alc-backend\[dask\]'"):
        Cluster(settings, "tcp://127.0.0.1:8786")


def test_consent_without_a_cluster_is_refused(settings):
    done = alc(settings, "worker", "--dask-without-tls")
    assert done.returncode == 1
    assert "--dask ADDRESS" in done.stderr
