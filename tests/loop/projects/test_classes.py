"""Class lists grow and are renamed; what has an unknown class changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.datasets.classes import MAX_CLASSES
from alc_backend.errors import DatasetError, RoundError
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.query import HOTKEYS
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.loop.annotations import attempts, reconciliation
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.projects import classes, connection
from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Project, Round
from tests.annotations import (
    DATASET_PROJECT,
    DOG,
    QUERY_PROJECT,
    annotation,
    answer,
    arrive,
    created,
    entries,
    image_of,
    in_ledger,
    label_map,
    task_of,
)
from tests.command_line import alc
from tests.conftest import CLASSES

EMU = 3


def row(store, project):
    with store.reading() as session:
        return session.get_one(Project, project)


def config(label_studio):
    return read_dataset_config(label_studio.projects[DATASET_PROJECT]["label_config"])


def set_labels(label_studio, *names):
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    label_studio.projects[DATASET_PROJECT]["label_config"] = (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="label" toName="image">{labels}</BrushLabels></View>'
    )


def painted(store, number, name, **changes):
    """Image a with its first masks, of which the dog's is of a class."""
    labels = np.zeros((48, 64), dtype=np.uint8)
    labels[8:24, 8:24], labels[24:40, 32:56] = 1, 2
    superpixels = np.where(labels > 0, labels, 0).astype(np.int32)
    shown = mask_regions(labels, superpixels, ["background", "cat", name])
    task = image_of(store, "a").dataset_task
    return annotation(number, task, shown, parent_prediction=None, **changes)


def hear(store, project, label_studio, record):
    return arrive(
        store, project, created(record, project=DATASET_PROJECT), label_studio=label_studio
    )


# What is not understood.


def test_masks_of_an_unknown_class_change_nothing_and_the_admin_is_told(
    store, project, label_studio
):
    before = label_map(store, project)
    assert hear(store, project, label_studio, painted(store, 1, "emu")) == {}  # tried again
    assert (entries(store), in_ledger(store, project)) == ([], {})
    assert np.array_equal(label_map(store, project), before)
    with store.reading() as session:
        (told,) = attempts.set_aside(session, project, 9)
    assert "Annotation 1 of image a" in told
    assert "'emu'" in told
    assert "alc classes add" in told
    found = reconciliation.reconcile(store, label_studio.client(), project, full=True)
    assert found == {Outcome.UNKNOWN_CLASS: 1}


def test_an_edit_that_became_unknown_keeps_what_it_said_before(store, project, label_studio):
    hear(store, project, label_studio, painted(store, 1, "dog"))
    before = label_map(store, project)
    assert (before[24:40, 32:56] == DOG).all()
    hear(store, project, label_studio, painted(store, 1, "emu", revised=5))
    assert np.array_equal(label_map(store, project), before)


# Further classes.


def test_a_class_is_added_with_its_label_and_refused_masks_are_read_in(
    store, project, label_studio, settings
):
    hear(store, project, label_studio, painted(store, 1, "emu"))
    result = alc(settings, "classes", "add", "emu", "cat")
    assert result.returncode == 0, result.stderr
    assert row(store, project).classes == [*CLASSES, "emu"]
    assert config(label_studio).labels == [*CLASSES, "emu"]
    assert in_ledger(store, project) == {1: ("edit", None)}
    assert (label_map(store, project)[24:40, 32:56] == EMU).all()
    with store.reading() as session:
        assert attempts.set_aside(session, project, 9) == []


def test_init_takes_up_new_labels_wherever_they_stand(store, project, label_studio):
    set_labels(label_studio, "emu", *CLASSES)
    connection.take_up_project(store, label_studio.client(), DATASET_PROJECT)
    connection.connect_project(store, label_studio.client(), project, lambda message: None)
    assert row(store, project).classes == [*CLASSES, "emu"]
    connection.connect_project(store, label_studio.client(), project, lambda message: None)
    assert row(store, project).classes == [*CLASSES, "emu"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["background", "cat", "hound"], "alc classes rename 'dog' 'hound'"),
        (["background", "cat"], "lacks 'dog'"),
    ],
)
def test_missing_labels_are_told_with_the_remedy(store, project, label_studio, labels, said):
    set_labels(label_studio, *labels)
    for run in (
        lambda: connection.take_up_project(store, label_studio.client(), DATASET_PROJECT),
        lambda: connection.connect_project(store, label_studio.client(), project, print),
    ):
        with pytest.raises(DatasetError, match=said):
            run()
    assert row(store, project).classes == CLASSES


def test_a_class_cannot_be_added_while_a_round_is_under_way(store, project, label_studio):
    with store.session() as session:
        session.scalars(select(Round)).one().state = "training"
    for run in (
        lambda: classes.add_classes(store, label_studio.client(), project, ["emu"]),
        lambda: classes.rename_class(store, label_studio.client(), project, "dog", "hound"),
    ):
        with pytest.raises(RoundError, match="round 1 is under way"):
            run()
    assert config(label_studio).labels == CLASSES


@pytest.mark.parametrize("name", ["", " emu", "e\nmu"])
def test_names_that_no_class_can_have_are_refused(store, project, label_studio, name):
    with pytest.raises(DatasetError, match="class name"):
        classes.add_classes(store, label_studio.client(), project, [name])
    assert config(label_studio).labels == CLASSES


def test_there_are_255_classes_at_most(store, project, label_studio):
    more = [f"c{number}" for number in range(MAX_CLASSES)]
    with pytest.raises(DatasetError, match="255"):
        classes.add_classes(store, label_studio.client(), project, more)
    assert config(label_studio).labels == CLASSES


def test_many_classes_can_be_searched_in_questions(store, project, label_studio):
    label_studio.projects[QUERY_PROJECT]["label_config"] = "<View/>"
    more = [f"c{number}" for number in range(len(HOTKEYS))]
    classes.add_classes(store, label_studio.client(), project, more)
    assert "<Filter" in label_studio.projects[QUERY_PROJECT]["label_config"]


# Other names.


@pytest.fixture
def renamed(label_studio, project, settings):
    result = alc(settings, "classes", "rename", "dog", "hound")
    assert result.returncode == 0, result.stderr
    return result


def test_a_renamed_class_keeps_its_id_and_its_old_name_is_understood(
    store, project, label_studio, renamed
):
    assert row(store, project).classes == ["background", "cat", "hound"]
    assert config(label_studio).labels == ["background", "cat", "hound"]
    assert config(label_studio).aliases == {"dog": "hound"}
    for number, name in enumerate(("dog", "hound"), start=1):
        hear(store, project, label_studio, painted(store, number, name, minute=number))
        said = answer(10 + number, task_of(store, "b", 2), name, minute=number)
        arrive(store, project, created(said), label_studio=label_studio)
    assert in_ledger(store, project) == {
        1: ("edit", None),
        2: ("edit", None),
        11: ("correct", DOG),
        12: ("correct", DOG),
    }
    assert (label_map(store, project)[24:40, 32:56] == DOG).all()


def test_a_class_may_be_renamed_twice_and_back(store, project, label_studio, settings, renamed):
    assert alc(settings, "classes", "rename", "hound", "puppy").returncode == 0
    hear(store, project, label_studio, painted(store, 1, "hound"))
    assert (label_map(store, project)[24:40, 32:56] == DOG).all()
    assert row(store, project).renamed == {"dog": "puppy", "hound": "puppy"}
    assert alc(settings, "classes", "rename", "puppy", "dog").returncode == 0
    assert row(store, project).classes == CLASSES
    assert row(store, project).renamed == {"hound": "dog", "puppy": "dog"}
    assert "was" in alc(settings, "classes", "list").stdout


def test_a_former_name_is_given_to_no_other_class(store, project, label_studio, renamed):
    with pytest.raises(DatasetError, match="was the name of the class 'hound'"):
        classes.add_classes(store, label_studio.client(), project, ["dog"])
    with pytest.raises(DatasetError, match="another class"):
        classes.rename_class(store, label_studio.client(), project, "cat", "dog")
    with pytest.raises(DatasetError, match="no class 'emu'"):
        classes.rename_class(store, label_studio.client(), project, "emu", "ostrich")


def test_the_folder_may_be_imported_again(store, project, label_studio, renamed, dataset):
    classes.add_classes(store, label_studio.client(), project, ["emu"])
    assert import_folder(store, dataset, "pets").present == 3
    (dataset / "classes.txt").write_text("\n".join([*CLASSES, "emu", "fox"]))
    with pytest.raises(DatasetError, match="alc classes add 'fox'"):
        import_folder(store, dataset, "pets")
    (dataset / "classes.txt").write_text("\n".join(["cat", "background", "dog"]))
    with pytest.raises(DatasetError, match="choose another --name"):
        import_folder(store, dataset, "pets")


def test_figures_of_earlier_rounds_stay_readable(store, project, label_studio):
    with store.session() as session:
        session.scalars(select(Round)).one().class_iou = [0.5, None, 0.25]
    classes.add_classes(store, label_studio.client(), project, ["emu"])
    with store.reading() as session:
        found = RoundSummary.of(session.scalars(select(Round)).one())
    assert found.class_iou == {"background": 0.5, "cat": None, "dog": 0.25}
