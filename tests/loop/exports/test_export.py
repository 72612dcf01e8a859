"""The exported dataset: what it says, that it comes back the same, and how it is checked."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.datasets.layouts import WRITERS
from alc_backend.errors import DatasetError
from alc_backend.foundation.warm_start import WarmStart
from alc_backend.loop.exports import changes, manifest, snapshot
from alc_backend.loop.exports.changes import Change
from alc_backend.loop.exports.export import export_project
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Round
from tests.annotations import (
    BACKGROUND,
    CAT,
    DATASET_PROJECT,
    DOG,
    QUERY_PROJECT,
    annotation,
    answer,
    arrive,
    asked_project,
    created,
    deleted,
    image_of,
    label_map,
    query_of,
    region,
    round_config,
    task_of,
)
from tests.command_line import alc
from tests.conftest import BOTH_DATABASES, CLASSES, write_dataset
from tests.datasets.made import READABLE
from tests.loop.exports.contents import contents
from tests.machine import write_batch
from tests.pages import add_page, say_to_page

KEYS = ("a", "b", "deep/c")


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "dataset"
    for folder in ("images", "pseudo_labels", "objects", "ground_truth"):
        (root / folder / "deep").mkdir(parents=True)
    write_dataset(root, KEYS)
    labels = np.asarray(Picture.open(root / "pseudo_labels/b.png")).copy()
    labels[:4] = 255
    Picture.fromarray(labels).save(root / "pseudo_labels/b.png")
    return root


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


def say(store, into, *records, **options):
    """Let annotations be made in Label Studio, whose webhooks arrive."""
    arrive(store, into, *(created(record, **options) for record in records))


def say_much(store, project):
    """Corrections, an accept, a skip and an edit."""
    say(
        store,
        project,
        answer(1, task_of(store, "a", 2), "dog", by=7),
        answer(2, task_of(store, "a", 1), "cat", by=8, minute=1),
        answer(3, task_of(store, "b", 2), "dog", by=8, minute=2),
        answer(4, task_of(store, "deep/c", 1), None, by=7, minute=3),
    )
    painted = region("dog", slice(0, 12), slice(4, 12))
    task = image_of(store, "deep/c").dataset_task
    edit = annotation(9, task, [painted], by=9, minute=4)
    say(store, project, edit, project=DATASET_PROJECT)


@pytest.fixture
def submit(store, project):
    return lambda *records, **options: say(store, project, *records, **options)


@pytest.fixture
def corrected(store, project):
    say_much(store, project)
    return project


@pytest.fixture
def export(store, project, tmp_path):
    def export(folder="out", **options):
        export_project(store, project, tmp_path / folder, **options)
        return tmp_path / folder

    return export


@pytest.fixture(params=list(WRITERS))
def layout(request):
    return request.param


def changes_in(root):
    return json.loads((root / "changes.json").read_text("utf-8"))


def brief(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def verify(store, project, root):
    return manifest.differences(root, manifest.read(root), snapshot.take(store, project))


@pytest.mark.parametrize("layout", READABLE)
def test_an_export_is_imported_as_the_same_dataset(store, corrected, export, layout):
    root = export(format_name=layout)
    again = import_folder(store, root, "again")
    assert (again.imported, again.problems) == (3, [])
    first, second = snapshot.take(store, corrected), snapshot.take(store, again.project_id)
    assert second.project.classes == CLASSES
    for before, after in zip(first.images, second.images, strict=True):
        assert before.key == after.key
        exported, imported = (
            snapshot.read_maps(taken, image) for taken, image in ((first, before), (second, after))
        )
        assert np.array_equal(imported.initial, exported.labels)
        assert np.array_equal(imported.superpixels, exported.superpixels)
        assert not np.array_equal(exported.labels, exported.initial)


def test_a_format_of_datumaros_is_exported_with_all_that_stands_beside_it(store, corrected, export):
    pytest.importorskip("datumaro", reason="datumaro is not installed")
    from alc_backend.datasets.through_datumaro import open_datumaro

    root = export(format_name="label_me")
    assert verify(store, corrected, root) == []
    assert "Datumaro's format label\\_me" in (root / "README.md").read_text("utf-8")
    samples = {s.key: s for s in open_datumaro(root / "dataset", "label_me").samples()}
    for key in KEYS:
        assert np.array_equal(samples[key].labels, label_map(store, corrected, key))


def test_the_same_state_gives_the_same_bytes(corrected, export, layout):
    first = contents(export("first", format_name=layout))
    assert first == contents(export("second", format_name=layout))
    again = contents(export("first", format_name=layout))  # over the earlier one
    assert first == again
    assert {"changes.csv", "changes.json", "README.md", "manifest.json"} < first.keys()


def test_another_machine_and_other_database_numbers_give_the_same_bytes(
    store, corrected, export, tmp_path, dataset
):
    expected = contents(export())
    with closing(Store(Settings(data_dir=tmp_path / "other", _env_file=None))) as other:
        import_folder(other, write_dataset(tmp_path / "first", ["x", "y"]), "first")
        with other.session() as session:
            session.add(Project(name="none", classes=CLASSES))
        copied = asked_project(other, dataset)
        say_much(other, copied)
        assert copied != corrected
        again = tmp_path / "elsewhere" / "again"
        export_project(other, copied, again)
    assert contents(again) == expected


@BOTH_DATABASES
def test_changes_are_the_pixels_that_differ(store, corrected, export):
    rows = changes_in(export())
    assert brief(rows, "image", "superpixel", "kind", "from", "to", "pixels") == [
        ("a", 2, "correct", "cat", "dog", 384),
        ("b", 2, "correct", "cat", "dog", 384),
        ("deep/c", 0, "edit", "background", "dog", 12 * 8 - 4 * 4),
        ("deep/c", 1, "edit", "cat", "dog", 4 * 4),
    ]
    assert brief(rows, "round", "annotators", "agreement", "seconds") == [
        (1, ["7"], None, 2.5),
        (1, ["8"], None, 2.5),
        (1, ["9"], None, 2.5),
        (1, ["9"], None, 2.5),
    ]
    assert rows[1]["answered_at"] == "2026-01-01T12:02:00+00:00"


def test_the_table_of_changes_says_the_same(corrected, export):
    root = export()
    with (root / "changes.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    shown = [
        {
            name: "" if value is None else ";".join(value) if name == "annotators" else str(value)
            for name, value in row.items()
        }
        for row in changes_in(root)
    ]
    assert table == shown
    assert len(table) == 4


def test_what_is_not_in_force_is_no_change(store, corrected, export, submit):
    arrive(store, corrected, deleted(3))
    submit(answer(1, task_of(store, "a", 2), "cat", by=7, revised=5))
    assert brief(changes_in(export()), "image", "kind") == [("deep/c", "edit")] * 2
    arrive(store, corrected, deleted(9, project=DATASET_PROJECT))
    root = export()
    assert changes_in(root) == []
    assert len((root / "changes.csv").read_text().splitlines()) == 1


def test_an_answer_over_an_edit_is_credited_with_what_it_wrote(store, corrected, export, submit):
    submit(answer(5, task_of(store, "deep/c", 1), "background", by=7, minute=10))
    rows = [row for row in changes_in(export()) if row["image"] == "deep/c"]
    assert brief(rows, "superpixel", "kind", "from", "to", "pixels") == [
        (0, "edit", "background", "dog", 80),
        (1, "correct", "cat", "background", 256),
    ]


def test_only_the_pixels_that_an_answer_reached_are_changed(store, project, submit, export):
    with store.session() as session:
        session.scalars(select(Round)).one().config = round_config(epsilon=0.5)
    reached = np.zeros((48, 64), dtype=np.bool_)
    reached[24:28] = True
    store.files(project).write_reach(1, image_of(store, "a").id, reached)
    submit(answer(1, task_of(store, "a", 2), "dog"))
    assert brief(changes_in(export()), "superpixel", "pixels") == [(2, 4 * 24)]


def test_a_pixel_that_was_changed_back_is_no_change(store, project, submit, export):
    asked = query_of(store, "a", 2)
    with store.session() as session:
        session.get_one(Query, asked.id).pseudo_label = DOG
    submit(answer(1, task_of(store, "a", 2), "cat"))  # it was a cat in the beginning
    assert changes_in(export()) == []


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "replaced"])
def test_an_export_is_on_the_disk_before_it_gets_its_name(
    store, project, tmp_path, monkeypatch, earlier
):
    """A power cut leaves the earlier export, or the new one, whole."""
    target = tmp_path / "exports" / "out"
    if earlier:
        export_project(store, project, target)
    synced = []
    sync = os.fsync

    def noted(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path, target.exists(), len(list(target.parent.glob(".out.*.old")))))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    export_project(store, project, target)
    *inside, (last, exists, replaced) = synced
    assert (last, exists, replaced) == (target.parent, True, int(earlier))
    assert {(there, old) for _, there, old in inside} == {(earlier, 0)}
    (staging,) = {path.relative_to(target.parent).parts[0] for path, _, _ in inside}
    names = {path.relative_to(target.parent / staging) for path, _, _ in inside}
    assert names == {path.relative_to(target) for path in (target, *target.rglob("*"))}


def test_void_that_became_a_class_has_no_name(store, project, submit, export):
    painted = region("dog", slice(0, 6), slice(0, 10))
    task = image_of(store, "b").dataset_task
    submit(annotation(9, task, [painted]), project=DATASET_PROJECT)
    rows = changes_in(export())
    assert brief(rows, "from", "to", "pixels") == [("background", "dog", 20), (None, "dog", 40)]


@BOTH_DATABASES
def test_agreement_is_the_share_of_the_votes(store, dataset, tmp_path):
    project = asked_project(store, dataset, overlap=3)

    def vote(number, superpixel, choice, by):
        task = task_of(store, "a", superpixel)
        say(store, project, answer(number, task, choice, by=by, minute=number))

    for number, by in enumerate((7, 8, 9), start=1):
        vote(number, 2, "dog", by)
        vote(10 + number, 1, ["dog", "dog", "background"][number - 1], by)
    export_project(store, project, tmp_path / "out")
    rows = changes_in(tmp_path / "out")
    assert brief(rows, "superpixel", "agreement", "annotators") == [(2, 1.0, ["7", "8", "9"])]
    first = query_of(store, "a", 1)
    names = ("superpixel_id", "round_id", "row", "col", "pseudo_label", "score", "rank")
    shown = {name: getattr(first, name) for name in names}
    with store.session() as session:  # the disputed one is asked again, and settled
        session.add(Query(**shown, adjudication=True, proposed=[DOG, CAT], task_id=900))
    say(store, project, answer(20, 900, "dog", by=5, minute=20))
    export_project(store, project, tmp_path / "out")
    rows = changes_in(tmp_path / "out")
    assert brief(rows, "superpixel", "agreement", "annotators") == [
        (1, 0.6667, ["5", "7", "8"]),
        (2, 1.0, ["7", "8", "9"]),
    ]


def test_the_data_card_counts(store, corrected, export):
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        config = round_config(acquisition="sim")
        training = replace(config.training, encoder="resnet18", encoder_weights="/home/me/net.pth")
        round_.config = replace(config, training=training)
    root = export()
    card = (root / "README.md").read_text("utf-8")
    rows = dict(line.strip("|").split("|", 1) for line in card.splitlines() if line.startswith("|"))
    counts = {name.strip(): value.strip() for name, value in rows.items()}
    assert counts["images"] == "3"
    assert counts["answers in force"] == "4"
    assert counts["— accepted"] == "1"
    assert counts["— corrected"] == "2"
    assert counts["— skipped"] == "1"
    assert counts["direct edits in force"] == "1"
    assert counts["annotators"] == "3"
    assert counts["superpixels changed"] == "3"
    total = 48 * 64
    share = 100 * (384 * 2 + 96) / (3 * total)
    assert counts["pixels changed"] == f"{384 * 2 + 96} ({share:.2f} %)"
    assert counts["rounds"] == "1"
    before = 3 * (16 * 16 + 16 * 24)
    cats, meadow = before - 2 * 384 - 16, 3 * total - before - 256
    assert counts["cat"] == f"3 | 0 | {before} | {cats} | {cats / before:.4f}"
    assert counts["dog"] == f"0 | 3 | 0 | {2 * 384 + 96} | 0.0000"
    assert counts["background"] == f"0 | 0 | {meadow} | {meadow - 80} | {1 - 80 / meadow:.4f}"
    assert counts["(void)"] == "0 | 0 | 256 | 256 |"
    first = counts["mean IoU of the initial label maps, measured by the repaired ones"]
    assert float(first) == pytest.approx((cats / before + 1 - 80 / meadow) / 3, abs=1e-4)
    with (root / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    for name in (*CLASSES, "(void)"):
        shown = [cell.strip() for cell in counts[name].split("|")]
        assert shown == [*rows[name].values()][1:]
    assert "resnet18 | net.pth" in counts["1"]
    assert "/home" not in card
    assert json.loads((root / "manifest.json").read_text())["ledger"]["sha256"] in card
    assert "Licence: _to be filled in" in card


def test_names_cannot_break_the_data_card(store, tmp_path, dataset):
    (dataset / "classes.txt").write_text("back|ground\n<b>cat\n*dog*\n")
    project = import_folder(store, dataset, "pets\n# of `all` kinds").project_id
    export_project(store, project, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("# pets \\# of \\`all\\` kinds\n")
    for shown in (r"| back\|ground | ", r"| \<b\>cat | ", r"| \*dog\* | "):
        assert shown in card


def test_the_data_card_says_how_label_maps_began(store, corrected, export):
    assert "Foundation models" not in (export() / "README.md").read_text()
    start = WarmStart("grounded-sam", detector="/home/me/own_dino.pth").as_dict()
    with store.session() as session:
        for image in session.scalars(select(Image).where(Image.key != "b")):
            image.warm_start = start
    card = (export("again") / "README.md").read_text()
    said = "made the first label maps of 2 images (detector own\\_dino.pth, segmenter"
    assert f"Foundation models {said} sam-vit-h, box threshold 0.2)." in card
    assert "/home" not in card


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path):
    told = Change("@SUM(1)", 1, "correct", "=A1", "-dog", 5, 1, ("7",), None, "now", -2.0)
    changes.write(tmp_path, [told])
    _, row = csv.reader((tmp_path / "changes.csv").open(encoding="utf-8", newline=""))
    assert row[0] == "'@SUM(1)"
    assert {"'=A1", "'-dog", "-2.0"} <= set(row)
    (written,) = json.loads((tmp_path / "changes.json").read_text("utf-8"))
    assert {"@SUM(1)", "=A1", "-dog"} <= {str(value) for value in written.values()}


def test_what_somebody_changed_in_an_export_is_not_replaced(corrected, export):
    root = export()
    card = root / "README.md"
    card.write_text(card.read_text().replace("_to be filled in", "CC BY 4.0 _"))
    with pytest.raises(DatasetError, match=r"README\.md was changed since the earlier export"):
        export()
    assert "CC BY 4.0" in card.read_text()


def test_the_manifest_has_the_digest_of_every_file(corrected, export, layout):
    root = export(format_name=layout)
    told = json.loads((root / "manifest.json").read_text("utf-8"))
    files = {
        name: hashlib.sha256(content).hexdigest()
        for name, content in contents(root).items()
        if name != "manifest.json"
    }
    assert told["files"] == files
    assert (told["format"], told["classes"], told["images"]) == (layout, CLASSES, 3)
    assert (told["project"], told["images_included"]) == ("pets", True)
    assert told["ledger"]["entries"] == 5


def test_images_are_left_out_on_demand(corrected, export, layout):
    whole = contents(export("whole", format_name=layout))
    bare = contents(export("bare", format_name=layout, with_images=False))
    missing = {Path(name).stem for name in whole.keys() - bare.keys()}
    marks = re.compile(r"^deep__|_leftImg8bit$|_0000$")  # what formats add to names
    assert {marks.sub("", name) for name in missing} == {"a", "b", "c"}
    assert bare.keys() < whole.keys()


def test_an_export_equals_the_store_until_something_is_said(store, corrected, export, submit):
    root = export()
    assert verify(store, corrected, root) == []
    submit(answer(20, task_of(store, "b", 1), "cat", minute=30))
    (moved,) = verify(store, corrected, root)
    assert moved == ("the ledger has moved on: 5 entries were in force, now 6 are; export again")
    assert verify(store, corrected, export()) == []


@pytest.mark.parametrize("number", [1, 9])
def test_a_withdrawn_answer_moves_the_ledger_on(store, corrected, export, number):
    root = export()
    of = DATASET_PROJECT if number == 9 else QUERY_PROJECT
    arrive(store, corrected, deleted(number, project=of))
    assert "moved on" in verify(store, corrected, root)[0]


def test_a_revised_answer_moves_the_ledger_on(store, corrected, export, submit):
    root = export()
    submit(answer(1, task_of(store, "a", 2), "background", by=7, revised=9))
    assert "moved on" in verify(store, corrected, root)[0]


def test_a_new_image_moves_the_ledger_on(store, corrected, export, tmp_path):
    root = export()
    import_folder(store, write_dataset(tmp_path / "more", ["z"]), "pets")
    assert "moved on" in verify(store, corrected, root)[0]


def test_a_round_in_training_does_not_move_the_ledger_on(store, corrected, export):
    root = export()
    with store.session() as session:
        session.add(Round(project_id=corrected, number=2, state="training", config=round_config()))
    assert verify(store, corrected, root) == []
    assert contents(export("again")) == contents(root)


def test_altered_missing_and_added_files_are_named(store, corrected, export):
    root = export()
    (root / "labels/a.png").write_bytes((root / "labels/b.png").read_bytes())
    (root / "labels/deep/c.png").unlink()
    (root / "notes.txt").write_text("mine")
    (root / "link").symlink_to("/nowhere")
    assert verify(store, corrected, root) == [
        "labels/a.png was altered since the export",
        "labels/deep/c.png is missing",
        "link is not part of the export",
        "notes.txt is not part of the export",
    ]


@pytest.mark.parametrize(
    "alter",
    [
        lambda told: told.update(classes=["x"]),
        lambda told: told["files"].pop("README.md"),
        lambda told: told.pop("sha256"),
        lambda told: told.pop("made_by"),
        lambda told: told["ledger"].update(entries=0),
    ],
)
def test_an_altered_manifest_is_refused(corrected, export, alter):
    root = export()
    told = json.loads((root / "manifest.json").read_text())
    alter(told)
    (root / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        manifest.read(root)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"made_by": "alc-backend"}', "\x00"])
def test_a_damaged_manifest_is_refused(corrected, export, text):
    root = export()
    (root / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        manifest.read(root)


def test_other_folders_are_not_written_over(corrected, export, tmp_path):
    root = tmp_path / "out"
    root.mkdir()
    export()  # an empty one is fine
    (root / "notes.txt").write_text("mine")
    before = contents(root)
    told = []
    with pytest.raises(DatasetError, match=r"notes\.txt"):
        export(progress=lambda *step: told.append(step))
    assert told == []  # before any work
    assert contents(root) == before
    (root / "manifest.json").unlink()
    with pytest.raises(DatasetError, match="not empty"):
        export()
    with pytest.raises(DatasetError, match="is a file"):
        export("out/notes.txt")
    with pytest.raises(DatasetError, match="cannot be written"):
        export("out/notes.txt/deeper")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "dataset", "out"]


def test_an_earlier_export_of_another_format_is_replaced_whole(corrected, export, tmp_path):
    export(format_name="coco-panoptic")
    root = export(format_name="voc")
    assert contents(root) == contents(export("fresh", format_name="voc"))
    assert not (root / "annotations").exists()


def test_what_fails_leaves_the_earlier_export(store, corrected, export, tmp_path):
    root = export()
    before = contents(root)
    with store.session() as session:
        image = session.scalars(select(Image).where(Image.key == "deep/c")).one()
        image.key = "../../evil"
    with pytest.raises(DatasetError, match="rename the image"):
        export()
    assert contents(root) == before
    with pytest.raises(DatasetError, match="rename the image"):
        export("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "dataset", "out"]
    assert not list(tmp_path.rglob("evil*"))


def test_progress_is_told_image_by_image(corrected, export):
    told = []
    export(progress=lambda *step: told.append(step))
    assert told == [(0, 3, "a"), (1, 3, "b"), (2, 3, "deep/c")]


def test_a_half_written_export_is_nowhere_to_be_found(corrected, export, tmp_path):
    def look(done, total, key):
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.rglob("manifest.json"))

    assert (export(progress=look) / "manifest.json").is_file()


@BOTH_DATABASES
def test_what_is_said_during_an_export_is_no_part_of_it(store, corrected, export, submit):
    before = contents(export())

    def interrupt(done, total, key):
        if done == 0:
            submit(answer(20, task_of(store, "b", 1), "dog", minute=30))

    root = export("again", progress=interrupt)
    assert contents(root) == before
    assert "moved on" in verify(store, corrected, root)[0]


def test_validation_images_are_no_part_of_it(store, tmp_path, dataset):
    project = import_folder(store, dataset, "held out", validation=dataset).project_id
    assert export_project(store, project, tmp_path / "out") == 3


def test_hugging_face_datasets_loads_an_export(store, corrected, export, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    root = export(format_name="huggingface")
    loaded = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = {row["image_id"]: row for row in loaded["train"]}
    assert sorted(rows) == sorted(KEYS)
    for key, row in rows.items():
        assert np.array_equal(np.asarray(row["label"]), label_map(store, corrected, key))
        superpixels = store.files(corrected).read_superpixels(image_of(store, key).id)
        assert np.array_equal(np.asarray(row["objects"]), superpixels)
        shown = Picture.open(root / "train/images" / f"{key}.png")
        assert np.array_equal(np.asarray(row["image"]), np.asarray(shown))


def test_the_command_exports_and_verifies(settings, store, corrected, tmp_path, submit):
    root = tmp_path / "out"
    done = alc(settings, "export", str(root), "--format", "voc", "--no-images")
    assert done.returncode == 0, done.stderr
    assert "3 label maps written" in done.stdout
    assert "Label Studio was not asked" in done.stderr
    assert json.loads((root / "manifest.json").read_text())["format"] == "voc"
    assert not list((root / "JPEGImages").rglob("*.png"))
    done = alc(settings, "export", str(root), "--verify")
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "changes.csv").write_text("forged")
    submit(answer(20, task_of(store, "b", 1), "cat", minute=30))
    done = alc(settings, "export", str(root), "--verify")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "changes.csv was altered since the export" in said
    assert "the ledger has moved on" in said
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["export", "out", "--format", "pdf"], "coco-panoptic"),
        (["export", "out", "--cityscapes-ids", "x.json"], "--format cityscapes"),
        (["export", "out", "--cityscapes-ids", "x.json", "--format", "cityscapes"], "x.json"),
        (["export", "nowhere", "--verify"], "nowhere"),
    ],
)
def test_mistakes_end_in_one_sentence(settings, tmp_path, arguments, named):
    settings.data_dir.mkdir(parents=True)
    done = alc(settings, *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


# Pages of look-alikes.


@BOTH_DATABASES
def test_changes_tell_the_tile_and_what_its_page_proposed(store, project, submit, export):
    submit(answer(1, task_of(store, "a", 1), "dog"))
    page = add_page(store, project, [("a", 2), ("b", 2), ("b", 1)], proposed=DOG)
    say_to_page(store, page, 2, {1, 3}, minute=1)
    root = export()
    names = ("image", "superpixel", "kind", "to", "position", "proposed", "seconds")
    assert brief(changes_in(root), *names) == [
        ("a", 1, "correct", "dog", 0, None, 2.5),
        ("a", 2, "correct", "dog", 1, "dog", 2.0),
        ("b", 1, "correct", "dog", 3, "dog", 2.0),
    ]
    with (root / "changes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["position"], row["proposed"]) for row in rows] == [
        ("0", ""), ("1", "dog"), ("3", "dog")
    ]  # fmt: skip


@BOTH_DATABASES
def test_the_data_card_tells_how_labels_were_confirmed(store, corrected, export):
    page = add_page(store, corrected, [("b", 1), ("deep/c", 2), ("deep/c", 1)])
    say_to_page(store, page, 20, {1, 2}, minute=9)
    card = (export() / "README.md").read_text("utf-8")
    rows = dict(line.strip("|").split("|", 1) for line in card.splitlines() if line.startswith("|"))
    counts = {name.strip(): value.strip() for name, value in rows.items()}
    assert counts["superpixels confirmed"] == "5"
    assert counts["— singly"] == "3"
    assert counts["— on pages of look-alikes"] == "2"
    assert counts["— by hand"] == "0"
    assert counts["tiles of pages unticked (a class ruled out)"] == "1"
    assert counts["answers in force"] == "6"


def test_ruling_a_class_out_is_part_of_what_an_export_was_made_from(
    store, corrected, export, settings
):
    root = export()
    page = add_page(store, corrected, [("b", 1)], proposed=DOG)
    say_to_page(store, page, 20, set(), minute=9)
    done = alc(settings, "export", str(root), "--verify")
    assert done.returncode == 1
    assert "the ledger has moved on" in " ".join((done.stdout + done.stderr).split())
    export("again")
    with store.session() as session:
        session.query(LedgerEntry).filter_by(position=1).update({"proposed": BACKGROUND})
    done = alc(settings, "export", str(root.parent / "again"), "--verify")
    assert done.returncode == 1  # the same was said to another proposal


def test_what_the_machine_wrote_is_marked(store, project, submit, export):
    write_batch(store, project, [("a", 2), ("b", 2), ("b", 1)])
    submit(answer(1, task_of(store, "b", 1), "cat"))
    root = export()
    names = ("image", "superpixel", "kind", "to", "annotators", "agreement", "position")
    assert brief(changes_in(root), *names) == [
        ("a", 2, "machine", "dog", ["machine"], None, 1),
        ("b", 2, "machine", "dog", ["machine"], None, 2),
    ]
    card = (root / "README.md").read_text("utf-8")
    rows = dict(line.strip("|").split("|", 1) for line in card.splitlines() if line.startswith("|"))
    counts = {name.strip(): value.strip() for name, value in rows.items()}
    assert counts["superpixels on the machine's own word"] == "2"
    assert counts["superpixels confirmed"] == counts["annotators"] == "1"
