"""Shapes are read as Label Studio's screen shows them, pixel by pixel.

It is one that starts as it comes: under a path, and guarded against private addresses.
"""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageFilter

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import EMAIL, LABEL_STUDIO_LIMIT_S, label_studio_command
from alc_backend.cli.doctor_checks.connection import Connection
from alc_backend.cli.doctor_checks.finding import run_checks
from alc_backend.labelstudio import images
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.regions import read_regions
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.labelstudio.tokens import create_personal_token
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings
from tests.conftest import wait_for
from tests.e2e.browser import Labeler, chromium
from tests.e2e.label_studio import copy_migrated
from tests.labelstudio.results import bitmask_value, brush_value, result
from tests.ports import free_port

pytestmark = [pytest.mark.ls, pytest.mark.browser, pytest.mark.slow]

PASSWORD = "correct horse 9"
SHAPE = (240, 400)
RED = np.array([255, 0, 0])
KINDS = ("rectangle", "polygon", "ellipse", "bitmask", "brush")  # no brush's slider on the image
TAGS = "".join(
    f'<{kind.title()}Labels name="{kind}" toName="image" opacity="1" fillOpacity="1" '
    'strokeWidth="0"><Label value="cat" alias="felis" background="#ff0000"/>'
    f'<Label value="dog"/></{kind.title()}Labels>'
    for kind in KINDS
)
CONFIG = f'<View><Image name="image" value="$image"/>{TAGS}</View>'
BLOB = np.zeros(SHAPE, dtype=bool)
BLOB[30:90, 50:300] = BLOB[90:200, 120:160] = True
HOLED = BLOB.copy()
HOLED[40:70, 70:110] = HOLED[100:120, 130:150] = False


def own_value(kind):
    """A mask with holes as this backend shows it."""
    labels, superpixels = np.zeros(SHAPE, dtype=np.uint8), HOLED.astype(np.int32)
    (made,) = mask_regions(labels, superpixels, ["cat"], shape=kind)
    return {name: value for name, value in made["value"].items() if name != made["type"]}


DRAWN = [
    ("rectangle", {"x": 40.3, "y": 20.2, "width": 40, "height": 30, "rotation": 25}),
    ("rectangle", {"x": 80.3, "y": 60.2, "width": 30, "height": 40, "rotation": 130.5}),
    ("ellipse", {"x": 50.3, "y": 50.2, "radiusX": 30, "radiusY": 20, "rotation": 0}),
    ("ellipse", {"x": 50.3, "y": 50.2, "radiusX": 30, "radiusY": 20, "rotation": 70}),
    ("polygon", {"points": [[5.3, 5.2], [90.3, 30.2], [60.3, 90.2], [50.3, 40.2]], "closed": True}),
    ("polygon", {"points": [[10.3, 10.2], [80.3, 80.2], [80.3, 10.2], [10.3, 80.2]]}),
    ("polygon", {"points": [[50.3, 5.2], [75.3, 90.2], [5.3, 35.2], [95.3, 35.2], [25.3, 90.2]]}),
    ("brush", brush_value(BLOB)),
    ("bitmask", bitmask_value(BLOB)),
    ("bitmask", own_value("bitmask")),
    ("polygon", own_value("polygon")),
]  # fmt: skip


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory):
    """The address of a Label Studio that a proxy offers under /labels."""
    folder = tmp_path_factory.mktemp("shapes")
    options = DemoOptions(data_dir=folder, port=free_port())
    copy_migrated(options)
    inner = f"http://127.0.0.1:{options.port}"

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = self.path.removeprefix("/labels")
            if path == self.path:
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = [(k, v) for k, v in self.headers.items() if k.lower() != "accept-encoding"]
            answer = httpx.request(
                self.command, inner + path, headers=headers, content=body, timeout=60
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            with suppress(OSError):  # a browser that has gone to another page
                self.end_headers()
                self.wfile.write(answer.content)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy, Processes(folder) as processes:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}/labels"
        command = [label_studio_command(None), "start", "--no-browser"]
        command += ["--internal-host", "127.0.0.1", "--port", str(options.port)]
        command += ["--data-dir", str(folder / "label-studio")]
        environment = {
            "LABEL_STUDIO_HOST": url,
            "LABEL_STUDIO_USERNAME": EMAIL,
            "LABEL_STUDIO_PASSWORD": PASSWORD,
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
        processes.start("label-studio", command, environment=environment)
        processes.wait_for(lambda: _is_up(inner), "Label Studio", LABEL_STUDIO_LIMIT_S)
        yield url
        proxy.shutdown()


def _is_up(url):
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def token(label_studio):
    return create_personal_token(label_studio, EMAIL, PASSWORD)


@pytest.fixture(scope="module")
def client(label_studio, token):
    with Client(label_studio, token) as found:
        yield found


@pytest.fixture(scope="module")
def project(client):
    return client.post("/api/projects/", {"title": "shapes", "label_config": CONFIG})["id"]


@pytest.fixture(scope="module")
def url(client, project, tmp_path_factory):
    """The address of a black image, as its tasks have it."""
    path = tmp_path_factory.mktemp("images") / "black.png"
    Picture.new("RGB", SHAPE[::-1]).save(path)
    return client.upload(project, [path])[0]


@pytest.fixture(scope="module")
def labeler(label_studio):
    with chromium() as browser:
        yield Labeler(browser, label_studio, EMAIL, PASSWORD)


def test_an_upload_is_named_below_the_path_and_read_from_there(client, project, url):
    assert url.startswith(f"/labels/data/upload/{project}/")
    for address in (url, url.removeprefix("/labels"), client.url + url.removeprefix("/labels")):
        content = io.BytesIO()
        images.fetch(client, address, content)
        assert Picture.open(content).size == SHAPE[::-1]


def test_a_refused_private_address_is_told(label_studio, token):
    settings = Settings(label_studio_url=label_studio, label_studio_api_key=token, _env_file=None)
    found = {each.check: each for each in run_checks(Connection(settings).checks(), fix=False)}
    assert "lies in a private network" in found["private addresses"].detail


@pytest.mark.parametrize(("kind", "value"), DRAWN)
def test_a_shape_covers_the_pixels_that_the_screen_shows(
    client, project, url, labeler, kind, value
):
    body = {"project": project, "data": {"image": url}}
    task = client.post("/api/tasks/", body)["id"]
    given = [result(kind, value, "felis", SHAPE)]
    client.post(f"/api/tasks/{task}/annotations/", {"result": given})
    (kept,) = client.get(f"/api/tasks/{task}")["annotations"]
    tags = read_dataset_config(client.get(f"/api/projects/{project}")["label_config"])
    (region,) = read_regions(tags.masks(kept["result"]), tags.classes, SHAPE)
    assert region.class_id == 0
    labeler.page.goto(f"{labeler.url}/projects/{project}/data?task={task}")

    def shown():
        """Which pixels of the image are red on the screen, at their centres."""
        frame = labeler.image_of(*SHAPE[::-1])
        if frame is None:
            return np.zeros(SHAPE, dtype=bool)
        left, top, width, height = frame
        picture = Picture.open(io.BytesIO(labeler.page.screenshot())).convert("RGB")
        pixels = np.asarray(picture, int)
        rows = top + (np.arange(SHAPE[0]) + 0.5) * height / SHAPE[0]
        columns = left + (np.arange(SHAPE[1]) + 0.5) * width / SHAPE[1]
        found = pixels[np.ix_(rows.astype(int), columns.astype(int))]
        return np.abs(found - RED).max(axis=2) < 128

    def differs():
        """Whether the screen shows other pixels; at the border, they are of mixed colours."""
        drawn, mask = Picture.fromarray(shown()), Picture.fromarray(region.mask())
        inner, outer = ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3)
        least = np.asarray(mask.convert("L").filter(inner)) > 0
        most = np.asarray(mask.convert("L").filter(outer)) > 0
        return bool((least & ~np.asarray(drawn)).any() or (np.asarray(drawn) & ~most).any())

    wait_for(lambda: not differs())
