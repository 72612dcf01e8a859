"""Creating the two projects and connecting the backend, with a fake Label Studio."""

from __future__ import annotations

import pytest

from alc_backend.common.credentials import Credential, Purpose
from alc_backend.errors import LabelStudioError, SettingsError
from alc_backend.labelstudio import projects
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.tasks import SAMPLING
from alc_backend.labelstudio.texts import texts
from tests.fake_label_studio import QUERY_PROJECT, FakeLabelStudio

BACKEND = "http://alc.internal:9090"


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


@pytest.fixture
def client(label_studio):
    return label_studio.client()


@pytest.fixture
def connect(client):
    return lambda secret="s3cret": projects.connect_backend(client, QUERY_PROJECT, BACKEND, secret)


def test_a_dataset_project_has_the_classes(label_studio, client):
    number = projects.create_dataset_project(client, "pets", ["a", "b"])
    tags = read_dataset_config(label_studio.projects[number]["label_config"])
    assert tags.classes == ["a", "b"]


NAMES = ["a", "Öl", "pets", "n" * 29, "n" * 30, "n" * 40, "n" * 41, "n" * 50, "n" * 51, "n" * 300]


@pytest.mark.parametrize("name", [*NAMES, "a" * 24 + " " * 20 + "b" * 20])
def test_titles_have_a_length_that_label_studio_takes(label_studio, client, name):
    numbers = [
        projects.create_dataset_project(client, name, ["a", "b"]),
        projects.create_query_project(client, name, 1, 2, texts()),
    ]
    titles = [label_studio.projects[number]["title"] for number in numbers]
    assert all(3 <= len(title) <= 50 and title.startswith(name[:20]) for title in titles)
    assert titles[1].endswith(" queries")
    assert (titles[0] == name) == (3 <= len(name) <= 50)


def test_titles_of_long_names_tell_them_apart():
    names = [f"{'drone flights over the northern forest ' * 3}{year}" for year in range(2000, 2030)]
    assert len({projects.dataset_title(name) for name in names}) == 30
    assert len({projects.query_title(name) for name in names}) == 30
    assert projects.query_title("pets") == "pets – correction queries"
    assert projects.query_title("n" * 40) == "n" * 40 + " – queries"


def test_a_query_project_serves_the_best_query_first(label_studio, client):
    number = projects.create_query_project(client, "pets", 2, 40, texts())
    made = label_studio.projects[number]
    assert (made["sampling"], made["maximum_annotations"]) == (SAMPLING, 2)
    assert "<Filter" in made["label_config"]  # 40 classes have to be searched
    (view,) = label_studio.views.values()
    assert view["project"] == number
    assert view["data"]["ordering"] == ["tasks:predictions_score"]
    hidden = view["data"]["hiddenColumns"]["explore"]
    assert not {"tasks:predictions_score", "tasks:data.image", "tasks:data.question"} & {*hidden}


def test_a_tab_that_is_there_keeps_all_but_its_order(label_studio, client):
    shown = {"title": "mine", "ordering": ["tasks:id"]}
    label_studio.views[1] = {"id": 1, "project": QUERY_PROJECT, "data": shown}
    projects.order_default_tab(client, QUERY_PROJECT)
    (view,) = label_studio.views.values()
    assert view["data"] == {"title": "mine", "ordering": ["tasks:predictions_score"]}


def passwords(secret, project=QUERY_PROJECT):
    """What the backend and the webhook of a project are given."""
    return [
        Credential(purpose, project).password(secret)
        for purpose in (Purpose.BACKEND, Purpose.WEBHOOK)
    ]


def test_what_label_studio_holds_is_derived_for_this_project_and_purpose(label_studio, connect):
    connect()
    ((backend,), (hook,)) = label_studio.backends.values(), label_studio.webhooks.values()
    for_backend, for_webhook = passwords("s3cret")
    assert (backend["url"], backend["basic_auth_pass"]) == (BACKEND, for_backend)
    assert hook["url"] == projects.webhook_url(BACKEND)
    assert hook["headers"] == {"Authorization": f"Bearer {for_webhook}"}
    assert projects.webhook_faults(hook, BACKEND, "s3cret") == []
    assert "s3cret" not in f"{[request.body for request in label_studio.requests]}"


def test_connecting_again_changes_what_is_there(label_studio, connect):
    connect("old")
    connect("new")
    ((backend,), (hook,)) = label_studio.backends.values(), label_studio.webhooks.values()
    for_backend, for_webhook = passwords("new")
    assert backend["basic_auth_pass"] == for_backend
    assert hook["headers"] == {"Authorization": f"Bearer {for_webhook}"}


def test_every_connection_of_the_backend_gets_the_new_password(label_studio, connect):
    """Also one made by hand, with a slash at the end."""
    connect("old")
    ((backend,), (hook,)) = label_studio.backends.values(), label_studio.webhooks.values()
    label_studio.backends[1] = {**backend, "id": 1, "url": f"{BACKEND}/", "basic_auth_pass": "new"}
    label_studio.webhooks[2] = {**hook, "id": 2, "headers": {"Authorization": "Bearer new"}}
    connect("new")
    for_backend, for_webhook = passwords("new")
    held = [entry["basic_auth_pass"] for entry in label_studio.backends.values()]
    assert held == [for_backend] * 2
    held = [entry["headers"]["Authorization"] for entry in label_studio.webhooks.values()]
    assert held == [f"Bearer {for_webhook}"] * 2


def test_connecting_again_makes_a_webhook_that_somebody_deleted(label_studio, connect):
    connect()
    label_studio.webhooks.clear()
    connect()
    (hook,) = label_studio.webhooks.values()
    assert hook["project"] == QUERY_PROJECT
    assert projects.webhook_faults(hook, BACKEND, "s3cret") == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"is_active": False}, "is switched off"),
        ({"send_payload": False}, "sends no payload"),
        ({"headers": {}}, "lacks the header with the password, or has another password"),
        ({"headers": {"Authorization": "Bearer s3cret"}}, "shows ALC_SECRET itself"),
        ({"project": 99}, "lacks the header with the password, or has another password"),
        ({"actions": ["ANNOTATION_CREATED"]}, "does not report ANNOTATIONS_CREATED, "),
    ],
)
def test_what_keeps_a_webhook_from_bringing_answers_is_named(label_studio, connect, change, fault):
    connect()
    (hook,) = label_studio.webhooks.values()
    (found,) = projects.webhook_faults({**hook, **change}, BACKEND, "s3cret")
    assert found.startswith(fault)


def test_a_backend_that_label_studio_cannot_reach_tells_the_usual_causes(label_studio, connect):
    label_studio.fail(400, "/api/ml", method="POST", body={"detail": "no route"})
    with pytest.raises(LabelStudioError, match=r"no route.*ML_BLOCK_LOCAL_IP=false") as caught:
        connect()
    assert caught.value.status == 400


def test_an_address_that_webhooks_do_not_call_is_refused_before_anything_is_sent(
    label_studio, client
):
    with pytest.raises(SettingsError, match="set ALC_BACKEND_URL"):
        projects.connect_backend(client, QUERY_PROJECT, "http://alc:9090", "s3cret")
    assert label_studio.requests == []
