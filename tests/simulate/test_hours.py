"""Annotators who work for some hours: what is counted, and what pages write."""

from __future__ import annotations

import numpy as np
import pytest

from alc_backend.core import metrics
from alc_backend.core.cost import ACCEPT_S, CLASSIFICATION_S
from alc_backend.core.questions import Pace
from alc_backend.errors import SettingsError
from alc_backend.simulate import hours, plans
from alc_backend.simulate.loop import Loop
from alc_backend.simulate.scenes import Scenes
from tests.simulate.worlds import experiment, write_world

EVER = 10.0
"""Hours in which everything can be asked."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    data, given = write_world(tmp_path_factory.mktemp("world"))
    return given, Scenes(data)


def run(world, folder, **changes):
    given, scenes = world
    values = {"budgets": (scenes.superpixel_count,), "hours": (0.01, 0.03, EVER), **changes}
    loop = Loop(scenes, experiment(given, **values), folder, lambda done, total, message: None)
    return loop, hours.run(loop)


def miou_of(loop):
    return metrics.mean_iou(loop.scenes.confusion(loop.labels))


@pytest.mark.parametrize("oracle", ["object", "pixel"])
@pytest.mark.parametrize("questions", ["single", "mixed", "pages"])
def test_figures_are_those_of_the_label_maps(world, tmp_path, questions, oracle):
    loop, row = run(world, tmp_path, questions=questions, oracle=oracle)
    assert row["questions"] == questions
    assert [point["hours"] for point in row["by_hours"]] == [0.01, 0.03, EVER]
    last = row["by_hours"][-1]
    assert last["data_miou"] == pytest.approx(miou_of(loop))
    counts = ("answers", "pages", "tiles", "confirmed")
    for before, after in zip(row["by_hours"], row["by_hours"][1:], strict=False):
        assert all(before[name] <= after[name] for name in counts)
    assert last["data_miou"] > row["rounds"][0]["data_miou"]
    assert (last["pages"] == 0) == (questions == "single")
    if questions != "pages":
        assert last["confirmed"] == row["superpixels_in_all"] == 60
    assert last["confirmed"] == sum(map(len, loop.answered.values()))


@pytest.mark.parametrize("pace", [Pace(), Pace(accept=1.5, correct=4.0)])
def test_single_questions_count_their_seconds(world, tmp_path, pace):
    loop, row = run(world, tmp_path, hours=(EVER,), pace=pace)
    accepted = row["rounds"][-1]["accept_rate"] * 60
    expected = accepted * pace.accept + (60 - accepted) * pace.correct
    assert loop.seconds == pytest.approx(expected)
    assert row["rounds"][-1]["hours"] == pytest.approx(expected / 3600)


def test_pages_count_a_second_each_and_their_tiles(world, tmp_path):
    loop, row = run(world, tmp_path, hours=(EVER,), questions="pages", pace=Pace(tile=0.5))
    (last,) = row["by_hours"]
    assert loop.seconds == pytest.approx(last["pages"] + 0.5 * last["tiles"])


def test_an_hour_counts_only_what_was_finished_in_it(world, tmp_path):
    marks = tuple(second / 3600 for second in range(2, 60, 2))
    _, row = run(world, tmp_path, hours=marks)
    answered = [point["answers"] for point in row["by_hours"]]
    assert answered[0] == 0
    for point in row["by_hours"]:
        assert point["answers"] * ACCEPT_S <= 3600 * point["hours"] + 1e-9
        assert (point["answers"] + 1) * CLASSIFICATION_S > 3600 * point["hours"]


def test_a_page_holds_no_more_tiles_than_asked_for(world, tmp_path):
    _, row = run(world, tmp_path, hours=(EVER,), questions="pages", tiles=3)
    (last,) = row["by_hours"]
    assert last["tiles"] <= 3 * last["pages"]


def test_overlooked_tiles_leave_wrong_labels(world, tmp_path):
    sound, _ = run(world, tmp_path, questions="pages")
    careless, _ = run(world, tmp_path, questions="pages", overlooked=1.0)
    assert miou_of(careless) < miou_of(sound)
    again, _ = run(world, tmp_path, questions="pages", overlooked=1.0)
    assert miou_of(again) == miou_of(careless)


def test_mixed_questions_are_no_slower_than_single_ones(world, tmp_path):
    mixed, _ = run(world, tmp_path, questions="mixed", hours=(EVER,))
    single, _ = run(world, tmp_path, questions="single", hours=(EVER,))
    assert mixed.seconds < single.seconds
    assert np.isclose(miou_of(mixed), miou_of(single), atol=0.1)


def test_the_corrector_relabels_after_an_hour_and_answers_come_on_top(world, tmp_path):
    changes = {"acquisition": "abc", "hours": (0.03, EVER)}
    plain, without = run(world, tmp_path, **changes)
    loop, row = run(world, tmp_path, **changes, corrector=True)
    assert row["corrector"]
    assert 0 <= row["by_hours"][0]["answers"] - without["by_hours"][0]["answers"] <= 1
    assert row["by_hours"][-1]["confirmed"] == 60
    assert row["by_hours"][-1]["data_miou"] == pytest.approx(miou_of(loop))
    assert miou_of(loop) == pytest.approx(miou_of(plain), abs=0.05)  # all was asked about


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hours": (2.0, 1.0)}, "--hours must ascend"),
        ({"hours": (0.0,)}, "--hours must ascend"),
        ({"hours": (1.0,), "rounds": 2}, "cannot be combined with --rounds"),
        ({"hours": (1.0,), "pool": "pixel"}, "cannot be combined with --rounds, --pool"),
        ({"questions": "mixed"}, "measured over --hours"),
        ({"hours": (1.0,), "questions": "both"}, "--questions must be one of mixed, single, pages"),
        ({"hours": (1.0,), "pace": Pace(tile=0.0)}, "--seconds-per-tile must be positive"),
        ({"corrector": True}, "--corrector needs --hours"),
        ({"hours": (1.0,), "corrector": True, "questions": "pages"}, "--corrector needs --hours"),
        ({"hours": (1.0,), "tiles": 99}, "--tiles between 1 and 48"),
        ({"hours": (1.0,), "overlooked": 2.0}, "--overlooked must lie between 0 and 1"),
    ],
)
def test_options_that_do_not_go_together_are_named(world, changes, said):
    with pytest.raises(SettingsError, match=said):
        experiment(world[0], **changes)


@pytest.mark.parametrize("text", ["", ",", "soon", "1,x"])
def test_hours_that_are_no_numbers_are_named(text):
    with pytest.raises(SettingsError, match="must be numbers such as"):
        plans.hours(text)
