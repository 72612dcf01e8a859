"""Label Studio's exports, as its own converter makes them, read without a server."""

from __future__ import annotations

import json

import numpy as np
import pytest
from label_studio_sdk.converter import Converter, brush
from PIL import Image

from alc_backend.errors import DatasetError
from alc_backend.labelstudio.dataset_config import dataset_config
from alc_backend.labelstudio.exported import is_export, open_export
from tests.labelstudio.results import bitmask_value, brush_value, result

SHAPE = (12, 17)
CLASSES = ["background", "sofa-bed", "bed", "a/b"]
ADDRESSES = {
    1: "/data/upload/3/0a1b2c3d-room.png",
    2: "/data/local-files/?d=sub%2Fhall.png",
    3: "s3://bucket/pictures/deep/kitchen.png",
    4: "https://host.example/x/attic.png?sig=1",
}
KEYS = ["deep/kitchen", "room", "sub/hall", "attic"]


def masks(seed):
    """A label map in which every region is visible, and its regions, the largest first."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    regions = []
    for size, class_id in ((8, 1), (5, 2), (3, 3)):
        row, col = rng.integers(0, SHAPE[0] - size + 1), rng.integers(0, SHAPE[1] - size + 1)
        mask = np.zeros(SHAPE, dtype=bool)
        mask[row : row + size, col : col + size] = True
        labels[mask] = class_id
        regions.append((mask, class_id))
    return labels, regions


def task(number, value=brush_value, kind="brush"):
    items = [
        result(kind, value(mask), CLASSES[c], SHAPE, identity=f"r{n}", from_name="label")
        for n, (mask, c) in enumerate(masks(number)[1])
    ]
    items.append({"type": "choices", "from_name": "weather", "value": {"choices": ["rain"]}})
    older = {"id": 10 * number, "result": items[:1], "created_at": "2026-01-01T00:00:00Z"}
    newer = {"id": 10 * number + 1, "result": items, "created_at": "2026-01-02T00:00:00Z"}
    skipped = {**older, "id": 5, "was_cancelled": True, "created_at": "2026-01-03T00:00:00Z"}
    by = {"completed_by": {"id": 1, "email": "anna-b@host.example"}, "lead_time": 1.0}
    return {
        "id": number,
        "data": {"note": "a", "image": ADDRESSES[number]},
        "annotations": [{**one, **by} for one in (newer, older, skipped)],
        "predictions": [{"result": items[:1], "created_at": "2026-01-04T00:00:00Z"}],
    }


@pytest.fixture
def folder(tmp_path):
    """The images, where a team may have them."""
    for key in KEYS:
        path = tmp_path / f"images/{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SHAPE[::-1]).save(path)
    return tmp_path / "images"


@pytest.fixture
def export(tmp_path):
    path = tmp_path / "project-3.json"
    path.write_text(json.dumps([task(number) for number in ADDRESSES]))
    return path


@pytest.fixture
def class_list(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"{name}\n" for name in CLASSES))
    return path


def check(dataset, keys=KEYS):
    assert dataset.problems == []
    samples = {sample.key: sample for sample in dataset.samples()}
    assert dataset.problems == []
    assert sorted(samples) == sorted(keys)
    names = {"room": 1, "sub/hall": 2, "deep/kitchen": 3, "attic": 4}
    for key, sample in samples.items():
        labels, _ = masks(names[key])
        assert np.array_equal(sample.labels, labels)
        assert (sample.superpixels > 0).tolist() == (labels > 0).tolist()
    return samples


def test_the_json_export(export, folder):
    dataset = open_export(export, folder)
    assert dataset.classes == CLASSES
    check(dataset)
    assert "superpixels are the regions" in dataset.notes[0]


@pytest.mark.parametrize(("kind", "value"), [("bitmask", bitmask_value), ("brush", brush_value)])
def test_regions_of_any_shape(export, folder, class_list, kind, value):
    export.write_text(json.dumps([task(number, value, kind) for number in ADDRESSES]))
    check(open_export(export, folder, class_list))


def test_a_prediction_counts_where_there_is_no_annotation(export, folder):
    items = [task(number) for number in ADDRESSES]
    for item in items:
        item["annotations"], item["predictions"][0]["result"] = [], item["annotations"][0]["result"]
    export.write_text(json.dumps(items))
    check(open_export(export, folder))


def convert(export, out, form):
    """What Label Studio's converter makes of the JSON export."""
    converter = Converter(dataset_config(CLASSES), project_dir=None)
    if form == "json_min":
        converter.convert_to_json_min(str(export), str(out), is_dir=False)
        return out / "result.json"
    out.mkdir()
    brush.convert_task_dir(converter.iter_from_json_file(str(export)), str(out), out_format=form)
    return out


def test_the_json_min_export(tmp_path, export, folder):
    made = convert(export, tmp_path / "min", "json_min")
    dataset = open_export(made, folder)
    assert dataset.classes == CLASSES
    check(dataset)


@pytest.mark.parametrize("form", ["numpy", "png"])
@pytest.mark.parametrize("minimal", [False, True])
def test_brush_labels_to_numpy_and_png(tmp_path, export, folder, form, minimal, class_list):
    out = convert(export, tmp_path / "masks", form)
    assert len(list(out.iterdir())) > 12
    with pytest.raises(DatasetError, match="JSON_MIN export beside them"):
        open_export(out, folder)
    beside = convert(export, tmp_path / "min", "json_min") if minimal else export
    beside.rename(out / "project.json")
    assert is_export(out)
    check(open_export(out, folder))
    check(open_export(out, folder, class_list))
    (out / "project.json").write_text("[]")
    with pytest.raises(DatasetError, match="names 1 classes"):
        open_export(out, folder)


def test_tasks_that_cannot_be_used_are_named_and_the_others_read(export, folder):
    items = [task(number) for number in ADDRESSES]
    items[0]["data"]["image"] = "/data/upload/3/none.png"
    items[1]["annotations"] = items[1]["predictions"] = []
    items[2]["annotations"][0]["result"][0]["original_width"] = 3
    items.append({**items[3], "id": 9})
    items.append({**task(1), "id": 10, "data": {"image": "/data/../images/room.png"}})
    items[4]["data"] = {"image": "room.png"}
    export.write_text(json.dumps(items))
    dataset = open_export(export, folder)
    samples = [sample.key for sample in dataset.samples()]
    assert samples == ["attic", "room"]
    told = "\n".join(dataset.problems)
    for named in ("task 1:", "task 2 (hall.png): has no annotation", "deep/kitchen", "task 10:"):
        assert named in told


def test_an_export_none_of_whose_images_is_there_is_refused(export, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, named in (("empty", "none of its tasks"), ("nowhere", "is not a folder")):
        with pytest.raises(DatasetError, match=named):
            open_export(export, tmp_path / folder)


def test_a_link_in_the_folder_of_images_leads_nowhere(export, folder, tmp_path):
    (folder / "room.png").rename(tmp_path / "secret.png")
    (folder / "room.png").symlink_to(tmp_path / "secret.png")
    dataset = open_export(export, folder)
    assert "room" not in {sample.key for sample in dataset.samples()}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{}", "no list of tasks"),
        ("[1]", "no list of tasks"),
        ("[", "not JSON"),
        ("[]", "names 1 classes"),
        (
            '[{"id": 1, "data": {"image": "x.png"}, "annotations": 7, "predictions": [7]}]',
            "names 1",
        ),
    ],
)
def test_what_is_no_export_is_refused(export, folder, content, named):
    export.write_text(content)
    with pytest.raises(DatasetError, match=named):
        open_export(export, folder)


def test_damaged_files_of_masks_cost_their_image_alone(tmp_path, export, folder):
    out = convert(export, tmp_path / "masks", "numpy")
    export.rename(out / "project.json")
    newest = sorted(out.glob("task-1-annotation-11-*"))
    newest[0].write_bytes(b"\x93NUMPY junk")
    np.save(sorted(out.glob("task-2-annotation-21-*"))[0], np.zeros((3, 3), dtype=np.uint8))
    pickled = sorted(out.glob("task-3-annotation-31-*"))[0]
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    (out / "task-4-annotation-41-by-x-label-cow-0.npy").write_bytes(b"")
    dataset = open_export(out, folder)
    assert list(dataset.samples()) == []
    assert len(dataset.problems) == 4
    assert all("; " in problem for problem in dataset.problems)


def test_other_files_are_no_exports(tmp_path, dataset):
    assert not is_export(dataset)
    assert not is_export(tmp_path / "none")
