"""The moving picture at the head of the README: pages of look-alikes being answered.

``python -m benchmarks.moving_picture FILE``: starts a Label Studio of its own, puts pages of photos
into it, answers them by keyboard in a Chromium found on the path, and writes an animated WebP. The
pressed keys are drawn over the screen, which is otherwise as Label Studio shows it.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import EMAIL
from alc_backend.cli.demo.start import start_demo
from alc_backend.labelstudio.client import Client
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings
from tests.e2e.pages import CLASSES, Pages

SCREEN = {"width": 1120, "height": 610}
QUALITY = 62
PAGES = (("cat", "coffee", 3), ("background", "rocket", 8))
"""Of each page, which proposes the cat: the label that its tiles have now, the photo of those that
show something else, and the seed by which they are chosen."""

CAT = "chelsea"

LOOK_MS, KEY_MS, DONE_MS = 1500, 450, 900
"""How long a new page, a pressed key and an answered page are shown."""

KEY_CAP = """key => {
    let cap = document.getElementById("key-cap");
    if (!cap) {
        cap = document.createElement("div");
        cap.id = "key-cap";
        cap.style.cssText = "position: fixed; left: 50%; bottom: 70px; translate: -50% 0; " +
            "z-index: 9999; padding: 6px 22px; color: #fff; font: 600 30px sans-serif; " +
            "background: #1b1f24e6; border-radius: 10px; border-bottom: 4px solid #000";
        document.body.append(cap);
    }
    cap.hidden = !key;
    cap.textContent = key;
}"""
"""Shows a key over the page, or none."""


class Film:
    """The frames of a moving picture of a screen."""

    def __init__(self, screen: Page) -> None:
        self._screen = screen
        self._frames: list[Image.Image] = []
        self._times: list[int] = []

    def take(self, milliseconds: int, key: str = "") -> None:
        """Add what is on the screen, with a key drawn over it, for so long."""
        self._screen.evaluate(KEY_CAP, key)
        taken = Image.open(io.BytesIO(self._screen.screenshot())).convert("RGB")
        self._frames.append(taken)
        self._times.append(milliseconds)

    def write(self, path: Path) -> None:
        """Write an animated WebP that is shown again and again."""
        first, *others = self._frames
        first.save(
            path, save_all=True, append_images=others, duration=self._times, loop=0,
            quality=QUALITY, method=6, minimize_size=True,
        )  # fmt: skip


def film(client: Client, screen: Page, path: Path) -> None:
    """Film pages being answered on a screen where somebody is signed in."""
    pages = Pages(client, segments=25)
    asked = [
        pages.add_page(
            12,
            CLASSES.index("cat"),
            (CLASSES.index(label),),
            seed=seed,
            names=(CAT, CAT, CAT, other),
        )
        for label, other, seed in PAGES
    ]
    pages.publish()
    screen.set_viewport_size(SCREEN)  # type: ignore[arg-type]
    screen.goto(f"{client.url}/projects/{pages.project}/data?labeling=1")
    taken = Film(screen)
    for page, item in zip(asked, pages.queue, strict=True):
        screen.wait_for_function(
            "question => document.body.innerText.includes(question)"
            " && document.querySelectorAll('.alc-tiles input:checked').length === 12",
            arg=item.data["question"],
        )
        screen.wait_for_timeout(1500)
        taken.take(LOOK_MS)
        for tile, choice in zip(page.tiles, item.data["tiles"], strict=True):
            if tile.image_key != CAT:
                screen.keyboard.press(choice["hotkey"])
                screen.wait_for_timeout(300)
                taken.take(KEY_MS, choice["hotkey"])
        taken.take(DONE_MS)
        taken.take(KEY_MS, "Enter")
        screen.keyboard.press("Enter")
    taken.write(path)


def sign_in(screen: Page, url: str, password: str) -> None:
    """Sign the demonstration's user in to Label Studio."""
    screen.goto(f"{url}/user/login/")
    screen.fill("input[name=email]", EMAIL)
    screen.fill("input[name=password]", password)
    screen.click("button[type=submit]")
    screen.wait_for_url(lambda address: "/login" not in address)


def main() -> None:
    """Start Label Studio, and film."""
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        options = DemoOptions(data_dir=work / "demo", port=8182, backend_port=9192)
        with Processes(work / "logs") as processes, sync_playwright() as playwright:
            settings = Settings(iterations=20, _env_file=None)
            demo = start_demo(options, settings, processes, Console())
            found = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            screen = browser.new_page()
            sign_in(screen, demo.settings.label_studio_url, demo.password)
            film(demo.client, screen, path)
            browser.close()


if __name__ == "__main__":
    main()
