"""What labelers and admins see, in a real Chromium; in a whole run, after ``test_plain_images``."""

from __future__ import annotations

import io
import statistics

import numpy as np
import pytest
from PIL import Image as Picture
from rich.console import Console
from sqlalchemy import select

from alc_backend.cli.demo.processes import EMAIL
from alc_backend.cli.demo.rounds import ensure_open_round
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.projects import set_keys
from alc_backend.labelstudio.regions import painted
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.loop.rounds import status
from alc_backend.store.models import LedgerEntry, Project
from alc_backend.store.round_states import RoundState
from tests.conftest import wait_for
from tests.e2e.browser import Labeler, chromium
from tests.e2e.chaos import new_user
from tests.e2e.demonstration import alc, project_row

pytestmark = [pytest.mark.ls, pytest.mark.browser, pytest.mark.slow]

PASSWORD = "correct horse 9"
GREEN, YELLOW = np.array([0, 230, 118]), np.array([255, 235, 59])


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def demo(running):
    """The demonstration with a queue that is long enough."""
    demo, processes = running
    with demo.store.reading() as session:
        several = len(session.scalars(select(Project)).all()) > 1
    if status.latest_round(demo.store, demo.project_id) is None:
        ensure_open_round(demo, processes, Console(quiet=True), 60)
    else:
        name = ["--project", project_row(demo).name] if several else []
        alc(demo, "round", "start", "--size", "60", "--wait", *name)
    return demo


@pytest.fixture(scope="module")
def labeler(browser, demo):
    return Labeler(browser, demo.client.url, EMAIL, demo.password)


def screenshot(labeler):
    return np.asarray(Picture.open(io.BytesIO(labeler.page.screenshot())).convert("RGB"), int)


def distance_to(pixels, x, y, colour, reach=3):
    """How near the colour of some pixel around (x, y) comes to ``colour``, per channel."""
    x, y = round(x), round(y)
    around = pixels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    return np.abs(around - colour).max(axis=2).min()


def on_screen(frame, x, y):
    """Where a point of an image in ``frame``, given in percent, is on the screen."""
    left, top, width, height = frame
    return left + x / 100 * width, top + y / 100 * height


def regions_of(task, kind):
    newest = max(task["predictions"], key=lambda prediction: prediction["id"])
    return [item["value"] for item in newest["result"] if item["type"] == kind]


def test_the_screen_shows_star_box_and_outline_where_they_belong(demo, labeler):
    labeler.open(demo.query_project)
    polygons = regions_of(labeler.task, "polygonlabels")
    (star,) = [item for item in polygons if item["polygonlabels"] == ["pixel"]]
    center = np.mean(star["points"], axis=0)

    def marked():
        """What is on the screen once the marks, which come after the image, are there."""
        frame, pixels = labeler.image(), screenshot(labeler)
        at_star = distance_to(pixels, *on_screen(frame, *center), GREEN, reach=1)
        return (frame, pixels) if at_star < 30 else None

    frame, pixels = wait_for(marked)
    (box,) = regions_of(labeler.task, "rectanglelabels")
    along = np.linspace(0, 1, 20)
    edges = [(x, y) for t in along for x, y in ((t, 0), (t, 1), (0, t), (1, t))]
    border = [
        on_screen(frame, box["x"] + x * box["width"], box["y"] + y * box["height"])
        for x, y in edges
    ]
    green = [distance_to(pixels, *point, GREEN) < 60 for point in border]
    assert np.mean(green) > 0.5  # the outline covers it where both run along
    outlines = [item for item in polygons if item["polygonlabels"] == ["superpixel"]]
    corners = [on_screen(frame, *point) for item in outlines for point in item["points"]]
    near = [distance_to(pixels, *corner, YELLOW, reach=4) < 110 for corner in corners]
    assert np.mean(near) > 0.5  # the star or the box covers some
    question = labeler.task["data"]["question"]
    assert question in labeler.page.inner_text("body")


def test_twenty_queries_by_keyboard_alone(demo, labeler, capsys):
    labeler.open(demo.query_project)
    expected, waits = {}, []
    labeler.keys = 0
    for number in range(20):
        task = labeler.task
        first, *others = task["data"]["choices"]
        chosen = first if number % 2 else others[number % len(others)]
        expected[task["id"]] = chosen["value"]
        keys = ["Enter"] if chosen is first else [chosen["hotkey"], "Enter"]
        waits.append(labeler.press(*keys))
    assert labeler.keys == 10 * 1 + 10 * 2
    assert len(expected) == 20
    given, numbers = {}, set()
    for task in demo.client.tasks(demo.query_project):
        for annotation in task["annotations"]:
            if task["id"] in expected:
                (choice,) = [r for r in annotation["result"] if r["type"] == "choices"]
                given[task["id"]] = choice["value"]["choices"][0]
                numbers.add(annotation["id"])
    assert given == expected

    def in_ledger():
        with demo.store.reading() as session:
            return numbers <= set(session.scalars(select(LedgerEntry.annotation_id)))

    wait_for(in_ledger)
    with capsys.disabled():
        print(f"\nnext question ready after {statistics.median(waits):.2f} s (median of 20)")


def test_one_key_skips_and_none_is_recorded_by_mistake(demo, labeler):
    labeler.open(demo.query_project)
    asked = labeler.task
    labeler.page.keyboard.press(asked["data"]["choices"][0]["hotkey"])  # deselects the preselected
    labeler.page.keyboard.press("Enter")
    labeler.page.get_by_text("Choose the class at the star.").wait_for()
    record = demo.client.get(f"/api/tasks/{asked['id']}")
    assert record["annotations"] == []
    labeler.open(demo.query_project)
    skipped = labeler.task["id"]
    labeler.press("Space")
    (annotation,) = demo.client.get(f"/api/tasks/{skipped}")["annotations"]
    assert annotation["was_cancelled"]


def test_two_labelers_never_see_the_same_open_question(demo, browser, labeler):
    email = "screen@example.com"
    other = Client(demo.client.url, new_user(demo.client, email, PASSWORD))
    set_keys(other)
    other.close()
    second = Labeler(browser, demo.client.url, email, PASSWORD)
    for one in (labeler, second):
        one.open(demo.query_project)
    answered = {labeler: set(), second: set()}
    for _ in range(6):
        for one in (labeler, second):
            assert labeler.task["id"] != second.task["id"]
            answered[one].add(one.task["id"])
            one.press("Enter")
    assert len(answered[labeler]) == len(answered[second]) == 6
    assert not answered[labeler] & answered[second]
    second.page.context.close()


def test_a_project_connected_by_the_form_shows_masks_and_edits_reach_the_export(
    demo, running, browser, labeler, tmp_path
):
    classes = ["background", "tree", "roof"]
    config = (
        '<View><Image name="photo" value="$photo"/><BrushLabels name="mask" toName="photo">'
        + "".join(f'<Label value="{name}"/>' for name in classes)
        + "</BrushLabels></View>"
    )
    theirs = demo.client.post("/api/projects/", {"title": "By hand", "label_config": config})["id"]
    path = tmp_path / "image.png"
    Picture.fromarray(np.full((60, 90, 3), 120, dtype=np.uint8)).save(path)
    (url,) = demo.client.upload(theirs, [path])
    superpixels = np.zeros((60, 90), dtype=np.int32)
    superpixels[10:30, 10:40], superpixels[35:50, 50:80] = 1, 2
    labels = np.where(superpixels, superpixels, 0).astype(np.uint8)
    names = {"from_name": "mask", "to_name": "photo"}
    (task,) = demo.client.post(
        f"/api/projects/{theirs}/import",
        [
            {
                "data": {"photo": url},
                "predictions": [{"result": mask_regions(labels, superpixels, classes, **names)}],
            }
        ],
        return_task_ids="true",
    )["task_ids"]

    page = labeler.page
    page.goto(f"{demo.client.url}/projects/{theirs}/settings/ml")
    page.locator("button", has_text="Connect Model").first.click()
    page.fill("input[name=title]", "alc-backend")
    page.fill("input[name=url]", demo.settings.backend)
    page.locator("button", has_text="No Authentication").click()
    page.get_by_text("Basic Authentication").last.click()
    page.fill("input[name=basic_auth_user]", "alc")
    page.fill("input[name=basic_auth_pass]", demo.settings.secret.get_secret_value())
    page.locator("button", has_text="Validate and Save").click()

    def taken_up():
        with demo.store.reading() as session:
            found = session.scalars(
                select(Project).where(Project.dataset_project == theirs)
            ).first()
        return found if found and found.query_project else None

    project = wait_for(taken_up)
    (image,) = wait_for(lambda: demo.store.images(project.id, "train"))
    assert len(demo.client.get("/api/ml", project=theirs)) == 1
    demo.client.post(
        "/api/dm/actions",
        {"selectedItems": {"all": False, "included": [task]}},
        id="retrieve_tasks_predictions",
        project=theirs,
    )
    shown = demo.client.get(f"/api/tasks/{task}")["predictions"]
    newest = max(shown, key=lambda prediction: prediction["id"])
    assert newest["model_version"].startswith("alc-")
    assert np.array_equal(painted(newest["result"], classes, labels.shape)[0], labels)

    # A relabelled region, submitted there, is in the exported dataset.
    edited = [
        {**item, "value": {**item["value"], "brushlabels": ["roof"]}} for item in newest["result"]
    ]
    demo.client.post(
        f"/api/tasks/{task}/annotations/", {"result": edited, "parent_prediction": newest["id"]}
    )
    out = tmp_path / "export"
    alc(demo, "export", str(out), "--project", project.name)
    exported = np.asarray(Picture.open(out / "labels" / f"{image.key}.png"))
    assert np.array_equal(exported, np.where(superpixels, 2, 0))


@pytest.fixture
def admin(browser, demo):
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        http_credentials={"username": "admin", "password": demo.settings.secret.get_secret_value()},
    )
    page = context.new_page()
    page.goto(f"{demo.settings.backend}/projects/{demo.project_id}")
    yield page
    context.close()


def serious_faults(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        (fault["id"], [node["html"] for node in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def test_the_admin_page_from_the_start_of_a_round_to_its_end(demo, running, admin):
    before = status.latest_round(demo.store, demo.project_id).number
    admin.get_by_role("button", name="Start round").click()
    admin.get_by_text("The round was started.").wait_for()
    admin.locator(".steps progress").first.wait_for()
    assert serious_faults(admin) == []
    admin.locator(".steps").wait_for(state="detached", timeout=200_000)
    assert status.latest_round(demo.store, demo.project_id).number == before + 1
    assert status.latest_round(demo.store, demo.project_id).state == RoundState.OPEN
    assert admin.get_by_role("table", name="Rounds").is_visible()
    assert serious_faults(admin) == []
    admin.set_viewport_size({"width": 390, "height": 800})
    wide = "() => document.documentElement.scrollWidth > innerWidth"
    wait_for(lambda: not admin.evaluate(wide))  # the plots take on their new width a moment later
    admin.get_by_role("link", name="Images", exact=True).click()
    admin.locator("img").first.wait_for()
    assert serious_faults(admin) == []
    assert not admin.evaluate(wide)
