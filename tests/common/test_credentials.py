"""Passwords that open one thing of one project, derived from the secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.common.credentials import Credential, Purpose, recognise

BACKEND = Credential(Purpose.BACKEND, 12)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_password_proves_its_purpose_and_project(purpose):
    password = Credential(purpose, 12).password("s3cret")
    assert recognise(password.encode(), ["s3cret"]) == Credential(purpose, 12)
    assert "s3cret" not in password
    assert all("!" <= character <= "~" and character != ":" for character in password)


def test_it_does_not_change():
    """Label Studio holds it for years."""
    wanted = "backend.12.03fgZencNdfWTD4AVOKzCkyQbEx9q4SCgu9vfZlO7KE"
    assert BACKEND.password("s3cret") == wanted


def test_each_secret_purpose_and_project_has_its_own():
    made = {
        Credential(purpose, project).password(secret)
        for purpose in Purpose
        for project in (1, 11, 12)
        for secret in ("s3cret", "s3cret2")
    }
    assert len(made) == len(Purpose) * 3 * 2


def test_what_another_secret_made_proves_nothing():
    password = BACKEND.password("old").encode()
    assert recognise(password, ["new"]) is None
    assert recognise(password, []) is None
    assert recognise(password, ["new", "old"]) == BACKEND


@pytest.mark.parametrize(
    "forged",
    [
        "backend.13.{proof}",
        "webhook.12.{proof}",
        "backend.012.{proof}",
        "backend.12.{proof}=",
        "backend.12.{proof}.",
        "backend.12.",
        "backend.12",
        "backend..{proof}",
        "backend.²2.{proof}",
        "backend.99999999999999999999.{proof}",
        "BACKEND.12.{proof}",
        "{proof}",
        "",
    ],
)
def test_a_proof_of_another_credential_proves_nothing(forged):
    proof = BACKEND.password("s3cret").rpartition(".")[2]
    assert recognise(forged.format(proof=proof).encode(), ["s3cret"]) is None


@given(word=st.binary() | st.text().map(str.encode))
def test_no_bytes_are_too_strange(word):
    assert recognise(word, ["s3cret"]) is None
    assert recognise(b"backend.12." + word, ["s3cret"]) is None
