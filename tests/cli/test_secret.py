"""`alc secret`: a new ALC_SECRET, and the passwords that are made of it."""

from __future__ import annotations

import re

import pytest
from pydantic import SecretStr

from alc_backend.common.credentials import Credential, Purpose
from alc_backend.labelstudio import projects
from tests.annotations import DATASET_PROJECT, QUERY_PROJECT, asked_project
from tests.command_line import alc
from tests.fake_label_studio import FakeLabelStudio

OLD, NEW = "s3cret", "a-new-secret-of-ours"
BOTH = (DATASET_PROJECT, QUERY_PROJECT)


@pytest.fixture
def label_studio(monkeypatch, settings, store, dataset):
    """A Label Studio whose projects were connected with the old secret."""
    asked_project(store, dataset)
    label_studio = FakeLabelStudio()
    label_studio.serve(monkeypatch)
    for number in BOTH:
        projects.connect_backend(label_studio.client(), number, settings.backend, OLD)
    label_studio.requests.clear()
    return label_studio


@pytest.fixture
def rotating(settings):
    """The settings of an operator who has set the new secret, and kept the old one."""
    given = {"secret": SecretStr(NEW), "secret_previous": SecretStr(OLD)}
    return settings.model_copy(update=given)


def held(label_studio):
    """The passwords of backends and webhooks in Label Studio, each with its project."""
    of_backends = {(b["project"], b["basic_auth_pass"]) for b in label_studio.backends.values()}
    of_hooks = {
        (h["project"], h["headers"]["Authorization"].removeprefix("Bearer "))
        for h in label_studio.webhooks.values()
    }
    return of_backends | of_hooks


def made_of(secret):
    return {
        (number, Credential(purpose, number).password(secret))
        for number in BOTH
        for purpose in (Purpose.WEBHOOK, Purpose.BACKEND)
    }


def test_rotating_begins_with_a_new_secret_and_changes_nothing(settings, label_studio):
    done = alc(settings, "secret", "rotate")
    assert done.returncode == 0, done.stderr
    made = re.search(r"ALC_SECRET=([0-9a-f]{48})\n", done.stdout)
    assert made
    assert "ALC_SECRET_PREVIOUS" in done.stdout
    assert OLD not in done.stdout
    assert made[1] not in alc(settings, "secret", "rotate").stdout  # another each time
    assert held(label_studio) == made_of(OLD)


def test_rotating_gives_every_connection_what_the_new_secret_makes(rotating, label_studio):
    for _ in range(2):
        done = alc(rotating, "secret", "rotate")
        assert done.returncode == 0, done.stderr
        assert held(label_studio) == made_of(NEW)
    assert "pets: connected" in done.stdout
    assert "Remove ALC_SECRET_PREVIOUS" in done.stdout
    assert not {OLD, NEW} & set(re.findall(r"\S+", done.stdout))


def test_a_project_that_cannot_be_connected_is_named_and_the_rest_goes_on(
    rotating, label_studio, store
):
    label_studio.fail(400, "/api/ml", method="PATCH", body={"detail": "wrong password"})
    done = alc(rotating, "secret", "rotate")
    assert done.returncode == 1
    assert "pets: Label Studio cannot use the backend" in done.stdout
    assert "Keep ALC_SECRET_PREVIOUS" in done.stdout
    label_studio.recover()
    assert alc(rotating, "secret", "rotate").returncode == 0
    assert held(label_studio) == made_of(NEW)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"secret": None}, "ALC_SECRET is not set"),
        ({"secret_previous": SecretStr(OLD)}, "ALC_SECRET is still ALC_SECRET_PREVIOUS"),
    ],
)
def test_what_cannot_be_rotated_says_why(settings, given, said):
    settings.data_dir.mkdir(parents=True)
    done = alc(settings.model_copy(update=given), "secret", "rotate")
    assert done.returncode == 1
    assert said in done.stderr


def test_the_password_for_the_form_opens_one_project(settings):
    settings.data_dir.mkdir(parents=True)
    done = alc(settings, "secret", "show", "12")
    assert done.stdout == Credential(Purpose.BACKEND, 12).password(OLD) + "\n"
