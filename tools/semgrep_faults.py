"""Faults that semgrep must find, and their remedies, which it must leave; `make check` asks it."""
# ruff: noqa

import pickle
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import torch
from pydantic_settings import SettingsConfigDict
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer


def faults(settings, connection, archive, path, given):
    # ruleid: rq-without-json
    Queue("train", connection=connection)
    # ruleid: rq-without-json
    Job.fetch("train", connection=connection)
    # ruleid: rq-without-json
    SimpleWorker(["train"], connection=connection)
    # ok: rq-without-json
    Queue("train", connection=connection, job_class=Job, serializer=JSONSerializer)

    # ruleid: data-that-runs-code
    pickle.load(path.open("rb"))
    # ruleid: data-that-runs-code
    torch.load(path)
    # ok: data-that-runs-code
    torch.load(path, weights_only=True)
    # ruleid: data-that-runs-code
    np.load(path, allow_pickle=True)
    # ok: data-that-runs-code
    np.load(path)

    # ruleid: path-that-others-can-make
    Path(tempfile.gettempdir(), "alc")
    # ok: path-that-others-can-make
    tempfile.mkdtemp()

    # ruleid: settings-of-the-working-folder
    SettingsConfigDict(env_prefix="ALC_", env_file=".env")
    # ok: settings-of-the-working-folder
    SettingsConfigDict(env_prefix="ALC_")

    # ruleid: secret-compared-in-steps
    given == settings.secret.get_secret_value()

    # ruleid: archive-unpacked-whole
    archive.extractall(path)

    # ruleid: folder-that-others-can-enter
    settings.data_dir.mkdir(parents=True)

    # ruleid: address-that-is-not-checked
    urllib.request.urlopen(given)
