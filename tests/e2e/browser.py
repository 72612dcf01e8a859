"""A real Chromium, signed in to the Label Studio of the tests."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium():
    """The browser: one on the path, else playwright's own."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def _is_submission(response):
    return response.request.method == "POST" and "/annotations" in response.url


class Labeler:
    """Somebody at Label Studio's labeling screen, with nothing but a keyboard."""

    def __init__(self, browser, url, email, password, **options):
        options = {"viewport": {"width": 1440, "height": 900}, **options}
        self.url, self.page = url, browser.new_context(**options).new_page()
        self.served, self.keys = [], 0
        self.page.on("response", self._heard)
        self.page.goto(f"{url}/user/login/")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda address: "/login" not in address)

    def _heard(self, response):
        """Take note of the task that Label Studio hands out."""
        if "next" in response.url and response.status == 200 and "/api/" in response.url:
            task = response.json()
            if isinstance(task, dict) and "data" in task and "id" in task:
                self.served.append(task)

    @property
    def task(self):
        return self.served[-1]

    def open(self, project):
        """Press "Label All Tasks"; the first question is on the screen."""
        before = len(self.served)
        self.page.goto(f"{self.url}/projects/{project}/data")
        self.page.locator("button", has_text="Label All Tasks").click()
        self._wait_for(before + 1)

    def press(self, *keys):
        """Press keys one after another; the last one ends the task, and the next is waited for."""
        before = len(self.served)
        for key in keys:
            self.page.keyboard.press(key)
            self.keys += 1
        begun = time.monotonic()
        self._wait_for(before + 1)
        return time.monotonic() - begun

    def finish(self, *keys):
        """Press keys one after another; the last one ends the last task of the queue."""
        *first, last = keys
        for key in first:
            self.page.keyboard.press(key)
        with self.page.expect_response(_is_submission):
            self.page.keyboard.press(last)
        self.keys += len(keys)

    def _wait_for(self, count):
        """Until so many tasks were handed out and the last one is ready to be answered."""
        deadline = time.monotonic() + 30
        while len(self.served) < count:
            assert time.monotonic() < deadline, "no task came"
            self.page.wait_for_timeout(20)
        data = self.task["data"]
        shown = [item for made in self.task["predictions"] for item in made["result"]]
        chosen = any(item["from_name"] == "label" for item in shown)
        self.page.wait_for_function(
            """([question, label, sheet, tiles]) => {
                const boxes = [...document.querySelectorAll("input:checked")];
                const canvases = [...document.querySelectorAll("canvas")];
                const shown = [...document.querySelectorAll(".alc-tile img")].filter(
                    i => i.getAttribute("src") === sheet && i.complete && i.naturalWidth);
                return document.body.innerText.includes(question)
                    && (label === null || boxes.some(box => box.name === label))
                    && (tiles ? shown.length === tiles : canvases.some(c => c.width > 300));
            }""",
            arg=[
                data["question"],
                data["choices"][0]["value"] if chosen else None,
                data["image"],
                len(data.get("tiles", [])),
            ],
        )

    def unticked(self):
        """The numbers of a page's tiles that are not ticked."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll(".alc-tiles input:not(:checked)")]
                .map(input => Number(input.name))"""
        )

    def image(self):
        """Where the image is on the screen: left, top, width, height."""
        newest = max(self.task["predictions"], key=lambda prediction: prediction["id"])
        sized = next(item for item in newest["result"] if "original_width" in item)
        return self.image_of(sized["original_width"], sized["original_height"])

    def image_of(self, width, height):
        """Where the image of this size, in pixels, is on the screen; None while there is none."""
        return self.page.evaluate(
            """([width, height]) => {
                const boxes = [...document.querySelectorAll("img")]
                    .filter(i => i.naturalWidth == width && i.naturalHeight == height)
                    .map(i => i.getBoundingClientRect())
                    .sort((one, other) => other.width - one.width);  // lists have small ones
                const box = boxes[0];
                return box && [box.left, box.top, box.width, box.height];
            }""",
            [width, height],
        )
