"""How requests carry tokens, and when an access token is renewed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import pytest

from alc_backend.errors import LabelStudioAwayError, LabelStudioError
from alc_backend.labelstudio.tokens import REFRESH, REFRESH_AFTER_S, PersonalToken
from tests.fake_label_studio import LEGACY_TOKEN, QUERY_PROJECT, FakeLabelStudio

PROJECT = f"/api/projects/{QUERY_PROJECT}"
URL = "http://label-studio.invalid"


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


def renewals(label_studio):
    return len(label_studio.asked(REFRESH, "POST"))


def test_a_legacy_token_is_sent_as_it_is(label_studio):
    client = label_studio.client(LEGACY_TOKEN)
    assert client.get(PROJECT)["id"] == QUERY_PROJECT
    assert renewals(label_studio) == 0


def test_a_personal_token_is_exchanged_once(label_studio):
    client = label_studio.client()
    for _ in range(3):
        client.get(PROJECT)
    assert renewals(label_studio) == 1


def test_a_refused_access_token_is_renewed_once_more(label_studio):
    client = label_studio.client()
    client.get(PROJECT)
    label_studio.revoke()
    client.post("/api/tasks/", {"project": QUERY_PROJECT, "data": {"image": "a"}})
    assert renewals(label_studio) == 2
    assert [task.data for task in label_studio.tasks.values()] == [{"image": "a"}]


def test_what_stays_refused_is_not_tried_for_ever(label_studio):
    label_studio.fail(401, PROJECT)
    with pytest.raises(LabelStudioError, match="check LABEL_STUDIO_API_KEY") as caught:
        label_studio.client().get(PROJECT)
    assert caught.value.status == 401
    assert len(label_studio.asked(PROJECT)) == renewals(label_studio) == 2


def test_a_refused_legacy_token_is_not_tried_again(label_studio):
    with pytest.raises(LabelStudioError) as caught:
        label_studio.client("anotherlegacytoken").get(PROJECT)
    assert caught.value.status == 401
    assert len(label_studio.requests) == 1


def test_a_refused_personal_token_says_what_to_do(label_studio):
    with pytest.raises(LabelStudioError, match="create a new one in Account & Settings") as caught:
        label_studio.client("of.another.installation").get(PROJECT)
    assert caught.value.status == 401
    assert not isinstance(caught.value, LabelStudioAwayError)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_label_studio_too_busy_to_renew_is_away(label_studio, status):
    label_studio.fail(status, REFRESH)
    with pytest.raises(LabelStudioAwayError) as caught:
        label_studio.client().post("/api/tasks/", {})
    assert caught.value.status == status
    assert [request.path for request in label_studio.requests] == [REFRESH]


@pytest.mark.parametrize(("status", "body"), [(404, {}), (200, ["x"]), (200, {"token": "x"})])
def test_another_program_that_gives_no_access_token_is_named(label_studio, status, body):
    label_studio.fail(status, REFRESH, body=body)
    with pytest.raises(LabelStudioError, match="check LABEL_STUDIO_URL"):
        label_studio.client().get(PROJECT)


class Renewing:
    """A server that takes only the access token that it gave last.

    It refuses others once ``together`` have come with one, and renews slowly then.
    """

    def __init__(self, together: int = 1) -> None:
        self.given, self.now = 0, 0.0
        self._refused, self._slow = Barrier(together), together > 1
        self.limits: list[object] = []

    def http(self) -> httpx.Client:
        auth = PersonalToken("a.b.c", URL, clock=lambda: self.now)
        return httpx.Client(
            base_url=URL, auth=auth, transport=httpx.MockTransport(self._answer), timeout=7.0
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.limits.append(request.extensions["timeout"]["read"])
        if request.url.path == REFRESH:
            if self._slow:
                time.sleep(0.05)
            self.given += 1
            return httpx.Response(200, json={"access": f"access-{self.given}"})
        right = request.headers["Authorization"] == f"Bearer access-{self.given}"
        if not right:
            self._refused.wait(10)
        return httpx.Response(200 if right else 401, content=request.content)


def test_an_access_token_is_renewed_by_its_age():
    server = Renewing()
    http = server.http()
    for server.now, given in ((0, 1), (REFRESH_AFTER_S, 1), (REFRESH_AFTER_S + 1, 2)):
        assert http.get("/a").status_code == 200
        assert server.given == given
    server.now += REFRESH_AFTER_S  # counted from the last renewal
    http.get("/a")
    assert server.given == 2


def test_renewing_has_the_time_limit_of_the_request():
    server = Renewing()
    server.http().get("/a")
    assert server.limits == [7.0, 7.0]


@pytest.mark.parametrize("begin", ["unknown", "old", "refused"])
def test_threads_at_once_renew_once(begin):
    server = Renewing(together=8)
    http = server.http()
    if begin != "unknown":
        http.get("/a")
    if begin == "old":
        server.now = REFRESH_AFTER_S + 1
    if begin == "refused":
        server.given += 1  # somebody else's renewal: ours counts no more
    before = server.given
    together = Barrier(8)

    def ask(number):
        together.wait()
        answer = http.post("/a", content=b"%d" % number)
        return answer.status_code, answer.content

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert found == [(200, b"%d" % number) for number in range(8)]
    assert server.given == before + 1


def test_a_failed_renewal_lets_the_next_one_try():
    server = Renewing()
    http = server.http()
    down = httpx.MockTransport(lambda request: (_ for _ in ()).throw(httpx.ConnectError("down")))
    broken = httpx.Client(base_url=URL, auth=http.auth, transport=down)
    with pytest.raises(httpx.ConnectError):
        broken.get("/a")
    assert http.get("/a").status_code == 200
