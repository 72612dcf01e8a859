"""The admin page in a real browser."""

from __future__ import annotations

import pytest

from alc_backend.loop.rounds import lifecycle
from alc_backend.service.web.app import create_app
from tests.annotations import asked_project
from tests.e2e.browser import chromium
from tests.serving import serving

pytestmark = pytest.mark.browser


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def page(project, settings, redis):
    """The admin page, signed in."""
    with serving(create_app(settings)) as port, chromium() as browser:
        credentials = {"username": "admin", "password": "s3cret"}
        page = browser.new_context(http_credentials=credentials).new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        yield page


def start_of(page):
    return page.get_by_role("button", name="Start round")


def cancel_of(page):
    return page.get_by_role("button", name="Cancel")


def test_a_round_that_somebody_else_started_cannot_be_started_again(page, store, project):
    start_of(page).focus()
    lifecycle.start(store, lambda *part: None, project)
    cancel_of(page).wait_for(timeout=30_000)
    assert start_of(page).is_disabled()
    cancel_of(page).focus()
    page.wait_for_timeout(2500)  # one refresh
    assert cancel_of(page).evaluate("button => button === document.activeElement")


def test_the_buttons_work_in_a_browser(page):
    start_of(page).click()
    page.get_by_text("The round was started.").wait_for()
    assert start_of(page).is_disabled()
    cancel_of(page).click()
    page.get_by_text("The round is being cancelled.").wait_for()
    assert start_of(page).is_enabled()
