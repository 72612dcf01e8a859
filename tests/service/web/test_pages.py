"""The pages for people, without a browser; ``tests/e2e`` looks at them in one."""

from __future__ import annotations

import html
import io
import json
import re
from importlib import resources
from pathlib import PurePosixPath

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.loop import overview
from alc_backend.loop.rounds import status
from alc_backend.service.web.app import create_app
from alc_backend.service.web.pages import static, tiles
from alc_backend.store import upkeep
from alc_backend.store.importing import import_folder
from alc_backend.store.kinds import Removal
from alc_backend.store.models import Image, Project, Round
from alc_backend.store.round_states import RoundState
from tests.annotations import (
    CAT,
    DOG,
    NOON,
    QUERY_PROJECT,
    answer,
    arrive,
    asked_project,
    created,
    image_of,
    label_map,
    label_studio_of,
    round_config,
    task_of,
)
from tests.conftest import BOTH_DATABASES, write_dataset
from tests.machine import write_batch
from tests.pages import add_page, say_to_page

TOKEN = re.compile(r'name="token" value="(\w+)"')


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def client(project, service):
    return service


def press(client, path, token=None):
    if token is None:
        token = TOKEN.search(client.get("/").text)[1]
    return client.post(path, data={"token": token} if token else {}, follow_redirects=False)


def latest(store, project):
    return status.latest_round(store, project)


def test_the_admin_page_needs_the_password_and_loads_nothing_from_elsewhere(client, settings):
    with TestClient(create_app(settings)) as stranger:
        for path in ("/", "/images", "/images/1/after", "/projects/1", "/superpixels/1.jpg"):
            refused = stranger.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic")
        assert stranger.post("/projects/1/start").status_code == 401
        assert stranger.get("/health").json()["status"] == "UP"
    page = client.get("/")
    assert page.status_code == 200
    assert "pets" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'nonce-[\w-]+'", policy)
    assert not re.search(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1:8080)', page.text)


def image_of_any(store):
    with store.reading() as session:
        return session.scalars(select(Image.id).order_by(Image.id)).first()


def test_names_are_text_in_the_page(store, project, settings, redis):
    with store.session() as session:
        row = session.get_one(Project, project)
        row.name, row.classes = "<script>alert(1)</script>", ["<i>a", "</script><u>b", "c"]
        for image in session.scalars(select(Image)):
            image.key = f'<b onclick="x">{image.id}'
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        image = image_of_any(store)
        for path in ("/", "/images", f"/images/{image}"):
            page = client.get(path).text
            assert "<u>b" not in page
            assert "<script>alert" not in page
            assert "<b onclick" not in page
            assert "<i>a" not in page


@pytest.mark.parametrize("public", [None, "https://labels.example.com/"])
def test_links_lead_where_browsers_reach_label_studio(project, settings, redis, public):
    settings = settings.model_copy(
        update={"label_studio_url": "http://label-studio:8080", "label_studio_public_url": public}
    )
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        page = client.get("/").text
    expected = (public or "http://label-studio:8080").rstrip("/")
    assert set(re.findall(r'href="(\w+://[^"]+)/projects', page)) == {expected}


def links(page):
    return set(re.findall(r'(?:href|src|action)="(/[^"?]*)', page))


@pytest.fixture
def behind(project, settings, redis):
    """A client behind a proxy that offers the service under /tools/alc."""
    settings = settings.model_copy(update={"trusted_proxies": "192.0.2.0/24"})
    headers = {"Authorization": "Bearer s3cret", "X-Forwarded-Prefix": "/tools/alc"}
    with TestClient(create_app(settings), headers=headers, client=("192.0.2.7", 1)) as found:
        yield found


def test_pages_lead_on_below_the_path_of_a_proxy(behind, store, project):
    admin, gallery = behind.get(f"/projects/{project}"), behind.get("/images")
    image = image_of(store, "a").id
    assert {"/tools/alc/", "/tools/alc/images", f"/tools/alc/projects/{project}/start"} <= links(
        admin.text
    )
    assert f"/tools/alc/images/{image}/image" in links(gallery.text)
    for page in (admin, gallery):
        assert all(link.startswith("/tools/alc/") for link in links(page.text))
    assert f'hx-get="/tools/alc/projects/{project}"' in admin.text
    assert "Path=/tools/alc;" in admin.headers["set-cookie"]
    token = TOKEN.search(admin.text)[1]
    started = behind.post(
        f"/projects/{project}/start",
        data={"token": token},
        headers={"Cookie": admin.headers["set-cookie"].partition(";")[0]},
        follow_redirects=False,
    )
    assert (started.status_code, started.headers["location"]) == (
        303,
        f"/tools/alc/projects/{project}?said=started",
    )


def test_nobody_but_a_proxy_says_where_pages_lead(client):
    page = client.get("/", headers={"X-Forwarded-Prefix": "/tools/alc"})
    assert not any(link.startswith("/tools") for link in links(page.text))
    assert "Path=/;" in page.headers["set-cookie"]


def test_the_buttons_start_and_cancel_a_round(client, store, project):
    started = press(client, f"/projects/{project}/start")
    assert (started.status_code, started.headers["location"]) == (
        303,
        f"/projects/{project}?said=started",
    )
    assert "The round was started." in client.get(started.headers["location"]).text
    assert latest(store, project).state == RoundState.CREATED
    again = press(client, f"/projects/{project}/start")
    assert again.headers["location"] == f"/projects/{project}?said=running"
    page = client.get("/").text
    assert 'data-running="1"' in page
    assert "Round 2 is being prepared." in page
    cancelled = press(client, f"/projects/{project}/cancel")
    assert cancelled.headers["location"] == f"/projects/{project}?said=cancelled"
    assert latest(store, project).state == RoundState.CANCELLED
    refused = press(client, f"/projects/{project}/cancel")
    assert refused.status_code == 409
    assert "no round of project" in refused.text


def test_other_sites_cannot_press_the_buttons(client, store, project):
    path = f"/projects/{project}/start"
    assert client.post(path).status_code == 403  # no cookie
    token = TOKEN.search(client.get("/").text)[1]
    for given in ("", "0" * 64, token[:-1], "é" * 20):
        assert press(client, path, given).status_code == 403
    assert client.post(path, content=b"token=" + b"x" * 9999).status_code == 413
    client.cookies.clear()
    assert client.post(path, data={"token": token}).status_code == 403
    assert latest(store, project).number == 1
    cookie = client.get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_what_was_said_comes_from_a_list(client):
    assert "you won" not in client.get("/projects/1?said=<b>you won</b>").text


@BOTH_DATABASES
def test_images_before_and_after_with_who_said_what(client, store, project):
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog", by=8)))
    wall = client.get("/images").text
    assert names_on(wall) == ["b", "a", "c"]  # answered about last
    assert "1 confirmed, 1 corrected" in wall
    image = image_of(store, "b")
    page = client.get(f"/images/{image.id}").text
    row = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]
    assert row[1:] == ["8", "2", "correct", "cat", "dog", "yes", "Undo"]
    before, after = (
        np.asarray(Picture.open(io.BytesIO(client.get(f"/images/{image.id}/{which}").content)))
        for which in ("before", "after")
    )
    assert np.array_equal(after, label_map(store, project, "b"))
    assert set(np.unique(before[before != after])) == {CAT}
    assert set(np.unique(after[before != after])) == {DOG}
    for size in ("small", "large"):
        content = client.get(f"/images/{image.id}/image?size={size}").content
        assert Picture.open(io.BytesIO(content)).size == (64, 48)
    assert client.get(f"/images/{image.id}/image?size=huge").status_code == 422


def test_superpixels_say_who_decided_what(client, store, project):
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog", by=8)))
    image = image_of(store, "b")
    page = client.get(f"/images/{image.id}").text
    (told,) = re.findall(r'id="superpixels"[^>]*>([^<]*)<', page)
    said = json.loads(told)
    assert said["2"]["is"] == "dog"
    assert re.fullmatch(r"corrected by user 8, [-0-9]+ [0-9:]+ UTC", said["2"]["why"])
    assert said["1"] == {"is": "cat", "why": "nobody has confirmed it"}
    ids = np.asarray(
        Picture.open(io.BytesIO(client.get(f"/images/{image.id}/superpixels").content))
    )
    assert ids.shape == (48, 64, 3)
    assert np.array_equal(ids[..., 0], store.files(project).read_superpixels(image.id))


def test_an_answer_is_undone_on_the_page_of_its_image(client, store, project, monkeypatch):
    label_studio = label_studio_of(store)
    label_studio.serve(monkeypatch)
    said = created(answer(1, task_of(store, "b", 2), "dog"))
    arrive(store, project, said, label_studio=label_studio)
    image = image_of(store, "b")
    assert label_map(store, project, "b").max() == DOG
    page = client.get(f"/images/{image.id}").text
    (path,) = re.findall(r'action="(/answers/\d+/revert)"', page)
    undone = press(client, path)
    assert (undone.status_code, undone.headers["location"]) == (
        303,
        f"/images/{image.id}?said=undone",
    )
    assert "It is undone" in client.get(undone.headers["location"]).text
    assert label_map(store, project, "b").max() == CAT
    again = press(client, path)
    assert again.status_code == 409
    assert "Nothing was undone" in again.text
    assert press(client, "/answers/999/revert").status_code == 404
    assert press(client, path, "0" * 64).status_code == 403


def names_on(wall):
    return re.findall(r'class="name">([^<]+)<', wall)


def test_pages_of_images(settings, redis, store, tmp_path):
    names = [f"p{number:02d}" for number in range(60)]
    project = asked_project(store, write_dataset(tmp_path / "many", names))
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        seen, path = [], f"/images?project={project}"
        while path:
            page = client.get(path).text
            seen += names_on(page)
            path = next(iter(re.findall(r'rel="next" href="([^"]+)"', page)), "").replace(
                "&amp;", "&"
            )
        assert seen == names
        assert client.get(f"/images?project={project}&begin=key-p59").status_code == 200
        assert "no further images" in client.get(f"/images?project={project}&begin=key-p59").text
        for begin in ("p59", "9-x", "-1-2", "key-a%00"):
            assert client.get(f"/images?project={project}&begin={begin}").status_code == 404
        assert client.get("/images?sort=best").status_code == 422
        assert client.get("/images?shows=unicorn").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/images/999/image",
        "/images/99999999999999999999/after",
        "/images?project=999",
        "/projects/999",
        "/superpixels/999.jpg",
        "/superpixels/99999999999999999999.jpg",
        "/static/pages.py",
        "/static/../app.py",
        "/static/vendor/README.md",
    ],
)
def test_what_there_is_not_is_not_found(client, path):
    assert client.get(path).status_code == 404


def test_the_curves_of_a_project(client, store, project):
    with store.session() as session:
        for number, miou in ((2, 0.5), (3, None), (4, 0.6)):
            session.add(
                Round(
                    project_id=project,
                    number=number,
                    state=RoundState.CLOSED,
                    config=round_config(),
                    answers=10 * number,
                    labeler_s=360.0 * number,
                    data_miou=miou,
                )
            )
    page = client.get(f"/projects/{project}").text
    (told,) = re.findall(r'data-rounds="([^"]*)"', page)
    assert json.loads(html.unescape(told)) == {
        "x": {"hours": [0.2, 0.4], "answers": [20, 40]},
        "y": [{"label": "data mIoU", "values": [0.5, 0.6]}],
    }


def test_every_file_of_the_pages_is_served_and_kept(client, store, project):
    pages = (f"/projects/{project}", f"/images/{image_of(store, 'a').id}")
    found = {
        link
        for page in pages
        for link in re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get(page).text)
    }
    assert {path.split("?")[0] for path in found} == {f"/static/{name}" for name in static.NAMES}
    for path in found:
        answer = client.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        suffix = PurePosixPath(path.split("?")[0]).suffix
        assert answer.headers["content-type"].split(";")[0] == static.TYPES[suffix]


def test_the_files_of_others_are_those_that_the_table_names():
    folder = resources.files("alc_backend.service.web") / "static" / "vendor"
    table = (folder / "README.md").read_text()
    for file in folder.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in table


def test_superpixels_of_classes_are_shown(client, store, project):
    arrive(store, project, created(answer(1, task_of(store, "b", 2), "dog", by=8)))
    page = client.get(f"/projects/{project}").text
    (source,) = re.findall(r'src="(/superpixels/\d+\.jpg)"', page)
    tile = client.get(source)
    assert tile.headers["content-type"] == "image/jpeg"
    assert Picture.open(io.BytesIO(tile.content)).size == (tiles.SIDE_PX, tiles.SIDE_PX)


def test_several_projects_are_listed(client, store, project, tmp_path):
    import_folder(store, write_dataset(tmp_path / "more", ["x"]), "birds")
    page = client.get("/", follow_redirects=False)
    assert page.status_code == 200
    assert page.text.index(">birds</a>") < page.text.index(">pets</a>")
    assert f'href="/projects/{project}"' in page.text
    assert "6 questions are left." in page.text
    assert "Connect this project to Label Studio." in page.text


def test_without_a_project_the_page_says_what_to_do(settings, redis):
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        assert "alc init" in client.get("/").text
        assert client.get("/images").status_code == 404


@BOTH_DATABASES
def test_the_admin_page_tells_how_labels_were_confirmed(client, store, project, monkeypatch):
    monkeypatch.setattr(overview, "REFRESH_S", 0.0)
    assert "How labels were confirmed" not in client.get("/").text  # nothing was
    say_to_page(store, add_page(store, project, proposed=DOG), 1, {1, 3}, lead_time=9.0)
    write_batch(store, project, [("c", 2)])
    page = client.get("/").text
    tables = re.findall(r"<caption>([^<]+)</caption>(.*?)</table>", page, re.S)
    cells = {
        caption: [re.findall(r"<td>([^<]*)</td>", row) for row in body.split("<tr>")[2:]]
        for caption, body in tables
    }
    assert cells["How labels were confirmed"] == [
        ["by a question of its own", "0", "0 %", "–", "–"],
        ["on a page of look-alikes", "2", "33 %", "9.0", "4.5"],
        ["by hand in the dataset project", "0", "0 %", "–", "–"],
        ["by nobody: rest on the machine", "4", "67 %", "–", "–"],
        ["— of these, labelled on the machine's own word", "1", "17 %", "–", "–"],
    ]
    (dog,) = [row for row in page.split("<tr>") if "</svg>dog</td><td>2</td>" in row]
    assert '67 % <span class="soft small">of 3 (21 % to 94 %)</span>' in dog


@pytest.mark.parametrize(
    ("classes", "said"),
    [(["background", "cat", "dog"], r"saves \d+ % of the work"),
     (["background", "cat"], "with two classes, accepting and naming one cost the same")],
)  # fmt: skip
def test_what_correcting_saves_depends_on_the_number_of_classes(
    settings, redis, store, dataset, classes, said
):
    if len(classes) == 2:
        for truth in (dataset / "ground_truth").iterdir():
            dog = np.asarray(Picture.open(truth)) == DOG
            Picture.fromarray(np.where(dog, 0, CAT).astype(np.uint8)).save(truth)
        (dataset / "classes.txt").write_text("\n".join(classes))
    project = asked_project(store, dataset)
    arrive(store, project, created(answer(1, task_of(store, "a", 1), "cat")))
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        page = client.get("/").text
    assert re.search(said, page)
    assert len(re.findall("saves|cost the same", page)) == 1


def test_the_page_of_an_image_tells_tiles(client, store, project):
    say_to_page(store, add_page(store, project, proposed=DOG), 1, {1, 3})
    rows = []
    for key in ("a", "b", "c"):
        page = client.get(f"/images/{image_of(store, key).id}").text
        for row in page.split("<tr")[2:]:
            cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
            rows.append([re.sub("<[^>]*>", "", cell) for cell in cells[2:]])
    # what undoes the page stands beside what was said last of an image there
    assert ["1", "correct (page, tile 1)", "cat", "dog", "yes", ""] in rows
    assert ["1", "correct (page, tile 3)", "cat", "dog", "yes", "Undo page"] in rows
    assert ["2", "ruled out (page, tile 2)", "cat", "not dog", "yes", "Undo page"] in rows


def test_a_page_is_undone_beside_what_still_counts_of_it(client, store, project):
    page_id = add_page(store, project, [("a", 1), ("a", 2)], proposed=DOG)
    say_to_page(store, page_id, 1, {1, 2})
    arrive(store, project, created(answer(2, task_of(store, "a", 2), "cat")))  # tile 2 is over
    page = client.get(f"/images/{image_of(store, 'a').id}").text
    assert page.count("Undo page") == 1


def test_an_image_that_is_out_says_so(client, store, project):
    image = image_of(store, "b").id
    assert "out of the dataset" not in client.get(f"/images/{image}").text
    with store.session() as session:
        upkeep.set_removed(session, project, {image: Removal.TASK_DELETED})
    assert "out of the dataset (task deleted)" in client.get(f"/images/{image}").text


def test_what_is_to_be_typed_stands_out_in_problems(client, store, project):
    with store.session() as session:
        session.add(
            Round(
                project_id=project,
                number=9,
                state=RoundState.FAILED,
                config=round_config(),
                error="<b>no</b> memory; run `alc worker --lean` & wait",
                warning="a ` alone",
            )
        )
    page = client.get(f"/projects/{project}").text
    assert "&lt;b&gt;no&lt;/b&gt; memory; run <code>alc worker --lean</code> &amp; wait" in page
    assert "a ` alone" in page


def test_pages_of_reviews_are_linked_while_they_wait(client, store, project):
    page = add_page(store, project, task_id=801, review=True, closed_at=NOON)
    link = f"/projects/{QUERY_PROJECT}/data?task=801"
    text = client.get(f"/projects/{project}").text
    assert "1 page waits for a review" in text
    assert f'{link}">cat</a>' in text
    say_to_page(store, page, 5, {1, 2, 3}, label_studio_project=QUERY_PROJECT)
    assert "for a review" not in client.get(f"/projects/{project}").text
