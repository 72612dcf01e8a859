"""Take the pictures in docs/screens: the service's pages, and labeling screens of all kinds.

``python -m benchmarks.screens FOLDER``: starts a Label Studio and a backend of its own, with the
sample, made-up images and photos, and takes the screenshots with a Chromium found on the path.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.rounds import ensure_open_round, walk_rounds
from alc_backend.cli.demo.start import Demo, start_demo
from alc_backend.cli.round_progress import wait_until_open
from alc_backend.datasets.images import voc_palette
from alc_backend.loop.projects import connection
from alc_backend.loop.rounds import lifecycle
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings
from alc_backend.simulate.sample import make_scene, write_sample
from alc_backend.store.importing import import_folder
from benchmarks.admin_screens import take
from benchmarks.moving_picture import film, sign_in
from benchmarks.page_screens import set_theme, show_pages_of_look_alikes

TWENTY_ONE = ["background", *(f"class {number}" for number in range(1, 21))]
SCENES = (0, 5, 8, 10)
"""The scenes of the sample that are shown, of seed 0."""

CASES = {
    "2-classes-portrait": (["background", "polyp"], (1000, 700), [(150, 250, 480, 620)]),
    "21-classes": (TWENTY_ONE, (375, 500), [(60, 90, 420, 330)]),
    "21-classes-dark": (TWENTY_ONE, (375, 500), [(60, 90, 420, 330)]),
    "150-classes": (
        ["background", *(f"species {number:03d}" for number in range(149))],
        (900, 1400),
        [(300, 200, 900, 640)],
    ),
    "tiny": (TWENTY_ONE, (2250, 4000), [(2600, 1200, 2616, 1212)]),
    "huge": (TWENTY_ONE, (500, 750), [(4, 4, 746, 496)]),
}


def write_case(root: Path, classes: list[str], size: tuple[int, int], boxes: list[tuple]) -> Path:
    """Write a dataset of one image with ellipses; returns ``root``."""
    for folder in ("images", "pseudo_labels", "objects"):
        (root / folder).mkdir(parents=True)
    height, width = size
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(70, 160, (height // 40, width // 40, 3)).astype(np.uint8))
    image = ground.resize((width, height), Image.Resampling.BICUBIC)
    objects = Image.new("L", (width, height))
    for number, box in enumerate(boxes, start=1):
        ImageDraw.Draw(image).ellipse(box, fill=(205, 140 - 20 * number, 90))
        ImageDraw.Draw(objects).ellipse(box, fill=number)
    image.filter(ImageFilter.GaussianBlur(1)).save(root / "images" / "a.png")
    objects.save(root / "objects" / "a.png")
    labels = np.where(np.asarray(objects) > 0, min(12, len(classes) - 1), 0).astype(np.uint8)
    Image.fromarray(labels).save(root / "pseudo_labels" / "a.png")
    (root / "classes.txt").write_text("\n".join(classes))
    return root


def main() -> None:
    """Start everything, show each case, and take its screenshot."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    console = Console()
    show_sample(target / "sample.jpg")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = Settings(iterations=40, _env_file=None)
        options = DemoOptions(data_dir=work / "demo", auto=100, port=8181, backend_port=9191)
        with Processes(work / "logs") as processes, sync_playwright() as playwright:
            demo = start_demo(options, settings, processes, console)
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            ensure_open_round(demo, processes, console, 50)
            walk_rounds(demo, options, processes, console)
            show_pages(demo, browser, target, console)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            sign_in(page, demo.settings.label_studio_url, demo.password)
            show_queries(demo, page, target, processes, console)
            show_pages_of_look_alikes(demo.client, page, target)
            film(demo.client, page, target / "answering.webp")
            take(browser, target)
            browser.close()


def show_sample(path: Path) -> None:
    """Write four scenes of the sample above their labels and above their ground truth."""
    columns = []
    for index in SCENES:
        scene = make_scene(0, index)
        shown = [scene.image]
        for ids in (scene.labels, scene.truth):
            colours = np.array(voc_palette()).reshape(-1, 3)[ids]
            mixed = np.where(ids[..., None] > 0, 0.3 * scene.image + 0.7 * colours, scene.image)
            shown.append(mixed.astype(np.uint8))
        columns.append(
            np.vstack([np.pad(one, ((4, 4), (4, 4), (0, 0)), constant_values=255) for one in shown])
        )
    Image.fromarray(np.hstack(columns)).save(path, quality=85)


def show_query(demo: Demo, number: int, page: Page, path: Path) -> None:
    """Take a screenshot of the first question of the query project with this number."""
    page.goto(f"{demo.settings.label_studio_url}/projects/{number}/data?labeling=1")
    page.wait_for_selector("input:checked")
    page.wait_for_timeout(2500)
    page.screenshot(path=path, type="jpeg", quality=75)


def show_queries(
    demo: Demo, page: Page, target: Path, processes: Processes, console: Console
) -> None:
    """Take a screenshot of each case, on a screen where somebody is signed in."""
    demo.store.settings.iterations = 2  # the networks of these are not shown
    demo.store.settings.questions = "single"
    projects = {}
    with tempfile.TemporaryDirectory() as folder:
        written = {name: write_case(Path(folder) / name, *case) for name, case in CASES.items()}
        written["query"], _ = write_sample(Path(folder) / "query", images=4, held_out=1)
        for name, dataset in written.items():
            summary = import_folder(demo.store, dataset, name)
            project = connection.connect_project(
                demo.store, demo.client, summary.project_id, console.print
            )
            lifecycle.start(demo.store, demo.jobs.enqueue_part, project.id)
            wait_until_open(demo.store, project.id, console, processes.check)
            projects[name] = project.query_project
    for name, number in projects.items():
        set_theme(page, "Dark" if name.endswith("dark") else "Light")
        show_query(demo, number, page, target / f"{name}.jpg")
        console.print(name)
    set_theme(page, "Light")


COST = """() => {
    const entries = performance.getEntriesByType("resource").filter(e => e.initiatorType !== "img");
    const page = performance.getEntriesByType("navigation")[0];
    const sizes = [page, ...entries].map(entry => entry.encodedBodySize);
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    return `${Math.round(sizes.reduce((a, b) => a + b) / 1000)} kB without images, ` +
        `first content after ${Math.round(paint.startTime)} ms, ` +
        `${performance.getEntriesByType("layout-shift").length} layout shifts`;
}"""
"""What a page cost its browser, in words."""


def show_pages(demo: Demo, browser: Browser, target: Path, console: Console) -> None:
    """Take screenshots of the backend's own pages after two rounds of the sample."""
    assert demo.settings.secret is not None
    password = demo.settings.secret.get_secret_value()
    for suffix, options in (
        ("", {"viewport": {"width": 1280, "height": 1000}}),
        ("-dark", {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"}),
        ("-phone", {"viewport": {"width": 390, "height": 844}}),
    ):
        page = browser.new_context(
            http_credentials={"username": "admin", "password": password}, **options
        ).new_page()
        for name, path in (("admin", ""), ("gallery", "/images"), ("image", "")):
            if name == "image":
                page.locator(".tile").first.click()
            else:
                page.goto(f"{demo.settings.backend}{path}")
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(500)
            console.print(f"{name}{suffix}: {page.evaluate(COST)}")
            if name == "image":
                page.locator("#viewer").hover(position={"x": 200, "y": 200})
            page.screenshot(path=target / f"{name}{suffix}.jpg", type="jpeg", quality=75)


if __name__ == "__main__":
    main()
