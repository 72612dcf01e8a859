"""Pages of look-alikes beside single queries, in a real Label Studio and a real Chromium."""

from __future__ import annotations

import statistics
import uuid

import httpx
import pytest

from alc_backend.cli.demo.processes import EMAIL
from alc_backend.labelstudio import query, tasks, uploads
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.projects import set_keys
from tests.conftest import wait_for
from tests.e2e.browser import Labeler, chromium
from tests.e2e.chaos import new_user
from tests.e2e.pages import Pages

pytestmark = [pytest.mark.ls, pytest.mark.browser, pytest.mark.slow]

PASSWORD = "correct horse 8"
SCREEN = {"width": 1400, "height": 800}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def labeler(browser, running):
    demo, _ = running
    found = Labeler(browser, demo.client.url, EMAIL, demo.password, viewport=SCREEN)
    yield found
    found.page.context.close()


@pytest.fixture
def pages(running):
    return Pages(running[0].client)


def answers(pages):
    """The annotations of a project, by the page's key or the superpixel that they are about."""
    found = {}
    for task in pages.client.tasks(pages.project):
        about = query.asked_about(task["data"])
        for given in task["annotations"]:
            found[about.page or about.superpixel] = parse(given)
    return found


def test_pages_and_single_queries_are_answered_on_one_screen(pages, labeler, tmp_path):
    first = pages.add_page(12)
    single = pages.add_single(tmp_path, "chelsea", 9)
    second = pages.add_page(5, labels=(3, 1), seed=3)
    other = pages.add_single(tmp_path, "coffee", 12)
    third = pages.add_page(3, seed=5)
    pages.publish()

    labeler.open(pages.project)
    assert labeler.unticked() == []
    assert not labeler.page.locator(".alc-picture").is_visible()
    assert not labeler.page.locator(".alc-classes").is_visible()
    tiles = labeler.page.locator(".alc-tile")
    boxes = [tiles.nth(place).bounding_box() for place in range(12)]
    assert all(box["width"] == box["height"] >= 200 for box in boxes)
    assert not labeler.page.locator(".lsf-sidepanels__wrapper").first.is_visible()
    assert all(box["x"] + box["width"] < SCREEN["width"] for box in boxes)
    assert all(box["y"] + box["height"] < 750 for box in boxes)  # above its buttons
    labeler.press("Enter")

    assert labeler.page.locator(".alc-picture").is_visible()
    assert not labeler.page.locator(".alc-tiles").is_visible()
    labeler.press("3", "Enter")

    assert "“person” or “cat”" in labeler.page.inner_text("body")
    labeler.press("2", "5", "5", "Enter")
    labeler.press("Enter")
    labeler.page.keyboard.press("1")
    labeler.page.locator(".alc-tile").nth(1).click()
    assert labeler.unticked() == [1, 2]
    labeler.page.keyboard.press("3")
    labeler.page.keyboard.press("Enter")

    given = wait_for(lambda: found if len(found := answers(pages)) == 5 else None)
    assert given[first.key].ticked == set(range(1, 13))
    assert given[second.key].ticked == {1, 3, 4, 5}
    assert given[third.key].ticked == frozenset()
    assert [given[asked.key].choice for asked in (first, second, third)] == [None] * 3
    assert (given[single.superpixel].choice, given[single.superpixel].ticked) == ("dog", None)
    assert given[other.superpixel].choice == "cat"
    assert {answer.round_number for answer in given.values()} == {1}


def test_a_page_that_is_handed_out_to_nobody_is_answered_at_its_address(pages, labeler):
    """As those of reviews are: closed, and last in the queue."""
    asked = pages.add_page(5)
    pages.publish()
    (item,) = pages.queue
    tasks.close_task(pages.client, item.task_id)
    labeler.page.goto(f"{labeler.url}/projects/{pages.project}/data?task={item.task_id}")
    labeler.page.wait_for_function(
        "() => document.querySelectorAll('.alc-tiles input:checked').length === 5"
    )
    untick(labeler, 2)
    with labeler.page.expect_response(
        lambda response: response.request.method == "POST" and "/annotations" in response.url
    ):
        labeler.page.get_by_role("button", name="Submit").click()
    assert answers(pages)[asked.key].ticked == {1, 3, 4, 5}


def untick(labeler, position):
    """Press a tile's key until it is unticked: a slow screen may not listen yet."""

    def is_unticked():
        if position in labeler.unticked():
            return True
        labeler.page.keyboard.press(str(position))
        labeler.page.wait_for_timeout(1000)
        return position in labeler.unticked()

    wait_for(is_unticked)


def test_what_was_unticked_is_still_so_after_going_away(pages, labeler):
    pages.add_page(5)
    pages.publish()
    labeler.open(pages.project)
    task = labeler.task["id"]
    untick(labeler, 2)
    untick(labeler, 4)
    wait_for(lambda: pages.client.get(f"/api/tasks/{task}")["drafts"])
    labeler.open(pages.project)
    wait_for(lambda: labeler.unticked() == [2, 4])


def test_a_page_is_skipped_with_one_key(pages, labeler):
    pages.add_page(2)
    pages.add_page(3)
    pages.publish()
    labeler.open(pages.project)
    task = labeler.task["id"]
    labeler.press("Space")
    (given,) = pages.client.get(f"/api/tasks/{task}")["annotations"]
    skipped = parse(given)
    assert (skipped.cancelled, skipped.ticked, skipped.choice) == (True, None, None)


def test_twenty_pages_by_keyboard_alone(pages, labeler, capsys):
    asked = [pages.add_page(12, seed=number, labels=(number % 3,)) for number in range(21)]
    pages.publish()
    labeler.open(pages.project)
    waits = [labeler.press("Enter") for _ in asked[:-1]]
    assert labeler.keys == 20
    given = [task["annotations"] for task in pages.client.tasks(pages.project)]
    assert sum(map(len, given)) == 20
    assert all(parse(one).ticked == set(range(1, 13)) for those in given for one in those)
    with capsys.disabled():
        print(f"\nnext page ready after {statistics.median(waits):.2f} s (median of 20)")


def test_two_labelers_share_a_queue_of_both_kinds(pages, labeler, browser, tmp_path):
    """Each question goes to one of them, in the queue's order, and the ledger can tell who."""
    url, email = pages.client.url, f"{uuid.uuid4().hex[:8]}@example.com"
    with Client(url, new_user(pages.client, email, PASSWORD)) as theirs:
        set_keys(theirs)
    colleague = Labeler(browser, url, email, PASSWORD, viewport=SCREEN)
    for number in range(6):
        pages.add_page(4, seed=number)
        pages.add_single(tmp_path, "chelsea", 9 + number)
    pages.publish()
    both = (labeler, colleague)
    for person in both:
        person.open(pages.project)
    assert labeler.task["id"] != colleague.task["id"]
    for turn in range(10):
        both[turn % 2].press("Enter")
    colleague.page.context.close()

    done = [task for task in pages.client.tasks(pages.project) if task["annotations"]]
    assert len(done) == 10
    by_person = {}
    for task in done:
        (given,) = task["annotations"]
        kinds = by_person.setdefault(parse(given).annotator, [])
        kinds.append(bool(task["data"]["tiles"]))
    assert len(by_person) == 2
    assert all(len(kinds) == 5 for kinds in by_person.values())
    assert sum(sum(kinds) for kinds in by_person.values()) == 5
    served = [task["id"] for person in both for task in person.served]
    assert sorted(set(served)) == sorted(item.task_id for item in pages.queue)


def test_only_those_who_are_logged_in_see_a_sheet_and_it_goes_with_its_page(pages):
    asked, other = pages.add_page(2), pages.add_page(3)
    client = pages.client
    assert httpx.get(f"{client.url}{asked.sheet}").status_code in (401, 403)
    assert uploads.remove_sheets(client, pages.sheets, [asked.key]) == 1
    left = uploads.uploaded_sheets(client, pages.sheets)
    assert [*left[other.key].values()] == [other.sheet]
    assert asked.key not in left
