"""Rows of a simulation: kept, side by side, from the command line, and the page made of them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from alc_backend.cli import common, main
from alc_backend.cli.simulate_options import SimulateOptions
from alc_backend.errors import AlcError, DatasetError, SettingsError, TrainingError
from alc_backend.settings import settings
from alc_backend.simulate import figures, plans, published, results, work, workers
from alc_backend.simulate.figures import Column
from alc_backend.simulate.report import documents, page
from alc_backend.simulate.runner import Runner
from alc_backend.simulate.scenes import Scenes
from tests.simulate.worlds import CLASSES, TRAINING, experiment, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def _fresh_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("ALC_DATA_DIR", str(tmp_path / "data"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def silent(done, total, message):
    pass


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_rows_that_are_done_are_not_done_again(world, tmp_path):
    data, given = world
    rows = [experiment(given, acquisition=name) for name in ("sim", "size")]
    first = Runner(data, None, tmp_path).run(rows, silent)
    assert [row["acquisition"] for row in first] == ["sim", "size"]
    done = []

    def note(piece, tell):
        done.append(piece.experiment)
        if piece.target is not None:
            piece.target.write_text("{}")

    again = Runner(data, None, tmp_path, jobs=1, do=note)
    assert again.run(rows, silent) == first
    assert done == []
    other = replace(rows[0], noise=0.5)
    again.run([rows[0], other], silent)
    assert set(done) == {other}


def test_what_was_finished_is_kept_when_another_row_fails(world, tmp_path):
    data, given = world
    good, bad = (experiment(given, acquisition=name) for name in ("sim", "size"))

    def fail(piece, tell):
        if piece.experiment == bad and piece.target is not None:
            raise TrainingError("it cannot be done")
        work.do(piece, tell)

    with pytest.raises(TrainingError):
        Runner(data, None, tmp_path, jobs=1, do=fail).run([good, bad], silent)
    assert len(list((tmp_path / "rows").iterdir())) == 1


def test_a_dead_process_is_told_and_not_a_traceback():
    with pytest.raises(TrainingError, match="smaller --jobs"), ProcessPoolExecutor(1) as pool:
        list(workers.side_by_side(pool, work.do, [_Deadly()]))


class _Deadly:
    """Ends the process that unpacks it, as the kernel does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,)


def test_figures_are_joined_by_answers_not_by_position():
    def row(label, *answers):
        rounds = [
            {"answers": n, "share": n / 100, "data_miou": n / 1000, "recall": n / 100,
             "model_miou": None, "hours": 1.0, "precision": None, "accept_rate": None}
            for n in answers
        ]  # fmt: skip
        return {"oracle": "object", "label": label, "rounds": rounds}

    rows = [row("from the labels", 0, 5, 20), row("from nothing", 10, 20), row("early end", 0, 5)]
    assert figures.points(rows) == [(0, 0.0), (5, 0.05), (10, 0.1), (20, 0.2)]
    assert figures.at(rows[:1], 20, "data_miou").mean == pytest.approx(0.02)
    assert figures.at(rows[1:2], 5, "data_miou") is None
    assert Column("recall").of(rows[2:]).mean == pytest.approx(0.05)
    (table,) = results.tables({"rows": rows})
    cells = [list(column.cells) for column in table.columns]
    assert [cell[0] for cell in cells[1:]] == ["0.5", "–", "2.0", "20.0", "–", "1.00"]
    assert [cell[1] for cell in cells[1:]] == ["–", "1.0", "2.0", "20.0", "–", "1.00"]
    assert [cell[2] for cell in cells[1:]] == ["0.5", "–", "–", "5.0", "–", "1.00"]


def test_validation_images_never_stand_in_for_training_images(tmp_path):
    data, _ = write_world(tmp_path)
    (data / "images/val").mkdir()
    for folder in ("pseudo_labels", "objects", "ground_truth"):
        (data / folder / "val").mkdir(exist_ok=True)
        shutil.copy(data / folder / "p0.png", data / folder / "val/p1.png")
    shutil.copy(next((data / "images").glob("p0.*")), data / "images/val/p1.png")
    scenes = Scenes(data, data)
    assert "val/p1" in scenes.keys
    assert np.array_equal(scenes.truth("val/p1"), scenes.truth("p0"))
    assert not np.array_equal(scenes.truth("val/p1"), scenes.truth("p1"))


def test_a_changed_dataset_makes_kept_rows_useless(tmp_path):
    data, given = write_world(tmp_path)
    row = experiment(given)
    first = Runner(data, None, tmp_path / "kept").run([row], silent)
    (data / "ground_truth/p0.png").write_bytes((data / "ground_truth/p1.png").read_bytes())
    work.read_scenes.cache_clear()
    second = Runner(data, None, tmp_path / "kept").run([row], silent)
    assert first[0]["rounds"] != second[0]["rounds"]


def test_changed_probabilities_make_kept_rows_useless(tmp_path):
    data, given = write_world(tmp_path)
    rows = [experiment(given, acquisition="random", training=replace(TRAINING, seed=seed))
            for seed in (0, 1)]  # fmt: skip
    first = Runner(data, None, tmp_path / "kept").run(rows, silent)
    assert first[0]["rounds"] != first[1]["rounds"]  # another seed, the same probabilities
    np.save(given / "p0.npy", np.load(given / "p1.npy"))
    row = experiment(given)
    before = Runner(data, None, tmp_path / "kept").run([row], silent)
    np.save(given / "p0.npy", np.load(given / "p2.npy"))
    after = Runner(data, None, tmp_path / "kept").run([row], silent)
    assert before[0]["rounds"] != after[0]["rounds"]


def test_processes_side_by_side_give_the_same(world, tmp_path):
    data, given = world
    rows = [experiment(given, acquisition=name, oracle=kind)
            for name in ("sim", "random") for kind in ("object", "pixel")]  # fmt: skip
    alone = Runner(data, None, tmp_path / "one", jobs=1).run(rows, silent)
    told = []
    both = Runner(data, None, tmp_path / "two", jobs=2).run(rows, lambda *news: told.append(news))
    assert without_time(both) == without_time(alone)
    assert told[-1][:2] == (5, 5)  # one network, four rows


def test_an_error_in_another_process_reaches_the_user(world, tmp_path):
    data, _ = world
    rows = [experiment(tmp_path / "nowhere", acquisition=name) for name in ("sim", "size")]
    with pytest.raises(DatasetError, match=r"p0\.npy"):
        Runner(data, None, tmp_path, jobs=2).run(rows, silent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5%,10%,20%", (10, 20, 40)), ("7, 300", (7, 200)), ("100%,50%", (100, 200))],
)
def test_budgets(text, expected):
    assert plans.budgets(text, 200) == expected


@pytest.mark.parametrize("text", ["", "five", "5%,,7", "0", "-3", "0.1%", "nan%", "inf%"])
def test_budgets_that_cannot_be(text):
    with pytest.raises(SettingsError, match="--budgets"):
        plans.budgets(text, 200)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"acquisition": "best"}, "--acquisition"), ({"pool": "all"}, "--pool"),
        ({"oracle": "delphi"}, "--oracle"), ({"noise": 1.5}, "--noise"),
        ({"pool": "pixelpick", "epsilon": 0.5}, "--pool"),
        ({"pool": "pixel", "acquisition": "aiou"}, "--acquisition"),
        ({"train": True}, "--probabilities"), ({"budgets": ()}, "--budgets"),
        ({"rounds": 0}, "--rounds"), ({"labels": "none"}, "--labels"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be(tmp_path, changes, named):
    with pytest.raises(SettingsError, match=named):
        experiment(tmp_path, **changes)


def test_the_tables_of_the_paper(tmp_path):
    base = experiment(tmp_path, model_at="last")
    two = plans.shown("table 2", base, ["object", "pixel"], [0, 1, 2])
    assert len(two) == len({plan.label for plan in two}) * 6
    measured = [plan.experiment for plan in two if plan.experiment.model_at == "last"]
    assert {row.acquisition for row in measured} == set(plans.MODEL_MEASURED)
    assert {(row.oracle, row.seed) for row in measured} == {("object", 0)}
    three = {plan.label: plan.experiment for plan in plans.shown("table 3", base, ["object"], [0])}
    assert three["nothing"].pool == "pixel"
    assert not three["nothing"].expansion
    assert three["diversity + expansion"].acquisition == "lcil"
    assert [plan.experiment.epsilon for plan in plans.shown("table 8", base, ["object"], [0])] == [
        0.0, 0.2, 0.4, 0.6, 0.8, 1.0,
    ]  # fmt: skip
    assert {plan.experiment.pool for plan in plans.shown("table 9", base, ["object"], [0])} == {
        "pixelpick", "superpixel",
    }  # fmt: skip
    for name, option in (("table 7", "--table"), ("figure 2", "--figure"), ("table x", "--table")):
        with pytest.raises(SettingsError, match=option):
            plans.shown(name, base, ["object"], [0])


def test_rows_of_active_learning(tmp_path):
    base = experiment(tmp_path, probabilities=None, train=True)
    four = [row.experiment for row in plans.shown("table 4", base, ["object"], [0])]
    assert [(row.method, row.start, row.superpixels) for row in four] == [
        ("spx", "cold", "seeds"), ("spx", "warm", "seeds"), ("spx", "warm", "objects"),
        ("alc", "warm", "objects"),
    ]  # fmt: skip
    assert four[0].rounds == 2
    three = {row.label: row.experiment for row in plans.shown("figure 3", base, ["object"], [0])}
    assert {row.method for row in three.values()} == {
        "alc", "spx", "merspx", "mulspx", "supervised",
    }  # fmt: skip
    assert three["MerSpx"].superpixel_count == plans.FINER * three["Spx"].superpixel_count
    assert all(row.model_at == "all" for row in three.values() if row.method != "supervised")
    labels = {row.label for row in plans.shown("figure 6", base, ["object"], [0])}
    assert {"R-SEEDS", "G-SEEDS", "R-objects", "G-objects"} <= labels


def test_what_was_published_has_a_row_of_ours(tmp_path):
    base = experiment(tmp_path, probabilities=None, train=True)
    assert set(published.PAPER) == set(plans.SHOWN)
    for name, found in published.PAPER.items():
        labels = {row.label for row in plans.shown(name, base, ["object"], [0])}
        assert set(found.values) <= labels, name


def test_the_papers_numbers_stand_beside_ours(world, tmp_path):
    output, found = simulate(world, tmp_path, "--table", "6")
    assert found["settings"]["shows"] == "table 6"
    for text in ("paper: data", "99.78", "75.87", "from PASCAL to PASCAL+"):
        assert text in output
    written = page.write(found, "title", tmp_path / "report").read_text()
    assert "paper: model mIoU" in written
    assert "99.16" in written


def test_networks_are_compared_with_a_supervised_one():
    def row(method, *models):
        return {
            "method": method,
            "rounds": [{"answers": n, "model_miou": model} for n, model in enumerate(models)],
        }

    rows = figures.relative([row("alc", None, 0.3), row("supervised", 0.4), row("supervised", 0.6)])
    assert [point["model_share"] for point in rows[0]["rounds"]] == [None, 0.6]
    assert figures.is_relative(rows)
    alone = [row("alc", 0.3)]
    assert figures.relative(alone) == alone
    assert not figures.is_relative(alone)


def alc(*arguments):
    return CliRunner().invoke(main.app, [str(argument) for argument in arguments])


def simulate(world, tmp_path, *arguments):
    data, given = world
    path = tmp_path / "result.json"
    result = alc(
        "simulate", data, "--probabilities", given, "--no-train", "--seeds", "0,1",
        "--cache", tmp_path / "cache", "--json", path, *arguments,
    )  # fmt: skip
    if result.exception:
        raise result.exception
    return result.output, json.loads(path.read_text())


def test_the_command_prints_a_table_and_writes_everything(world, tmp_path):
    output, found = simulate(
        world, tmp_path, "--acquisition", "sim,random", "--oracle", "object,pixel",
        "--budgets", "10%,50%",
    )  # fmt: skip
    assert found["settings"]["budgets"] == [6, 30]
    assert len(found["rows"]) == 8
    for row in found["rows"]:
        assert [point["answers"] for point in row["rounds"]] == [0, 6, 30]
        for name in ("data_miou", "precision", "recall", "normalised_clicks"):
            assert row["rounds"][-1][name] > 0
        assert len(row["rounds"][-1]["class_iou"]) == len(CLASSES)
    assert found["versions"]["torch"]
    qualities = [row["rounds"][-1]["data_miou"] for row in found["rows"][:2]]
    shown = f"{100 * np.mean(qualities):.1f} ±{100 * np.std(qualities, ddof=1):.1f}"
    assert shown in output
    assert "oracle pixel, 2 seeds" in output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--questions", "mixed"], "measured over --hours"),
        (["--hours", ","], "must be numbers such as"),
        (["--hours", "1", "--budget", "5"], "--hours goes without --budgets"),
    ],
)
def test_options_that_would_be_passed_over_are_named(world, tmp_path, options, said):
    with pytest.raises(SettingsError, match=said):
        simulate(world, tmp_path, *options)


def test_hours_have_a_table_of_their_own(world, tmp_path):
    output, found = simulate(world, tmp_path, "--hours", "0.01,1", "--questions", "single,mixed")
    assert [row["questions"] for row in found["rows"]] == ["single", "single", "mixed", "mixed"]
    assert found["settings"]["hours"] == [0.01, 1]
    lines = [line.split() for line in output.splitlines()]
    header, *below = [line for line in lines if line[:1] in (["┃"], ["│"])]
    assert [word for word in header if word != "┃"] == [
        "data", "mIoU", "after", "single,", "default", "mixed",
    ]  # fmt: skip
    assert [line[1] for line in below] == ["0.01", "1", "answers", "pages", "tiles", "confirmed"]
    assert [line[3] for line in below if line[1] == "confirmed"] == ["60"]


def test_without_a_terminal_nothing_is_cut_and_nothing_shown_twice(world, tmp_path):
    output, _ = simulate(
        world, tmp_path, "--hours", "0.01,1", "--acquisition", "default,sim,simiou,abc,size,random",
        "--oracle", "object,pixel",
    )  # fmt: skip
    assert "…" not in output
    assert not re.search(r"\d+/\S+ \d:\d\d:\d\d", output)  # no bar either
    for name in ("default", "sim", "simiou", "abc", "size", "random"):
        assert len(re.findall(rf"single, {name} ", output)) == 2  # once for each oracle
    assert output.count("oracle object, 2 seeds") == output.count("oracle pixel, 2 seeds") == 1
    path = tmp_path / "result.json"
    assert f"written to {path}; `alc report {path}` makes a page of it\n" in output


def test_the_command_tells_what_it_assumed_of_the_dataset(world, tmp_path):
    data, held_out = world[0], tmp_path / "held_out"
    for folder, mine in (("JPEGImages", "images"), ("SegmentationClass", "ground_truth")):
        shutil.copytree(data / mine, held_out / folder)
    (held_out / "ImageSets/Segmentation").mkdir(parents=True)
    (held_out / "ImageSets/Segmentation/val.txt").write_text("p0\np1\n")
    output, _ = simulate(world, tmp_path, "--acquisition", "size", "--val", held_out)
    assert "please check:" in output
    assert "the classes are taken to be the 21 of PASCAL VOC" in " ".join(output.split())


def test_where_no_terminal_shows_the_progress_there_is_a_line_a_minute(
    world, tmp_path, monkeypatch
):
    monkeypatch.setattr(common, "LINE_EVERY_S", 0.0)
    output, _ = simulate(world, tmp_path, "--acquisition", "size", "--jobs", "1")
    assert re.search(r"^\d of \d done; size, seed \d: scoring p\d \(\d/5\)$", output, re.MULTILINE)


def test_rounds_of_one_budget(world, tmp_path):
    _, found = simulate(world, tmp_path, "--acquisition", "sim", "--budget", "21", "--rounds", "3")
    points = found["rows"][0]["rounds"]
    assert [(point["round"], point["answers"]) for point in points] == [
        (0, 0), (1, 7), (2, 14), (3, 21),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--budget", "9", "--budgets", "5"], "--budget"),
        (["--table", "2", "--acquisition", "sim"], "--table"),
        (["--table", "77"], "--table"),
        (["--expansion", "maybe"], "--expansion"),
        (["--seeds", "one"], "--seeds"),
        (["--acquisition", "best"], "--acquisition"),
        (["--preset", "huge"], "preset"),
        (["--sample", "polyps"], "--sample goes without a dataset"),
    ],
)
def test_mistakes_on_the_command_line(world, tmp_path, arguments, named):
    with pytest.raises(AlcError, match=named):
        simulate(world, tmp_path, *arguments)


def test_the_sample_of_two_classes_is_for_the_figure_of_two_classes():
    assert SimulateOptions().built_in == "scenes"
    assert SimulateOptions(figure="3").built_in == "scenes"
    assert SimulateOptions(figure="5").built_in == "polyps"
    assert SimulateOptions(figure="5", sample="scenes").built_in == "scenes"
    with pytest.raises(SettingsError, match="scenes or polyps, not 'moon'"):
        SimulateOptions(sample="moon").check()


@pytest.mark.parametrize("classes", [["background", "cat"], ["background", "cat", "dog"]])
def test_of_two_classes_it_is_said_what_a_query_costs(classes):
    found = {"dataset": {"classes": classes}, "settings": {"shows": "figure 5"}}
    said = published.notes(found)
    assert "Kvasir-SEG" in said[0]
    assert [text for text in said if "C_cor = C_cls" in text] == said[1:]
    assert len(said) == (2 if len(classes) == 2 else 1)


def test_data_without_truth_cannot_be_simulated(tmp_path):
    data, _ = write_world(tmp_path)
    for path in (data / "ground_truth").iterdir():
        path.unlink()
    (data / "ground_truth").rmdir()
    with pytest.raises(DatasetError, match="ground_truth"):
        Runner(data, None, tmp_path).scenes()


def test_the_page_stands_by_itself(world, tmp_path):
    simulate(world, tmp_path, "--table", "9")
    result = alc("report", tmp_path / "result.json", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report/report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    places = re.findall(r'href="#([^"]+)"', text)
    assert places
    assert set(places) <= set(re.findall(r'id="([^"]+)"', text))
    assert "url(" not in text
    for name in ("data_miou", "recall", "precision", "class_iou", "repaired", "confusion"):
        assert (tmp_path / f"report/{name}.png").read_bytes().startswith(b"\x89PNG")
        with (tmp_path / f"report/{name}.csv").open() as file:
            assert len(list(csv.reader(file))) > 1
    assert "PixelPick" in text
    assert not (tmp_path / "report/model_miou.png").exists()  # no network was measured
    found = json.loads((tmp_path / "result.json").read_text())
    with (tmp_path / "report/data_miou.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "superpixels"]
    members = [row for row in found["rows"] if row["label"] == "superpixels"]
    for index, row in enumerate(rows):
        values = [member["rounds"][index]["data_miou"] for member in members]
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert float(row["std"]) == pytest.approx(np.std(values, ddof=1))


def test_hostile_names_are_only_text(world, tmp_path):
    _, found = simulate(world, tmp_path, "--acquisition", "sim")
    evil = "<script>alert(1)</script>"
    found["rows"] = [{**row, "label": evil} for row in found["rows"]]
    found["dataset"]["classes"][1] = evil
    found["examples"][0]["key"] = evil
    path = page.write(found, evil, tmp_path / "report")
    assert "<script" not in path.read_text()


def test_several_results_on_one_page(world, tmp_path):
    _, one = simulate(world, tmp_path, "--acquisition", "sim,size")
    _, two = simulate(world, tmp_path, "--acquisition", "sim", "--noise", "0.3")
    found = documents.together([("exact", one), ("tired", two)])
    assert {row["label"] for row in found["rows"]} == {"sim (exact)", "size", "sim (tired)"}
    other = {**two, "dataset": {**two["dataset"], "classes": ["a", "b"]}}
    with pytest.raises(DatasetError, match="classes"):
        documents.together([("exact", one), ("other", other)])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "simulation", "rows": []}'])
def test_files_that_are_no_results(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"x\.json"):
        documents.read(path)
