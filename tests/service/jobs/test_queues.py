"""What is in Redis is JSON and cannot make a worker call anything but its own functions."""

from __future__ import annotations

import json
import pickle

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from alc_backend.service.jobs.queues import Jobs, connect, is_up, job_of, queue_of
from alc_backend.service.jobs.worker import run_worker


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_jobs_are_json(settings, redis):
    assert Jobs(settings, redis).enqueue_import(7)
    stored = redis.hgetall("rq:job:import-7")
    assert pickle.PROTO not in (stored[b"data"][:1], stored[b"meta"][:1])
    assert job_of("import-7", redis).args == [7]
    assert json.loads(stored[b"meta"]) == {"request": None}


def test_a_pickle_in_redis_is_not_read(here, redis, tmp_path):
    planted = tmp_path / "planted"
    Queue("train", connection=redis).enqueue_call("builtins.print", args=(Bomb(planted),))
    run_worker(here, ["train"], burst=True)
    assert not planted.exists()


@pytest.mark.parametrize("function", ["os.mkdir", "alc_backend.common.private.make_private_folder"])
def test_a_worker_calls_no_function_but_its_own(here, redis, tmp_path, function):
    planted = tmp_path / "planted"
    job = Queue("train", connection=redis, serializer=JSONSerializer).enqueue_call(
        function, args=(str(planted),)
    )
    run_worker(here, ["train"], burst=True)
    assert not planted.exists()
    assert job_of(job.id, redis).get_status() == "failed"
    assert "names" in job_of(job.id, redis).latest_result().exc_string


def test_a_worker_calls_no_callback_of_a_job(here, redis, capfd):
    function = "alc_backend.service.jobs.functions.import_new"
    queue = Queue("train", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue_call(function, args=(10**6,))  # there is no such project: it fails
    redis.hset(job.key, "failure_callback_name", "builtins.print")
    run_worker(here, ["train"], burst=True)
    assert job_of(job.id, redis).get_status() == "failed"
    assert job.id not in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["success", "failure", "stopped"])
def test_callbacks_in_a_job_are_dropped(settings, redis, kind):
    Jobs(settings, redis).enqueue_import(7)
    redis.hset("rq:job:import-7", f"{kind}_callback_name", "builtins.print")
    theirs = Job.fetch("import-7", connection=redis, serializer=JSONSerializer)
    assert getattr(theirs, f"{kind}_callback") is print
    assert getattr(job_of("import-7", redis), f"{kind}_callback") is None


def test_web_addresses_in_a_job_are_dropped(settings, redis):
    Jobs(settings, redis).enqueue_import(7)
    hook = {"url": "http://127.0.0.1:1", "job_status": "failed", "method": "GET"}
    redis.hset("rq:job:import-7", "webhooks", json.dumps([{**hook, "headers": None, "timeout": 1}]))
    assert Job.fetch("import-7", connection=redis, serializer=JSONSerializer).webhooks
    assert job_of("import-7", redis).webhooks == []


def test_queues_count_each_others_jobs(settings, redis):
    Jobs(settings, redis).enqueue_import(7)
    assert len(queue_of("pseudo", redis)) == 1
    assert is_up(connect(settings))
