"""`/metrics` for Prometheus: requests, jobs, workers, and the state of all projects."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alc_backend.common.version import __version__
from alc_backend.errors import AlcError
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.overview import Overview, Overviews
from alc_backend.service.jobs import counters, worker_registry
from alc_backend.service.jobs.queues import QueueName, queue_of
from alc_backend.store.database import Store
from alc_backend.store.round_states import RoundState

REQUESTS = Counter("alc_http_requests", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "alc_http_request_seconds",
    "Time to answer a request",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0),
)
"""Label Studio waits 1 s for a webhook, 3 s for /setup and 100 s for /predict."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""The label of every method and route that is not this service's."""


class Requests:
    """ASGI middleware that counts requests, and the time they take, by route.

    Every label is from a closed set, because each new one stays in memory: methods are those of
    ``METHODS``, routes are the patterns of this service's own, statuses those that it answers with.
    Whatever else is asked for is ``OTHER``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", OTHER)
            known = route != OTHER and scope["method"] in METHODS
            method = scope["method"] if known else OTHER
            REQUESTS.labels(method, route, str(status)).inc()
            SECONDS.labels(method, route).observe(time.perf_counter() - began)


class Metrics:
    """The metrics of this process, of all workers, and of all projects."""

    def __init__(self, store: Store, redis: Redis) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_State(store, redis))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(REGISTRY) + generate_latest(self._registry)


class _State(Collector):
    """Reads the database and Redis whenever Prometheus asks."""

    def __init__(self, store: Store, redis: Redis) -> None:
        self._store, self._redis = store, redis
        self._views = Overviews(store)

    def describe(self) -> list[Metric]:
        """Nothing: which metrics there are depends on the projects."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric that is read from the database and from Redis."""
        build = GaugeMetricFamily("alc_build_info", "The version that runs", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily(
            "alc_inbox_waiting", "Webhooks not in the ledger yet", webhooks.waiting(self._store)
        )
        try:
            views = self._views.all()
        except AlcError:
            views = []
        yield from _projects(views)
        try:
            yield from self._jobs()
            up = 1
        except RedisError:
            up = 0
        yield GaugeMetricFamily("alc_redis_up", "Whether Redis answers", up)

    def _jobs(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("alc_queue_jobs", "Jobs that wait", labels=["queue"])
        for name in QueueName:
            waiting.add_metric([name], len(queue_of(name.value, self._redis)))
        ended = CounterMetricFamily("alc_jobs", "Jobs that ended", labels=["queue", "outcome"])
        seconds = CounterMetricFamily("alc_job_seconds", "Time spent on jobs", labels=["queue"])
        for counted in counters.read(self._redis):
            ended.add_metric([counted.queue, counters.DONE], counted.done)
            ended.add_metric([counted.queue, counters.FAILED], counted.failed)
            seconds.add_metric([counted.queue], counted.seconds)
        workers = len(worker_registry.workers(self._redis))
        yield waiting
        yield ended
        yield seconds
        yield GaugeMetricFamily("alc_workers", "Workers that are there", workers)


def _projects(views: list[Overview]) -> Iterator[Metric]:
    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=["project", *labels])

    queue = gauge("alc_open_questions", "Questions that nobody has answered")
    answers = gauge("alc_ledger_answers", "Accepts and corrections in force")
    rate = gauge("alc_accept_rate", "Share of the pseudo labels that were accepted")
    confirmed = gauge(
        "alc_confirmed_superpixels",
        "Superpixels by how people confirmed them; machine: by nobody",
        "way",
    )
    seconds = gauge("alc_label_seconds", "Annotators' time for each label, without breaks", "way")
    disputed = gauge("alc_disputed_superpixels", "Superpixels that annotators disagree about")
    images = gauge("alc_images", "Images under correction")
    arriving = gauge("alc_images_waiting", "Images that wait for their first label map")
    number = gauge("alc_round", "Number of the last round")
    state = gauge("alc_round_state", "1 for the state of the last round", "state")
    share = gauge("alc_round_progress", "How far the last round's step is, 0 to 1")
    data_miou = gauge("alc_data_miou", "Quality of the label maps in the last round that knows it")
    model_miou = gauge("alc_model_miou", "Quality of the network in the last round that knows it")
    for view in views:
        name = [view.project.name]
        queue.add_metric(name, view.queue)
        answers.add_metric(name, view.figures.answers)
        if view.figures.accept_rate is not None:
            rate.add_metric(name, view.figures.accept_rate)
        for told in view.figures.confirmed:
            confirmed.add_metric([*name, told.way], told.labels)
            if told.label_s is not None:
                seconds.add_metric([*name, told.way], told.label_s)
        confirmed.add_metric([*name, "machine"], view.unconfirmed)
        disputed.add_metric(name, view.figures.disputed)
        images.add_metric(name, view.images)
        arriving.add_metric(name, view.arriving.left)
        if view.round is not None:
            number.add_metric(name, view.round.round)
            for each in RoundState:
                state.add_metric([*name, each], float(view.round.state == each))
            total = view.round.total
            share.add_metric(name, view.round.done / total if total else 0.0)
        for family, quality in ((data_miou, "data_miou"), (model_miou, "model_miou")):
            values = [getattr(round_, quality) for round_ in view.rounds]
            known = [value for value in values if value is not None]
            if known:
                family.add_metric(name, known[-1])
    yield from (queue, answers, rate, disputed, images, arriving, number, state, share)
    yield from (confirmed, seconds, data_miou, model_miou)
