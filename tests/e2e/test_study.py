"""`alc study` with a real Label Studio and people in a real Chromium, whose delays are known.

The browser's clock is set, so that a person takes exactly as long as the test says, and nobody
waits.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from alc_backend.study import record
from alc_backend.study.record import CLASSIFICATION, CORRECTION, PAGE
from tests.e2e.browser import Labeler, chromium
from tests.e2e.chaos import new_user
from tests.e2e.demonstration import alc

pytestmark = [pytest.mark.ls, pytest.mark.browser, pytest.mark.slow]

PASSWORD = "correct horse 11"
QUESTIONS = 4


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


class Volunteer:
    """Somebody who answers a design's questions rightly, at a pace of one's own."""

    def __init__(self, browser, demo, email, pace):
        new_user(demo.client, email, PASSWORD)
        self.labeler, self.pace = Labeler(browser, demo.client.url, email, PASSWORD), pace
        self.now = datetime.now(timezone.utc)
        self.labeler.page.clock.set_fixed_time(self.now)

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)
        self.labeler.page.clock.set_fixed_time(self.now)

    def answer(self, study, design):
        (group,) = (group for group in study.groups if group.design == design)
        labeler = self.labeler
        labeler.open(group.project)
        for left in reversed(range(len(group.tasks))):
            asked = [study.questions[index] for index in group.tasks[labeler.task["id"]]]
            keys = self._keys(study, design, asked)
            self.wait(self.pace(design, asked))
            submit = labeler.press if left else labeler.finish
            submit(*keys, "Control+Enter")
        labeler.page.context.close()

    def _keys(self, study, design, asked):
        """The keys that say the truth."""
        data = self.labeler.task["data"]
        if design == PAGE:
            return [
                tile["hotkey"]
                for tile, one in zip(data["tiles"], asked, strict=True)
                if one.is_wrong
            ]
        (one,) = asked
        if design == CORRECTION and not one.is_wrong:
            return []
        truth = study.classes[one.truth]
        return [choice["hotkey"] for choice in data["choices"] if choice["value"] == truth]


def pace_of(factor):
    """Seconds of an answer: published ones, times a factor."""

    def pace(design, asked):
        if design == PAGE:
            return 1.0 + factor * 1.25 * len(asked)
        if design == CLASSIFICATION:
            return factor * 6.0
        return factor * (5.5 if asked[0].is_wrong else 3.0)

    return pace


def test_the_report_finds_how_long_people_took(browser, running, tmp_path):
    demo, _ = running
    alc(demo, "study", "create", "--name", "people", "--questions", str(QUESTIONS))
    study = record.load(demo.settings.data_dir, "people")
    factors = {CORRECTION: 1.2, CLASSIFICATION: 1.1, PAGE: 1.0}
    for design, factor in factors.items():
        email = f"{design}@example.com"
        Volunteer(browser, demo, email, pace_of(factor)).answer(study, design)
    target = tmp_path / "found.json"
    told = alc(demo, "study", "report", "people", "--json", str(target))
    found = json.loads(target.read_text())
    assert found["left_out"] == []
    measured = {row["design"]: row for row in found["designs"]}
    assert [row["people"] for row in measured.values()] == [1, 1, 1]
    assert all(row["accuracy"]["mean"] == 1.0 for row in measured.values())
    close = 0.05
    seconds = found["seconds"]
    assert seconds["accept"] == pytest.approx(1.2 * 3.0, rel=close)
    assert seconds["correct"] == pytest.approx(1.2 * 5.5, rel=close)
    assert seconds["classify"] == pytest.approx(1.1 * 6.0, rel=close)
    assert seconds["tile"] == pytest.approx(1.25, rel=close)
    assert measured[CORRECTION]["total"]["mean"] == pytest.approx(1.2 * 2 * 8.5, rel=close)
    (apart, *_) = found["differences"]
    assert apart["ratio"] == pytest.approx(1.2 * 4.25 / 6.6, rel=close)
    assert "ALC_SECONDS_ACCEPT=" in told
