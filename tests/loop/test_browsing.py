"""Which images come first, and where the next ones begin."""

from __future__ import annotations

import pytest

from alc_backend.errors import NotFoundError
from alc_backend.loop.browsing import Sort, browse
from alc_backend.store import upkeep
from alc_backend.store.kinds import Removal
from tests.annotations import CAT, DOG, answer, arrive, asked_project, created, image_of, task_of
from tests.conftest import BOTH_DATABASES, write_dataset

pytestmark = BOTH_DATABASES


@pytest.fixture
def project(store, tmp_path):
    """Of the images a to f, c was corrected twice, e and then b accepted in part."""
    project = asked_project(store, write_dataset(tmp_path / "six", list("fedcba")))
    say(store, project, ("c", 1, "dog"), ("c", 2, "dog"), ("e", 1, "cat"), ("b", 1, "dog"))
    return project


def say(store, project, *answers, first=1, by=7):
    for number, (key, superpixel, name) in enumerate(answers, start=first):
        record = answer(number, task_of(store, key, superpixel), name, by=by)
        arrive(store, project, created(record))


def walk(store, project, sort, class_id=None, many=2):
    """The keys of all images, shelf by shelf."""
    found, begin = [], None
    with store.reading() as session:
        while True:
            shelf = browse(session, project, sort=sort, class_id=class_id, begin=begin, many=many)
            assert len(shelf.shown) <= many
            found += [shown.image.key for shown in shelf.shown]
            begin = shelf.following
            if begin is None:
                return found


@pytest.mark.parametrize("many", [1, 2, 3, 6, 9])
def test_those_answered_about_last_come_first(store, project, many):
    assert walk(store, project, Sort.RECENT, many=many) == ["b", "e", "c", "a", "d", "f"]


def test_those_corrected_most_come_first(store, project):
    assert walk(store, project, Sort.CORRECTED) == ["c", "b"]
    with store.session() as session:
        assert upkeep.differences(session, project) == []


def test_those_that_the_network_doubts_most_come_first(store, project):
    assert walk(store, project, Sort.DOUBTFUL) == []
    images = [image_of(store, key).id for key in "abcde"]
    with store.session() as session:
        upkeep.note_doubts(session, project, dict(zip(images, (7, 900, 7, 0, 12), strict=True)))
        assert upkeep.differences(session, project) == []
    with store.reading() as session:
        shelf = browse(session, project, sort=Sort.DOUBTFUL, many=1)
    assert shelf.shown[0].doubt == pytest.approx(0.0009)
    for many in (1, 2, 9):
        found = walk(store, project, Sort.DOUBTFUL, many=many)
        assert (found[:2], sorted(found[2:])) == (["b", "e"], ["a", "c"])
    assert walk(store, project, Sort.RECENT) == ["b", "e", "c", "a", "d", "f"]


def test_those_with_a_class(store, project):
    assert walk(store, project, Sort.RECENT, DOG) == ["b", "c"]
    assert walk(store, project, Sort.RECENT, CAT) == ["e"]
    assert walk(store, project, Sort.CORRECTED, DOG) == ["c", "b"]


def test_those_that_annotators_disagree_about(store, project):
    with store.session() as session:
        upkeep.set_overlap(session, project, 2)
    assert walk(store, project, Sort.DISPUTED) == []
    say(store, project, ("d", 1, "dog"), ("a", 2, "dog"), first=11)
    say(store, project, ("d", 1, "cat"), ("a", 2, "cat"), first=21, by=8)
    assert walk(store, project, Sort.DISPUTED, many=1) == ["a", "d"]
    with store.session() as session:
        assert upkeep.differences(session, project) == []


def test_images_that_are_out_are_not_shown(store, project):
    c = image_of(store, "c").id
    with store.session() as session:
        upkeep.set_removed(session, project, {c: Removal.TASK_DELETED})
    assert walk(store, project, Sort.RECENT) == ["b", "e", "a", "d", "f"]
    assert walk(store, project, Sort.CORRECTED) == ["b"]
    with store.session() as session:
        assert upkeep.differences(session, project) == []
        upkeep.set_removed(session, project, {c: None})
    assert walk(store, project, Sort.CORRECTED) == ["c", "b"]


def test_what_stands_is_counted(store, project):
    with store.reading() as session:
        shelf = browse(session, project, sort=Sort.RECENT, many=3)
    told = [(one.image.key, one.confirmed, one.corrected, one.disputed) for one in shelf.shown]
    assert told == [("b", 1, 1, 0), ("e", 1, 0, 0), ("c", 2, 2, 0)]


@pytest.mark.parametrize("begin", ["", "c", "1-", "-1-2", "key", "key-\0"])
def test_a_place_that_no_shelf_gave(store, project, begin):
    with store.reading() as session, pytest.raises(NotFoundError, match="first page"):
        browse(session, project, sort=Sort.RECENT, begin=begin, many=2)
