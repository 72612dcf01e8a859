"""Whatever is sent to the service: an answer below 500, soon, and nothing lost or stuck."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from alc_backend.service.web.app import create_app
from tests.fuzz.values import SECRET, anything, body, examples, promptly

POSTS = ["/setup", "/predict", "/webhook", "/train", "/job_status", "/rounds", "/rounds/cancel"]


@pytest.fixture
def described(settings, project, redis):
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(settings), headers=SECRET)


def test_every_operation_of_the_document(described):
    """What the OpenAPI document allows, and what it does not."""
    operations = [found.ok() for found in described.get_all_operations()]
    assert {operation.path for operation in operations} >= set(POSTS)
    for operation in operations:

        @examples(25)
        @given(operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE))
        def send(case):
            with promptly():
                case.call_and_validate(headers=SECRET, checks=[not_a_server_error])

        send()


@pytest.mark.parametrize("path", POSTS)
def test_any_json(client, path):
    @examples(40)
    @given(anything)
    def send(value):
        with promptly():
            answered = client.post(path, content=body(value))
        assert answered.status_code < 500, answered.text

    send()


@pytest.mark.parametrize("path", POSTS)
def test_no_json_at_all(client, path):
    deep = b"[" * 100_000 + b"]" * 100_000

    @examples(15)
    @given(st.binary(max_size=200) | st.sampled_from([b"", b"{", b'{"a":', b"\xff\xfe", deep]))
    def send(content):
        with promptly():
            answered = client.post(path, content=content)
        assert 400 <= answered.status_code < 500

    send()


def test_pages(client):
    """Addresses and forms of the pages."""
    part = st.integers(-(2**70), 2**70).map(str) | st.text("0123456789abc.-_%~", max_size=12)

    @examples(40)
    @given(
        st.sampled_from(
            [
                "/projects/{}/data_miou.png",
                "/projects/1/{}.png",
                "/images/{}/image",
                "/images/{}/after",
                "/images?project={}",
                "/images?start={}",
                "/versions?project={}",
                "/?said={}",
            ]
        ),
        part,
    )
    def look(path, word):
        with promptly():
            answered = client.get(path.format(word))
        assert answered.status_code < 500, path.format(word)

    look()

    @examples(15)
    @given(part, st.binary(max_size=100))
    def press(word, content):
        with promptly():
            answered = client.post(f"/projects/{word}/start", content=content)
        assert 400 <= answered.status_code < 500

    press()
