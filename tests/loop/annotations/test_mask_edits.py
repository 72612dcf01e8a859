"""Masks changed by hand in the dataset project: what counts is what the annotator changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.errors import LabelStudioAwayError
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.dataset_config import dataset_config
from alc_backend.labelstudio.regions import painted
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.loop.annotations import answers, history, mask_edits
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store.files import encode_edit
from alc_backend.store.importing import create_project
from alc_backend.store.models import Image, Project
from tests.annotations import (
    BACKGROUND,
    CAT,
    DOG,
    NOON,
    annotation,
    answer,
    asked_project,
    entries,
    image_of,
    in_ledger,
    judged,
    label_map,
    label_studio_of,
    query_of,
    region,
    task_of,
)
from tests.conftest import BOTH_DATABASES, CLASSES
from tests.fake_label_studio import DATASET_PROJECT

CAT_AT, DOG_AT = np.s_[8:24, 8:24], np.s_[24:40, 32:56]
CORNER = (slice(0, 4), slice(0, 4))


@pytest.fixture
def classes():
    return CLASSES


@pytest.fixture(params=["brush", "bitmask", "polygon"])
def shape(request):
    """What masks are shown as (ALC_REGIONS)."""
    return request.param


@pytest.fixture
def project(store, dataset, classes):
    (dataset / "classes.txt").write_text("\n".join(classes))
    return asked_project(store, dataset)


@pytest.fixture
def first(store, project):
    """The first label map of image a: a cat, and a dog that is called a cat."""
    return label_map(store, project)


@pytest.fixture
def shown(store, project, first, classes, shape):
    """The regions of the prediction that an annotator of image a begins from: s1c1 and s2c1."""
    superpixels = store.files(project).read_superpixels(image_of(store, "a").id)
    regions = mask_regions(first, superpixels, classes, shape=shape)
    assert [item["id"] for item in regions] == ["s1c1", "s2c1"]
    return regions


@pytest.fixture
def label_studio(store, shown, classes, shape):
    fake = label_studio_of(store)
    own = '<BrushLabels name="brush" toName="image"><Label value="cat"/></BrushLabels></View>'
    config = dataset_config(classes, shape)
    if shape != "brush":  # what is added by hand here is a brush
        config = config.replace("</View>", own)
    fake.projects[DATASET_PROJECT]["label_config"] = config
    fake.predict(image_of(store, "a").dataset_task, shown, number=900)
    return fake


@pytest.fixture
def edit(store, project, label_studio):
    """Submit masks of image a that were begun from prediction 900."""

    def edit(number, result, *, parent_prediction=900, **changes):
        task = image_of(store, "a").dataset_task
        given = annotation(number, task, result, parent_prediction=parent_prediction, **changes)
        with store.reading() as session:
            row = session.get_one(Project, project)
        return mask_edits.record(store, label_studio.client, row, parse(given))

    return edit


@pytest.fixture
def reply(store, project):
    """LedgerEntry the query about a superpixel of image a."""

    def reply(number, choice, *, superpixel=2, **changes):
        given = parse(answer(number, task_of(store, "a", superpixel), choice, **changes))
        with store.reading() as session:
            row = session.get_one(Project, project)
        return answers.record(store, row, given, {})

    return reply


def shown_there(store, label_studio):
    """The predictions of image a in Label Studio."""
    return label_studio.tasks[image_of(store, "a").dataset_task].predictions


def relabelled(item, name):
    return {**item, "value": {**item["value"], item["type"]: [name]}}


def with_(labels, where, class_id):
    changed = labels.copy()
    changed[where] = class_id
    return changed


def changes_of(store):
    return entries(store)[-1].changes


def superpixel_id(store, number):
    return query_of(store, "a", number).superpixel_id


def test_masks_left_as_they_were_change_nothing(store, project, first, shown, edit):
    edit(1, shown)
    edit(2, shown[::-1])
    assert [entry.changes for entry in entries(store)] == [[], []]
    assert np.array_equal(label_map(store, project), first)
    assert judged(store, project).settled == set()
    assert history.list_entries(store, project) == []


@BOTH_DATABASES
def test_a_relabelled_region(store, project, first, shown, edit):
    assert edit(1, [shown[0], relabelled(shown[1], "dog")]) == Outcome.RECORDED
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, DOG))
    assert changes_of(store) == [
        {
            "superpixel": superpixel_id(store, 2),
            "number": 2,
            "from": CAT,
            "to": DOG,
            "pixels": 384,
            "most": True,
        }
    ]
    assert judged(store, project).settled == {superpixel_id(store, 2)}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_added_region_lies_on_top_wherever_it_is_listed(
    store, project, first, shown, edit, place
):
    added = region("dog", slice(4, 12), slice(4, 12))
    edit(1, [*shown[:place], added, *shown[place:]])
    assert np.array_equal(label_map(store, project), with_(first, np.s_[4:12, 4:12], DOG))
    assert changes_of(store) == [
        {"superpixel": None, "number": 0, "from": None, "to": DOG, "pixels": 48, "most": False},
        {
            "superpixel": superpixel_id(store, 1),
            "number": 1,
            "from": CAT,
            "to": DOG,
            "pixels": 16,
            "most": False,
        },
    ]
    assert judged(store, project).settled == set()


def test_a_relabelled_region_lies_over_what_was_left_alone(
    store, project, first, label_studio, edit
):
    below = region("cat", slice(8, 24), slice(8, 24), "below")
    above = region("cat", slice(16, 40), slice(16, 40), "above")
    shown_there(store, label_studio)[0]["result"] = [above, below]
    edit(1, [relabelled(above, "dog"), below])
    assert np.array_equal(label_map(store, project), with_(first, np.s_[16:40, 16:40], DOG))


def test_an_erased_region_becomes_background(store, project, first, shown, edit):
    edit(1, shown[:1])
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, BACKGROUND))
    (change,) = changes_of(store)
    assert (change["from"], change["to"], change["most"]) == (CAT, BACKGROUND, True)


@pytest.mark.parametrize("classes", [["sky", "cat", "dog"]])
def test_an_erased_region_becomes_void_where_no_class_is_the_background(
    store, project, first, shown, edit, classes
):
    edit(1, shown[:1])
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, 255))
    assert changes_of(store)[0]["to"] == 255


def test_everything_erased(store, project, shown, edit):
    assert edit(1, []) == Outcome.RECORDED
    assert (label_map(store, project) == BACKGROUND).all()


def test_part_of_a_region_erased(store, project, first, edit, shown):
    edit(1, [shown[0], region("cat", slice(24, 36), slice(32, 56), "s2c1")])
    assert np.array_equal(label_map(store, project), with_(first, np.s_[36:40, 32:56], BACKGROUND))
    (change,) = changes_of(store)
    assert (change["pixels"], change["most"]) == (96, False)


@pytest.mark.parametrize(("rows", "most"), [(8, False), (9, True)])  # of sixteen
def test_more_than_half_of_a_superpixel_changed_by_hand_settles_it(
    store, project, shown, edit, rows, most
):
    edit(1, [*shown, region("dog", slice(24, 24 + rows), slice(32, 56))])
    assert changes_of(store)[0]["most"] is most
    assert judged(store, project).settled == ({superpixel_id(store, 2)} if most else set())


# What the annotator began from.


def test_what_an_annotation_says_it_began_from_is_not_believed(store, project, first, shown, edit):
    """Label Studio takes that from whoever submits it; the prediction is Label Studio's own."""
    edit(1, shown[:1], prediction={"result": []})
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, BACKGROUND))


def test_without_the_prediction_regions_left_alone_are_no_change(
    store, project, first, shown, label_studio, edit
):
    shown_there(store, label_studio).clear()
    kept = {**shown[0], "origin": "prediction"}
    changed = {**relabelled(shown[1], "dog"), "origin": "prediction-changed"}
    edit(1, [kept, changed])
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, DOG))
    assert [(change["number"], change["from"]) for change in changes_of(store)] == [(2, None)]


def test_masks_painted_from_nothing_say_nothing_about_the_rest(store, project, first, edit):
    edit(1, [region("dog", *CORNER)], parent_prediction=None)
    assert np.array_equal(label_map(store, project), with_(first, CORNER, DOG))


def test_while_label_studio_is_away_nothing_is_recorded(store, project, shown, label_studio, edit):
    label_studio.fail()
    with pytest.raises(LabelStudioAwayError):
        edit(1, shown[:1])
    assert entries(store) == []


# Edits and answers.


def test_an_edit_elsewhere_leaves_an_earlier_correction(store, project, first, shown, edit, reply):
    reply(1, "dog", minute=0)
    edit(2, [*shown, region("dog", *CORNER)], minute=5)
    assert np.array_equal(label_map(store, project), with_(with_(first, DOG_AT, DOG), CORNER, DOG))


def test_an_edit_is_written_over_an_earlier_correction(store, project, first, shown, edit, reply):
    reply(1, "dog", minute=0)
    edit(2, shown[:1], minute=5)
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, BACKGROUND))


def test_a_later_answer_is_written_over_an_edit(store, project, first, shown, edit, reply):
    edit(1, [*shown[:1], region("dog", *CORNER)], minute=0)
    reply(2, "dog", minute=5)
    assert np.array_equal(label_map(store, project), with_(with_(first, DOG_AT, DOG), CORNER, DOG))


# Again, changed, taken back.


def test_the_same_edit_twice_is_one_edit(store, project, shown, edit):
    assert edit(1, shown[:1]) == Outcome.RECORDED
    assert edit(1, shown[:1]) == Outcome.KNOWN
    assert len(entries(store)) == 1


@BOTH_DATABASES
def test_a_revised_edit_replaces_the_earlier_one(store, project, first, shown, edit):
    edit(1, [*shown, region("dog", *CORNER)])
    edit(1, [shown[0], relabelled(shown[1], "dog")], revised=5)
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, DOG))
    assert edit(1, [*shown, region("dog", *CORNER)]) == Outcome.KNOWN  # old news
    assert len(entries(store)) == 2


@pytest.mark.parametrize("how", ["restored", "skipped"])
def test_an_edit_taken_back_has_no_effect(store, project, first, shown, edit, how):
    edit(1, shown[:1])
    result, skipped = (shown, False) if how == "restored" else (shown[:1], True)
    assert edit(1, result, revised=5, was_cancelled=skipped) == Outcome.RECORDED
    assert np.array_equal(label_map(store, project), first)
    assert judged(store, project).edited == set()


def test_a_skipped_dataset_task_is_no_edit(store, project, first, shown, edit):
    edit(1, shown[:1], was_cancelled=True)
    assert in_ledger(store, project) == {1: ("skip", None)}
    assert np.array_equal(label_map(store, project), first)
    assert judged(store, project).settled == set()
    edit(1, shown[:1], revised=5)  # submitted after all
    assert np.array_equal(label_map(store, project), with_(first, DOG_AT, BACKGROUND))


@pytest.mark.parametrize("how", ["restored", "skipped"])
def test_an_edit_taken_back_before_news_of_it_came_has_no_effect(
    store, project, first, shown, edit, how
):
    result, skipped = (shown, False) if how == "restored" else (shown[:1], True)
    edit(1, result, revised=5, was_cancelled=skipped)
    assert edit(1, shown[:1]) == Outcome.KNOWN
    assert np.array_equal(label_map(store, project), first)


def test_a_deleted_edit_has_no_effect_and_stays_deleted(store, project, first, shown, edit):
    edit(1, shown[:1])
    answers.withdraw(store, project, [1])
    assert edit(1, shown[:1], revised=5) == Outcome.KNOWN
    assert np.array_equal(label_map(store, project), first)


# The annotation that the first label map came from.


def test_others_write_to_the_database_while_an_edits_file_is_made(store, edit, monkeypatch):
    def others_write(labels, changed):
        with ThreadPoolExecutor(1) as other:
            other.submit(create_project, store, "made meanwhile", ["a", "b"]).result(60)
        return encode_edit(labels, changed)

    monkeypatch.setattr(mask_edits, "encode_edit", others_write)
    assert edit(7, [region("dog", *CORNER)]) == Outcome.RECORDED
    with store.reading() as session:
        assert set(session.scalars(select(Project.name))) == {"pets", "made meanwhile"}


@pytest.fixture
def begun_from(store, project):
    """Let the first label map of image a come from annotation 40, as it was at noon."""

    def begun_from(regions):
        labels, superpixels = painted(regions, CLASSES, (48, 64))
        found = image_of(store, "a")
        store.files(project).write_label_map("initial", found.id, labels)
        store.files(project).write_superpixels(found.id, superpixels)
        with store.session() as session:
            image = session.get_one(Image, found.id)
            image.initial_annotation, image.initial_annotation_at = 40, NOON
        return labels

    return begun_from


def test_the_annotation_that_was_imported_is_no_edit(
    store, project, first, shown, begun_from, edit
):
    begun_from(shown)
    assert edit(40, shown[:1], parent_prediction=None) == Outcome.KNOWN
    edit(40, shown, parent_prediction=None, revised=5)  # saved again as it was
    assert np.array_equal(label_map(store, project), first)
    assert judged(store, project).settled == set()


def test_a_revision_of_the_imported_annotation_is_an_edit(
    store, project, first, shown, begun_from, edit
):
    begun_from(shown)
    edit(40, [relabelled(shown[0], "dog")], parent_prediction=None, revised=5)
    assert np.array_equal(
        label_map(store, project), with_(with_(first, CAT_AT, DOG), DOG_AT, BACKGROUND)
    )
    found = {(c["pixels"], c["from"], c["to"]) for c in changes_of(store)}
    assert found == {(256, CAT, DOG), (384, CAT, BACKGROUND)}


def test_saving_the_imported_annotation_again_changes_nothing_where_regions_overlap(
    store, project, begun_from, edit
):
    small = region("dog", slice(10, 14), slice(10, 14), "small")
    large = region("cat", slice(4, 30), slice(4, 30), "large")
    labels = begun_from([small, large])
    assert (labels[10:14, 10:14] == DOG).all()  # small regions lie on top
    edit(40, [small, large], parent_prediction=None, revised=5)
    assert np.array_equal(label_map(store, project), labels)
    edit(40, [small, large, region("dog", *CORNER)], parent_prediction=None, revised=6)
    assert np.array_equal(label_map(store, project), with_(labels, CORNER, DOG))


def test_an_older_annotation_is_not_written_over_the_one_that_was_imported(
    store, project, first, shown, begun_from, edit
):
    begun_from(shown)
    edit(39, [region("dog", *CORNER)], parent_prediction=None, minute=-60)
    assert np.array_equal(label_map(store, project), first)


# What cannot be read.


def test_regions_of_another_size_are_refused(store, project, shown, edit):
    with pytest.raises(ValueError, match="differs in size"):
        edit(1, [region("dog", *CORNER, shape=(24, 32))])
    brush = region("dog", *CORNER)
    with pytest.raises(ValueError, match="length"):
        edit(2, [{**brush, "value": {**brush["value"], "rle": [0, 0, 0, 4, 0, 0]}}])
    assert entries(store) == []


def test_an_edit_with_a_region_that_is_not_understood_changes_nothing(
    store, project, first, shown, edit
):
    point = {**shown[0], "type": "keypointlabels", "id": "k"}
    gone = {**shown[0], "from_name": "gone", "id": "g"}
    for number, (region_, reason) in enumerate([
        (point, "region 'k' .*covers no pixels"),
        (gone, "region 'g' .*tag 'gone'"),
    ]):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            edit(number + 1, [region_, shown[1]])
    assert edit(9, [relabelled(shown[0], "emu"), shown[1]]) == Outcome.UNKNOWN_CLASS
    assert np.array_equal(label_map(store, project), first)
    assert in_ledger(store, project) == {}


def test_edits_may_use_aliases_shapes_and_tags_that_were_added_meanwhile(
    store, project, first, shown, edit, label_studio
):
    config = '<View><Image name="image" value="$image"/><Image name="depth" value="$depth"/>'
    config += '<BrushLabels name="label" toName="image"><Label value="background"/>'
    config += '<Label value="cat" alias="c"/><Label value="dog" alias="d"/></BrushLabels>'
    config += '<RectangleLabels name="box" toName="image"><Label value="dog"/></RectangleLabels>'
    config += '<BrushLabels name="far" toName="depth"><Label value="dog"/></BrushLabels></View>'
    label_studio.projects[DATASET_PROJECT]["label_config"] = config
    drawn = {"x": 0, "y": 0, "width": 6.25, "height": 100 / 12, "rotation": 0}
    box = {**shown[0], "id": "b", "type": "rectanglelabels", "from_name": "box"}
    far = {**shown[0], "id": "f", "from_name": "far", "to_name": "depth"}
    box["value"] = {**drawn, "rectanglelabels": ["dog"]}
    edit(1, [shown[0], relabelled(shown[1], "d"), box, far])
    expected = with_(with_(first, DOG_AT, DOG), CORNER, DOG)
    assert np.array_equal(label_map(store, project), expected)


def test_a_task_that_was_never_imported_is_unknown(store, project, label_studio):
    with store.reading() as session:
        row = session.get_one(Project, project)
    given = parse(annotation(1, 9999, [region("dog", *CORNER)]))
    assert mask_edits.record(store, label_studio.client, row, given) == Outcome.UNKNOWN_TASK
    assert in_ledger(store, project) == {}
