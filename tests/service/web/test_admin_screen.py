"""The admin page in a real browser."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from sqlalchemy import select

from alc_backend.loop.exports import report
from alc_backend.loop.rounds import lifecycle
from alc_backend.service.web.app import create_app
from alc_backend.simulate.report import page as report_page
from alc_backend.store.models import Project, Round
from tests.annotations import answer, arrive, asked_project, created, image_of, task_of
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


def test_the_page_keeps_itself_up_to_date(page, store, project):
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.get_by_text("6 questions are left").wait_for()
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog")))
    page.get_by_text("5 questions are left").wait_for(timeout=30_000)
    page.locator(".tiles img").wait_for()
    assert page.locator("canvas").count() == 0
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        round_.answers, round_.data_miou = 0, 0.5
    page.locator(".plot canvas").first.wait_for(timeout=30_000)
    drawn = page.locator(".plot canvas").first.element_handle()
    page.wait_for_timeout(6000)  # one refresh
    assert drawn.evaluate("canvas => canvas.isConnected")  # the same plots, not drawn anew
    assert faults == []


def test_the_pages_of_images(page, store, project):
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog", by=8)))
    page.get_by_role("link", name="Images", exact=True).click()
    page.get_by_label("confirmed as").select_option("dog")
    page.wait_for_url("**shows=dog**")
    assert page.locator(".tile .name").all_inner_texts() == ["b"]
    page.locator(".tile").click()
    page.wait_for_function("() => document.getElementById('hovered')?.width === 64")
    row = page.locator("tr[data-superpixel='2']")
    row.hover()
    hint = page.get_by_text("Superpixel 2 is dog: corrected by user 8")
    hint.wait_for()
    clip = "() => getComputedStyle(document.getElementById('before')).clipPath"
    before = page.evaluate(clip)
    page.locator("#split").focus()
    page.keyboard.press("End")
    assert page.evaluate(clip) != before
    assert page.evaluate(clip) == "inset(0px 0% 0px 0px)"
    assert faults == []


def test_a_class_that_is_chosen_before_the_script_is_there_is_shown(page):
    held = []
    page.route("**/pages.js*", lambda route: held.append(route))
    images = page.get_by_role("link", name="Images", exact=True).evaluate("link => link.href")
    page.goto(images, wait_until="commit")
    page.get_by_label("confirmed as").select_option("dog")
    (script,) = held
    script.continue_()
    page.unroute("**/pages.js*")
    page.wait_for_url("**shows=dog**")
    page.go_back()
    assert "shows=dog" not in page.url
    page.wait_for_load_state()
    assert page.get_by_label("confirmed as").input_value() == ""


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


@contextmanager
def viewed(scheme, **context):
    """A tab of a browser with a colour scheme, which axe-core can look into."""
    with chromium() as browser:
        yield browser.new_context(color_scheme=scheme, bypass_csp=True, **context).new_page()


def faults_of(page):
    """What axe-core finds on a page: the rule and the first element that breaks it."""
    found = Axe().run(page).response["violations"]
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(project, store, settings, redis, scheme):
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog")))
    image = image_of(store, "b").id
    with store.session() as session:  # "/" lists projects where there are several
        session.add(Project(name="other", classes=["a", "b"]))
    credentials = {"username": "admin", "password": "s3cret"}
    with (
        serving(create_app(settings)) as port,
        viewed(scheme, http_credentials=credentials) as page,
    ):
        for path in ("/", f"/projects/{project}", f"/images?project={project}", f"/images/{image}"):
            page.goto(f"http://127.0.0.1:{port}{path}")
            page.wait_for_load_state("networkidle")
            assert faults_of(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_accessible(project, store, tmp_path, scheme):
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog")))
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        round_.answers, round_.data_miou, round_.model_miou = 0, 0.5, 0.4
    written = report_page.write(report.document(store, project, lambda *_: None), "pets", tmp_path)
    with viewed(scheme) as page:
        page.goto(written.as_uri())
        assert page.locator("figure").count()
        assert faults_of(page) == []
