"""Nobody can fill the memory with metrics: every label is from a closed set."""

from __future__ import annotations

import random

import anyio
import pytest
from prometheus_client import REGISTRY

from alc_backend.service.web.app import create_app
from tests.asgi import ask, scope

REQUESTS = 10_000

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

PATHS = [
    "/health",
    "/ready",
    "/webhook",
    "/images/{}/after",
    "/projects/{}/start",
    "/superpixels/{}.jpg",
    "/{}",
    "//{}",
]


@pytest.fixture
def app(settings, redis):
    return create_app(settings)


def series():
    """The labels of every series that counts requests."""
    return {
        (sample.name, *sorted(sample.labels.items()))
        for family in REGISTRY.collect()
        if family.name.startswith("alc_http")
        for sample in family.samples
    }


def hostile(number):
    """A request with a made-up method, path and headers; every other one has the password."""
    rng = random.Random(number)
    word = "".join(rng.choices("abcXYZ0123456789_-", k=rng.randint(1, 30)))
    method = rng.choice([word.upper(), word, *METHODS, "TRACE", "CONNECT", ""])
    headers = [(b"host", word.encode()), (b"x-request-id", word.encode())]
    if number % 2:
        headers.append((b"authorization", b"Bearer s3cret"))
    return scope(method, rng.choice(PATHS).format(word), headers)


def test_ten_thousand_hostile_requests_make_a_bounded_number_of_series(app):
    async def send(numbers):
        for number in numbers:
            assert (await ask(app, hostile(number))).status < 500

    anyio.run(send, range(1000))
    after_a_thousand = series()
    anyio.run(send, range(1000, REQUESTS))
    made = series()
    assert len(made) < 3000
    assert len(made) - len(after_a_thousand) < 300, "the number of series grows with the requests"
    for name, *labels in made:
        assert dict(labels).get("method", "other") in {*METHODS, "other"}, name
