"""First label maps from what annotators drew in Label Studio before."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.loop.projects import connection, image_queue, initial_labels
from alc_backend.store.models import Image, Project
from tests.fake_label_studio import DATASET_PROJECT, FakeLabelStudio
from tests.labelstudio.results import bitmask_value, brush_value, covered, result

SHAPE = (30, 40)
CONFIG = """<View>
<Image name="image" value="$photo"/><Image name="after" value="$after"/>
<BrushLabels name="brush" toName="image"><Label value="background"/>
  <Label value="cat" alias="felis"/><Label value="dog"/></BrushLabels>
<PolygonLabels name="polygon" toName="image"><Label value="cat"/><Label value="dog" alias="canis"/>
  </PolygonLabels>
<EllipseLabels name="ellipse" toName="image"><Label value="dog"/></EllipseLabels>
<BitmaskLabels name="bitmask" toName="after"><Label value="dog"/></BitmaskLabels>
</View>"""
ONE_LABEL = """<View><Image name="image" value="$photo"/>
<PolygonLabels name="polygon" toName="image"><Label value="crack"/></PolygonLabels></View>"""
TRIANGLE = {"points": [[10.1, 10.1], [90.1, 10.1], [50.1, 90.1]]}
OVAL = {"x": 50.1, "y": 40.1, "radiusX": 10, "radiusY": 20, "rotation": 30}
CORNER = np.zeros(SHAPE, dtype=bool)
CORNER[25:, :6] = True


def png():
    pixels = (np.random.default_rng(1).random((*SHAPE, 3)) * 255).astype(np.uint8)
    kept = io.BytesIO()
    Picture.fromarray(pixels).save(kept, format="PNG")
    return kept.getvalue()


@pytest.fixture
def label_studio():
    found = FakeLabelStudio()
    found.projects[DATASET_PROJECT]["label_config"] = CONFIG
    found.files["/data/upload/1.png"] = png()
    return found


@pytest.fixture
def take_up(store, label_studio):
    """Take up the dataset project, whose tasks begin with these results."""

    def take_up(*results, kind="annotations"):
        for number, items in enumerate(results, start=1):
            record = {
                "id": 70 + number,
                "task": number,
                "result": items,
                "created_at": "2026-01-01T00:00:00Z",
                "completed_by": 1,
                "was_cancelled": False,
            }
            data = {"photo": "/data/upload/1.png", "after": "/data/upload/2.png"}
            task = label_studio.add_task(number, data, DATASET_PROJECT)
            if kind == "annotations":
                task.annotations[record["id"]] = record
            else:
                task.predictions.append(record)
        client = label_studio.client()
        project = connection.take_up_project(store, client, DATASET_PROJECT)
        image_queue.note(store, client, project)
        done = initial_labels.work(store, client, project)
        with store.reading() as session:
            images = {row.dataset_task: row for row in session.scalars(select(Image))}
        files = store.files(project)
        return {
            number: files.read_label_map("initial", row.id) for number, row in images.items()
        }, done.problems

    return take_up


@pytest.mark.parametrize("kind", ["annotations", "predictions"])
def test_shapes_aliases_and_two_images(take_up, kind):
    elsewhere = result("bitmask", bitmask_value(~CORNER), "dog", SHAPE, to_name="after")
    alone = [result("polygon", TRIANGLE, "canis", SHAPE)]
    mixed = [
        elsewhere,
        result("polygon", TRIANGLE, "cat", SHAPE),
        result("ellipse", OVAL, "dog", SHAPE, image_rotation=90),
        result("brush", brush_value(CORNER), "felis", SHAPE),
    ]
    maps, problems = take_up(alone, mixed, kind=kind)
    assert problems == []
    triangle = covered("polygon", TRIANGLE, SHAPE)
    assert np.array_equal(maps[1], np.where(triangle, 2, 0))
    expected = np.where(triangle | CORNER, 1, 0)
    expected[covered("ellipse", OVAL, SHAPE)] = 2
    assert np.array_equal(maps[2], expected)


def test_what_is_not_understood_is_named_with_its_task(take_up):
    point = result("keypoint", {"x": 1, "y": 1, "width": 1}, "cat", SHAPE, from_name="brush")
    unknown = result("polygon", TRIANGLE, "bird", SHAPE)
    gone = result("polygon", TRIANGLE, "cat", SHAPE, from_name="outline")
    fine = result("polygon", TRIANGLE, "cat", SHAPE)
    maps, problems = take_up([fine, point], [fine, unknown], [fine, gone], [fine])
    assert list(maps) == [4]
    assert [problem.partition(":")[0] for problem in problems] == ["task 1", "task 2", "task 3"]
    for problem, reason in zip(problems, ["keypointlabels", "'bird'", "'outline'"], strict=True):
        assert "region 'r1'" in problem
        assert reason in problem


def test_one_label_is_told_from_the_background(take_up, store, label_studio):
    label_studio.projects[DATASET_PROJECT]["label_config"] = ONE_LABEL
    maps, problems = take_up([result("polygon", TRIANGLE, "crack", SHAPE)])
    assert problems == []
    assert np.array_equal(maps[1], covered("polygon", TRIANGLE, SHAPE))
    with store.reading() as session:
        (project,) = session.scalars(select(Project))
    assert (project.classes, project.brush_name) == (["background", "crack"], "")
