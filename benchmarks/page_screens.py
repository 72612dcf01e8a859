"""Screenshots of pages of look-alikes, for docs/screens; :mod:`benchmarks.screens` takes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

from alc_backend.labelstudio.client import Client
from tests.e2e.pages import CLASSES, Pages

SPECIES = ["background", "cat", *(f"species {number:03d}" for number in range(148))]


class Case(NamedTuple):
    """A page of some tiles: how small its superpixels are, and what their labels are now.

    Most tiles show the cat; those that show something else are unticked in the screenshot.
    """

    tiles: int
    segments: int = 25
    labels: tuple[int, ...] = (1,)
    classes: list[str] = CLASSES


CASES = {
    "page": Case(12),
    "page-5": Case(5, labels=(0, 3)),
    "page-tiny": Case(12, segments=5000),
    "page-24": Case(24, segments=60),
    "page-dark": Case(12),
    "page-150-classes": Case(12, labels=(7, 20, 31, 5), classes=SPECIES),
}


def set_theme(screen: Page, wanted: str) -> None:
    """Press Label Studio's button that changes the theme until it is the wanted one."""
    button = screen.locator("button", has_text=re.compile("Light|Dark|Auto")).first
    for _ in range(3):
        if wanted in button.inner_text():
            return
        button.click()
        screen.wait_for_timeout(300)
    raise AssertionError(f"Label Studio offers no theme {wanted}")


def show_pages_of_look_alikes(client: Client, screen: Page, target: Path) -> None:
    """Take a screenshot of each case, on a screen where somebody is signed in."""
    size = screen.viewport_size
    screen.set_viewport_size({"width": 1400, "height": 800})
    for name, case in CASES.items():
        pages = Pages(client, case.classes, segments=case.segments)
        names = ("chelsea", "chelsea", "chelsea", "coffee")
        asked = pages.add_page(case.tiles, 1, case.labels, seed=3, names=names)
        pages.publish()
        set_theme(screen, "Dark" if name.endswith("dark") else "Light")
        screen.goto(f"{client.url}/projects/{pages.project}/data?labeling=1")
        screen.wait_for_selector(".alc-tile")
        screen.wait_for_timeout(2500)
        for tile, choice in zip(asked.tiles, pages.queue[0].data["tiles"], strict=True):
            if tile.image_key != "chelsea":
                screen.keyboard.press(choice["hotkey"])
        screen.wait_for_timeout(500)
        screen.screenshot(path=target / f"{name}.jpg", type="jpeg", quality=80)
    set_theme(screen, "Light")
    if size is not None:
        screen.set_viewport_size(size)
