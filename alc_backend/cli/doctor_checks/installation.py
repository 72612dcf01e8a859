"""Checks of this machine: disk, database, storage, Redis, workers, service, GPU."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from redis import Redis
from redis.exceptions import RedisError

from alc_backend.cli.doctor_checks import other_servers
from alc_backend.cli.doctor_checks.finding import Check, Result, ok, problem, skipped, warning
from alc_backend.common.disk import existing, free_gib
from alc_backend.errors import SettingsError
from alc_backend.labelstudio import projects
from alc_backend.loop import leases
from alc_backend.service.jobs import worker_registry
from alc_backend.service.jobs.queues import QueueName, connect, queue_of
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.migrate import revisions
from alc_backend.store.storage import Storage

TIMEOUT_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHOWN = 3


class Installation:
    """Checks of everything that does not need Label Studio."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def checks(self) -> Iterator[Check]:
        """The checks, ordered so that a cause comes before its consequences."""
        yield Check("secret", self._secret)
        yield Check("addresses", self._addresses)
        yield Check("disk", self._disk)
        yield Check("database", self._database, self._migrate)
        yield Check("storage", self._storage)
        yield Check("redis", self._redis)
        yield Check("workers", self._workers)
        yield Check("failed jobs", self._failed_jobs)
        yield Check("service", self._service)
        yield Check("gpu", self._gpu)

    def is_migrated(self) -> bool:
        """Whether the database has the tables of this version, and so can be opened."""
        try:
            there, newest = revisions(self._settings)
        except SettingsError:
            return False
        return there == newest

    def _secret(self) -> Result:
        if self._settings.secret is None:
            return problem(
                "ALC_SECRET is not set: projects cannot be connected, and everyone who reaches "
                "the service could write answers",
                "choose a password and put it into the environment of every alc process",
            )
        if self._settings.secret_previous is not None:
            return warning(
                "ALC_SECRET_PREVIOUS is set: what was made of the secret before still opens the "
                "service to Label Studio",
                "run `alc secret rotate`, then remove it",
            )
        return ok("ALC_SECRET is set")

    def _addresses(self) -> Result:
        backend, label_studio = self._settings.backend, self._settings.label_studio_url
        ours, theirs = urlsplit(backend).hostname, urlsplit(label_studio).hostname
        if (host := projects.refused_host(backend)) is not None:
            return problem(projects.NO_WEBHOOK.format(host), projects.WITH_A_DOT)
        if ours in LOOPBACK and theirs not in LOOPBACK:
            return warning(
                f"Label Studio is at {theirs}, and would look for this backend on its own machine "
                f"({backend})",
                "where that is not the same machine, set ALC_BACKEND_URL to the address at which "
                "Label Studio reaches this backend (in containers, an alias with a dot, such as "
                "alc.internal)",
            )
        if ours in ("0.0.0.0", "::"):  # noqa: S104  # compared with, not listened on
            return problem(
                f"{backend} is not an address that can be reached",
                "set ALC_BACKEND_URL to the address at which Label Studio reaches this backend",
            )
        return ok(f"backend {backend}, Label Studio {label_studio}")

    def _disk(self) -> Result:
        folder = self._settings.data_dir.absolute()
        there = existing(folder)
        if not os.access(there, os.W_OK):
            return problem(
                f"{there} cannot be written to",
                "let this process's user write to it, or set ALC_DATA_DIR to another folder",
            )
        free = free_gib(folder)
        least = self._settings.min_free_gb
        if free < least:
            return problem(
                f"{free:.1f} GiB are free in {folder}, less than {least:g} (ALC_MIN_FREE_GB)",
                "make room: old networks lie in projects/*/rounds; or move ALC_DATA_DIR to a "
                "larger disk",
            )
        return ok(f"{free:.0f} GiB free in {folder}")

    def _database(self) -> Result:
        there, newest = revisions(self._settings)
        if there == newest:
            return ok(f"the tables are those of this version ({newest})")
        if there is None:
            return warning(
                "there are no tables yet",
                "`alc serve` or `alc init` makes them; are ALC_DATA_DIR and DATABASE_URL those "
                "of the service?",
            )
        if there > newest:
            return problem(
                f"the tables are those of a newer version of alc-backend ({there}, this one "
                f"knows {newest})",
                "install the version that the database was last used with",
            )
        return problem(
            f"migrations are behind: the tables are those of {there}, this version needs {newest}",
            "`alc backup`, then `alc doctor --fix`, or start the service, which migrates",
        )

    def _migrate(self) -> None:
        Store(self._settings).close()

    def _storage(self) -> Result:
        storage = Storage(self._settings.files, self._settings.data_dir / "cache")
        name = f"doctor/{uuid.uuid4().hex}"
        storage.write(name, b"alc")
        try:
            if storage.read(name) != b"alc":
                return problem(
                    f"{storage.address} does not give back what was written",
                    "check ALC_FILES_URL",
                )
        finally:
            storage.delete(name)
        return ok(f"{storage.address} can be written and read")

    def _redis(self) -> Result:
        try:
            connect(self._settings).ping()
        except RedisError as error:
            if self._settings.redis_url is None:
                remedy = "start `alc serve`, which runs a private one, or set REDIS_URL"
            else:
                remedy = "start it, and check REDIS_URL; answers are kept meanwhile, rounds wait"
            return problem(f"no Redis answers ({error})", remedy)
        private = self._settings.redis_url is None
        return ok("the private one answers" if private else "it answers")

    def _workers(self) -> Result:
        try:
            redis = connect(self._settings)
            found = [worker for worker in worker_registry.workers(redis) if _lives(worker)]
            waiting = _waiting(redis)
        except RedisError:
            return skipped("without Redis, workers cannot be counted")
        served = {name for worker in found for name in worker.queues}
        idle = [name for name in QueueName if name not in served]
        if not found:
            return problem(
                f"no worker is there; jobs that wait: {waiting}",
                "start `alc worker` (`alc serve` starts one itself when REDIS_URL is not set)",
            )
        if idle:
            return problem(
                f"{len(found)} workers, none of them for {', '.join(idle)}",
                "start an `alc worker` without --queues, or one for these",
            )
        elsewhere = sorted({worker.host for worker in found if not leases.is_here(worker.process)})
        alone = self._kept_here()
        if elsewhere and alone:
            return warning(
                f"workers on {', '.join(elsewhere)} cannot see {' and '.join(alone)} of this "
                "machine, unless the folder is shared",
                "with workers on several machines, set DATABASE_URL (PostgreSQL) and ALC_FILES_URL",
            )
        return ok(f"{len(found)} at work; jobs that wait: {waiting}")

    def _kept_here(self) -> list[str]:
        """What lies in ALC_DATA_DIR, where workers on other machines do not see it."""
        return [
            name
            for name, is_here in (
                ("the database", self._settings.database.startswith("sqlite")),
                ("the files", self._settings.files_url is None),
            )
            if is_here
        ]

    def _failed_jobs(self) -> Result:
        try:
            redis = connect(self._settings)
            failed = [
                job
                for name in QueueName
                for job in queue_of(name.value, redis).failed_job_registry.get_job_ids()
            ]
        except RedisError:
            return skipped("without Redis, jobs cannot be counted")
        if failed:
            return warning(
                f"{len(failed)} in the last day, such as {', '.join(failed[:SHOWN])}",
                "the worker's log has the reason; what they were to do is taken up again",
            )
        return ok("none in the last day")

    def _service(self) -> Result:
        """Whether the service answers, where Label Studio calls it or else on this machine."""
        local = f"http://127.0.0.1:{self._settings.port}"
        reasons = []
        for address in dict.fromkeys((self._settings.backend, local)):
            try:
                with httpx.Client(base_url=address, timeout=TIMEOUT_S) as http:
                    up = http.get("/health")
                    if (server := other_servers.served_by(up)) is not None:
                        return warning(f"{address} is served by {server}", other_servers.REMEDY)
                    if up.status_code != 200 or "ALCModel" not in up.text:
                        reasons.append(f"{address} is another program")
                        continue
                    secret = self._settings.secret
                    password = secret.get_secret_value() if secret else ""
                    asked = http.get("/rounds", headers={"Authorization": f"Bearer {password}"})
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reasons.append(f"{address}: {error}")
                continue
            if asked.status_code in (401, 429):
                return problem(
                    f"the service at {address} has another ALC_SECRET",
                    "give the same one to every `alc` process, then run `alc doctor --fix`",
                )
            return ok(f"answers at {address}")
        return problem(f"the service does not answer ({'; '.join(reasons)})", "start `alc serve`")

    def _gpu(self) -> Result:
        import torch

        wanted = self._settings.preset not in ("cpu", "sample")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count:
            names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
            return ok(names)
        if Path("/dev/nvidia0").exists():
            report = problem if wanted else warning
            return report(
                "there is an NVIDIA device, but this PyTorch cannot use it "
                f"(version {torch.__version__})",
                "install a PyTorch for CUDA, and a driver new enough for it",
            )
        if wanted:
            return warning(
                f"there is none here, and ALC_PRESET={self._settings.preset} takes days without",
                "run `alc worker` on a machine with a GPU, or choose ALC_PRESET=cpu",
            )
        return ok("there is none here, and the preset needs none")


def _lives(worker: worker_registry.RegisteredWorker) -> bool:
    """Whether a worker is running; one of this machine is looked up among its processes."""
    return not leases.is_gone(worker.process)


def _waiting(redis: Redis) -> int:
    return sum(len(queue_of(name.value, redis)) for name in QueueName)
