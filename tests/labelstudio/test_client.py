"""The client of Label Studio's API: retries, paging, uploads, downloads, messages."""

from __future__ import annotations

import gzip
import io
import json

import httpx
import pytest

from alc_backend.errors import (
    AnswerTooLargeError,
    LabelStudioAwayError,
    LabelStudioError,
    SettingsError,
)
from alc_backend.labelstudio import json_answers
from alc_backend.labelstudio.client import OVERLOADED, TRIES, UPLOAD_FILES, Client, is_outage
from alc_backend.labelstudio.downloads import Deadline
from alc_backend.labelstudio.task_pages import FAILED_IN_A_ROW, PAGE
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT, SMALL, URL, FakeLabelStudio

PROJECT = f"/api/projects/{QUERY_PROJECT}"


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


@pytest.fixture
def client(label_studio):
    with label_studio.client() as found:
        yield found


# Retries.


@pytest.mark.parametrize("status", [None, *OVERLOADED])
def test_reading_is_tried_again_until_label_studio_answers(label_studio, client, status):
    label_studio.fail(status, PROJECT, times=TRIES - 1)
    assert client.get(PROJECT)["id"] == QUERY_PROJECT
    assert len(label_studio.asked(PROJECT)) == TRIES
    assert label_studio.pauses == [1.0, 2.0]


@pytest.mark.parametrize("status", [None, *OVERLOADED])
def test_reading_is_given_up_after_some_tries(label_studio, client, status):
    label_studio.fail(status, PROJECT)
    with pytest.raises(LabelStudioAwayError) as caught:
        client.get(PROJECT)
    assert caught.value.status == status
    assert len(label_studio.asked(PROJECT)) == TRIES


@pytest.mark.parametrize("status", [None, *OVERLOADED])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_writing_is_sent_once(label_studio, client, method, status):
    label_studio.fail(status, "/api/tasks/", times=1)
    with pytest.raises(LabelStudioAwayError):
        client.request(method, "/api/tasks/", json={})
    assert len(label_studio.asked("/api/tasks/", method)) == 1
    assert label_studio.pauses == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_other_refusals_are_not_tried_again(label_studio, client, status):
    label_studio.fail(status, PROJECT)
    with pytest.raises(LabelStudioError):
        client.get(PROJECT)
    assert label_studio.pauses == []


def test_a_renewal_that_is_overloaded_is_tried_again_with_the_request(label_studio, client):
    label_studio.fail(503, "/api/token/refresh/", times=1)
    assert client.get(PROJECT)["id"] == QUERY_PROJECT
    assert label_studio.pauses == [1.0]


# What is not there.


def test_what_is_missing_is_none_where_that_is_asked_for(label_studio, client):
    assert client.get_or_none("/api/tasks/5") is None
    assert client.patch("/api/tasks/5/", {"is_labeled": True}, missing_ok=True) is None
    assert client.delete("/api/annotations/5/", missing_ok=True) is None
    label_studio.add_task(5, {})
    assert client.get_or_none("/api/tasks/5")["id"] == 5
    for send in (
        lambda: client.get("/api/tasks/6"),
        lambda: client.patch("/api/tasks/6/", {}),
        lambda: client.delete("/api/annotations/6/"),
    ):
        with pytest.raises(LabelStudioError) as caught:
            send()
        assert caught.value.status == 404


@pytest.mark.parametrize("status", [403, 500])
def test_only_what_is_missing_is_none(label_studio, client, status):
    label_studio.fail(status, "/api/tasks/")
    with pytest.raises(LabelStudioError) as caught:
        client.get_or_none("/api/tasks/5")
    assert caught.value.status == status


# Paging.


@pytest.mark.parametrize("number", [0, 1, PAGE, PAGE + 1, 2 * PAGE + 1])
def test_all_tasks_of_a_project(label_studio, client, number):
    for task in range(1, number + 1):
        label_studio.add_task(task, {})
    label_studio.add_task(999, {}, DATASET_PROJECT)
    found = list(client.tasks(QUERY_PROJECT, fields="task_only"))
    assert [task["id"] for task in found] == [*range(1, number + 1)]
    assert all("annotations" not in task for task in found)
    assert len(label_studio.asked("/api/tasks/")) == max(1, -(-number // PAGE))


def test_tasks_deleted_while_they_are_read_end_the_pages(label_studio, client):
    for task in range(1, PAGE + 2):
        label_studio.add_task(task, {})
    found = client.tasks(QUERY_PROJECT)
    first = next(found)
    label_studio.tasks = {task: label_studio.tasks[task] for task in range(1, PAGE - 10)}
    assert [first, *found][-1]["id"] == PAGE


def test_tasks_of_a_project_that_is_gone(client):
    with pytest.raises(LabelStudioError) as caught:
        list(client.tasks(77))
    assert caught.value.status == 404


def above(column, value=0):
    return {
        "filter": f"filter:tasks:{column}",
        "operator": "greater",
        "type": "Number",
        "value": value,
    }


def said(number, task, *, skipped):
    updated = "2026-01-01T12:00:00Z"
    return {"id": number, "task": task, "was_cancelled": skipped, "updated_at": updated}


@pytest.fixture
def said_about(label_studio):
    """Of 3 pages, two tasks in three have an annotation, and some of the last page a skip.

    A first page of those with a skip lies beyond a first page of those with an annotation.
    """
    for task in TASKS:
        label_studio.add_task(task, {})
        if has_annotation(task):
            label_studio.annotate(said(10 * task, task, skipped=False))
        if has_skip(task):
            label_studio.annotate(said(10 * task + 1, task, skipped=True))


TASKS = range(1, 3 * PAGE + 1)


def has_annotation(task):
    return task % 3 != 0


def has_skip(task):
    return task > 2.5 * PAGE


FILTERS = [above("total_annotations"), above("cancelled_annotations")]


@pytest.mark.usefixtures("said_about")
@pytest.mark.parametrize(("conjunction", "joined"), [("and", all), ("or", any)])
def test_filters_are_joined_and_each_task_comes_once(client, conjunction, joined):
    found = [task["id"] for task in client.tasks_by_id(QUERY_PROJECT, FILTERS, conjunction)]
    assert found == [task for task in TASKS if joined((has_annotation(task), has_skip(task)))]


def test_no_task_is_missed_when_others_come_and_go(label_studio, client):
    for task in range(1, 2 * PAGE + 1):
        label_studio.add_task(task, {})
    found = client.tasks_by_id(QUERY_PROJECT, [above("id")])
    seen = [next(found)["id"]]
    for task in range(1, 50):  # by number, the next page would begin 49 tasks later
        del label_studio.tasks[task]
    label_studio.add_task(2 * PAGE + 1, {})
    seen += [task["id"] for task in found]
    assert seen == [*range(1, 2 * PAGE + 2)]


def test_a_look_by_id_may_ask_for_few_fields(label_studio, client):
    label_studio.add_task(1, {})
    (found,) = client.tasks_by_id(QUERY_PROJECT, [above("id")], include="id,updated_at")
    assert found.keys() == {"id", "updated_at"}


# Tasks that cannot be had.


def everything(client, **more):
    return client.tasks(QUERY_PROJECT, **more)


def either(client, **more):
    filters = [above("id"), above("id", 5)]
    return client.tasks_by_id(QUERY_PROJECT, filters, "or", **more)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["large", "500"])
@pytest.mark.parametrize("bad", [[1], [57, 58], [PAGE], [1, 2 * PAGE + 1]])
@pytest.mark.parametrize("read", [everything, either])
def test_a_task_that_cannot_be_had_is_named_and_the_others_are_read(
    label_studio, client, read, bad, kind
):
    numbers = [*range(1, 2 * PAGE + 2)]
    for task in numbers:
        label_studio.add_task(task, {})
    for task in bad:
        label_studio.spoil(task, kind)
    told = {}
    found = [task["id"] for task in read(client, leave_out=told.__setitem__)]
    assert found == [task for task in numbers if task not in bad]
    assert [*told] == bad
    reason = "larger than" if kind == "large" else "answered 500"
    for task, error in told.items():
        assert f"task {task} of Label Studio project {QUERY_PROJECT}" in str(error)
        assert reason in str(error)
        assert not is_outage(error)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["large", "500"])
def test_a_task_that_cannot_be_had_is_an_error_where_none_may_be_left_out(
    label_studio, client, kind
):
    label_studio.add_task(7, {})
    label_studio.spoil(7, kind)
    with pytest.raises(LabelStudioError, match=f"task 7 of Label Studio project {QUERY_PROJECT}"):
        list(client.tasks(QUERY_PROJECT))


@pytest.mark.usefixtures("small")
def test_tasks_that_are_too_large_together_are_all_read(label_studio, client):
    for task in range(1, 31):
        label_studio.add_task(task, {"text": "x" * 3000})
    assert [task["id"] for task in client.tasks(QUERY_PROJECT)] == [*range(1, 31)]


def test_a_label_studio_that_fails_at_every_task_is_out_of_order(label_studio, client):
    for task in range(1, PAGE):
        label_studio.add_task(task, {})
        label_studio.fail_at(task)
    told = {}
    with pytest.raises(LabelStudioAwayError) as caught:
        list(client.tasks(QUERY_PROJECT, leave_out=told.__setitem__))
    assert caught.value.status == 500
    assert len(told) == FAILED_IN_A_ROW - 1


@pytest.mark.usefixtures("small")
def test_any_number_of_tasks_that_are_too_large_is_left_out(label_studio, client):
    for task in range(1, 2 * FAILED_IN_A_ROW):
        label_studio.add_task(task, {"text": "x" * SMALL})
    label_studio.add_task(2 * FAILED_IN_A_ROW, {})
    told = {}
    (found,) = client.tasks(QUERY_PROJECT, leave_out=told.__setitem__)
    assert found["id"] == 2 * FAILED_IN_A_ROW
    assert [*told] == [*range(1, 2 * FAILED_IN_A_ROW)]


@pytest.mark.parametrize("status", [None, 401, *OVERLOADED])
def test_in_an_outage_no_task_is_to_blame(label_studio, client, status):
    label_studio.add_task(7, {})
    label_studio.fail(status, "/api/tasks/")
    told = {}
    with pytest.raises(LabelStudioError) as caught:
        list(client.tasks(QUERY_PROJECT, leave_out=told.__setitem__))
    assert is_outage(caught.value)
    assert not told


# Answers without end.


class Endless(httpx.SyncByteStream):
    """Two GiB of blanks, a MiB at a time; ``taken`` are those that were asked for."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        while self.taken < 2048:
            self.taken += 1
            yield b" " * 2**20


def answering(**answer):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, **answer))
    return Client("http://example.com", "legacytoken", transport=transport)


TOO_LARGE = "/api/annotations/5/: Label Studio's answer "


def test_an_answer_is_read_up_to_its_bound():
    body = Endless()
    with (
        answering(stream=body) as client,
        pytest.raises(AnswerTooLargeError, match=f"^{TOO_LARGE}is larger than 64 MiB"),
    ):
        client.get("/api/annotations/5/")
    assert body.taken == json_answers.MAX_BYTES // 2**20 + 1


def test_an_answer_that_says_that_it_is_too_long_is_not_read():
    body = Endless()
    length = {"Content-Length": str(json_answers.MAX_BYTES + 1)}
    with answering(stream=body, headers=length) as client, pytest.raises(AnswerTooLargeError):
        client.get("/api/annotations/5/")
    assert body.taken == 0


@pytest.mark.parametrize("length", [json_answers.MAX_BYTES, json_answers.MAX_BYTES + 1])
def test_the_bound_is_on_what_is_unpacked(length):
    packed = gzip.compress(b'"' + b"x" * (length - 2) + b'"', 1)
    packed = httpx.ByteStream(packed)
    with answering(stream=packed, headers={"Content-Encoding": "gzip"}) as client:
        if length > json_answers.MAX_BYTES:
            with pytest.raises(AnswerTooLargeError, match=f"^{TOO_LARGE}is larger than 64 MiB"):
                client.get("/api/annotations/5/")
        else:
            assert len(client.get("/api/annotations/5/")) == length - 2


def test_whether_something_exists_is_known_without_reading_it():
    body = Endless()
    with answering(stream=body) as client:
        assert client.exists("/api/annotations/5/")
    assert body.taken == 0


def test_what_is_missing_does_not_exist(label_studio, client):
    assert not client.exists("/api/annotations/5/")
    label_studio.annotate(said(5, 1, skipped=False))
    assert client.exists("/api/annotations/5/")


@pytest.mark.parametrize("status", [None, 401, 403, 500, *OVERLOADED])
def test_a_refusal_does_not_say_whether_something_exists(label_studio, client, status):
    label_studio.fail(status, "/api/annotations/5/")
    with pytest.raises(LabelStudioError) as caught:
        client.exists("/api/annotations/5/")
    assert caught.value.status == status


def test_no_other_packing_is_asked_for():
    asked = []

    def answer(request):
        asked.append(request.headers["Accept-Encoding"])
        return httpx.Response(200, json={})

    transport = httpx.MockTransport(answer)
    with Client("http://example.com", "legacytoken", transport=transport) as client:
        client.get("/api/annotations/5/")
    assert asked == ["gzip"]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([[]] * (json_answers.MOST["lists and objects"] + 1)),
        json.dumps(["ab"] * (json_answers.MOST["strings"] + 1)),
        "[" * 100_000 + "]" * 100_000,
    ],
    ids=["lists", "strings", "depth"],
)
def test_an_answer_may_hold_only_so_much(content):
    with answering(text=content) as client, pytest.raises(AnswerTooLargeError, match=TOO_LARGE):
        client.get("/api/annotations/5/")


@pytest.mark.parametrize("status", [200, 500])
def test_what_is_too_large_is_no_outage(status):
    body = httpx.Response(status, headers={"Content-Length": str(2**40)}, stream=Endless())
    transport = httpx.MockTransport(lambda request: body)
    with (
        Client("http://example.com", "legacytoken", transport=transport) as client,
        pytest.raises(AnswerTooLargeError) as caught,
    ):
        client.get("/api/tasks/5")
    assert not is_outage(caught.value)


# Files.


def test_uploads_keep_their_order(label_studio, client, tmp_path):
    images = [tmp_path / f"image {number}.png" for number in range(UPLOAD_FILES + 3)]
    for number, path in enumerate(images):
        path.write_bytes(b"image %d" % number)
    urls = client.upload(DATASET_PROJECT, images)
    assert [label_studio.files[url] for url in urls] == [path.read_bytes() for path in images]
    assert len(label_studio.asked(f"/api/projects/{DATASET_PROJECT}/import", "POST")) == 2


def test_an_upload_that_label_studio_drops_is_named(label_studio, client, tmp_path):
    path = tmp_path / "cow.png"
    path.write_bytes(b"a cow")
    label_studio.fail(200, f"/api/projects/{DATASET_PROJECT}/file-uploads", body=[{"id": 1}])
    with pytest.raises(LabelStudioError, match=r"cow\.png"):
        client.upload(DATASET_PROJECT, [path])


def download(client, path):
    """What a path gives: its bytes, and the address elsewhere that it leads to."""
    content = io.BytesIO()
    onward = client.download(path, content, Deadline("an image"))
    return content.getvalue(), onward


def test_a_download_follows_label_studio_to_its_own_paths(label_studio, client):
    label_studio.redirects = {"/tasks/1/resolve/": "/moved/1", "/moved/1": f"{URL}/data/1.png"}
    label_studio.files["/data/1.png"] = b"image"
    assert download(client, "/tasks/1/resolve/?fileuri=x") == (b"image", None)


@pytest.mark.parametrize(
    "onward", ["https://storage.example.com/1.png?signature=s", f"{URL}.example.com/1.png"]
)
def test_a_download_tells_where_it_leads_elsewhere(label_studio, client, onward):
    label_studio.redirects = {"/tasks/1/resolve/": onward}
    assert download(client, "/tasks/1/resolve/") == (b"", onward)
    assert {request.path for request in label_studio.requests} == {
        "/api/token/refresh/",
        "/tasks/1/resolve/",
    }


def test_a_download_that_goes_in_circles_ends(label_studio, client):
    label_studio.redirects = {"/a": "/b", "/b": "/a"}
    with pytest.raises(LabelStudioError) as caught:
        download(client, "/a?signature=s3cret")
    assert caught.value.status == 303
    assert "s3cret" not in str(caught.value)


# Messages.


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "check LABEL_STUDIO_API_KEY"),
        (403, "use an administrator's token"),
        (404, "it does not exist in Label Studio"),
        (400, "see Label Studio's log"),
    ],
)
def test_a_refusal_tells_what_was_asked_and_the_remedy(label_studio, client, status, remedy):
    label_studio.fail(status, PROJECT, body={"detail": "because"})
    with pytest.raises(LabelStudioError) as caught:
        client.get(PROJECT)
    asked = f"Label Studio answered {status} to GET {PROJECT}: because; "
    assert str(caught.value).startswith(asked)
    assert remedy in str(caught.value)
    assert not isinstance(caught.value, LabelStudioAwayError)


def test_a_label_studio_that_is_away_is_named_with_its_address(label_studio, client):
    label_studio.fail()
    with pytest.raises(LabelStudioAwayError, match=f"{URL} .*check that it runs"):
        client.get(PROJECT)


def test_another_program_at_the_address_is_named(label_studio, client):
    label_studio.files["/data/page"] = b"<html>"
    with pytest.raises(LabelStudioError, match="check LABEL_STUDIO_URL"):
        client.get("/data/page")


@pytest.mark.parametrize("token", ["legacytoken", "a.personal.token"])
@pytest.mark.parametrize("body", [b"", b"<html>301 Moved Permanently</html>"])
def test_an_address_that_sends_on_is_told_with_the_right_one(token, body):
    """As a proxy does that wants https."""

    def send_on(request):
        return httpx.Response(
            301, headers={"Location": str(request.url.copy_with(scheme="https"))}, content=body
        )

    transport = httpx.MockTransport(send_on)
    with Client("http://example.com/labels", token, transport=transport) as client:
        for ask in (
            lambda: client.get("/api/projects/1"),
            lambda: next(client.tasks(1)),
            lambda: client.post("/api/projects/", {}),
            lambda: client.patch("/api/projects/1", {}, missing_ok=True),
        ):
            with pytest.raises(LabelStudioError) as caught:
                ask()
            assert str(caught.value).endswith("set LABEL_STUDIO_URL to https://example.com/labels")
            assert caught.value.status == 301


def test_an_api_that_sends_on_to_a_page_is_no_label_studio():
    transport = httpx.MockTransport(
        lambda request: httpx.Response(302, headers={"Location": "/sso/login?next=x"})
    )
    with (
        Client("http://example.com", "legacytoken", transport=transport) as client,
        pytest.raises(LabelStudioError, match=r"sends on to .*/sso/login.*check LABEL_STUDIO_URL"),
    ):
        client.get("/api/projects/1")


def test_what_is_no_path_is_refused(client):
    with pytest.raises(LabelStudioError, match="is not an address"):
        download(client, "/data/\x00.png")


def test_settings_without_a_usable_address_or_token(settings):
    with pytest.raises(SettingsError, match="LABEL_STUDIO_API_KEY is not set"):
        Client.from_settings(settings)
    with pytest.raises(SettingsError, match="LABEL_STUDIO_URL"):
        Client("http://label-studio:port", "token")
