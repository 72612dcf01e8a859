from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.annotation import Annotation, parse
from alc_backend.labelstudio.dataset_config import dataset_config, read_dataset_config


def record(**changes):
    return {
        "id": 5,
        "task": 9,
        "completed_by": 2,
        "was_cancelled": False,
        "result": [
            {"from_name": "box", "value": {"x": 1}},
            {"from_name": "label", "type": "choices", "value": {"choices": ["dog"]}},
        ],
        "lead_time": 3.5,
        "created_at": "2026-01-01T10:00:00.5Z",
        "updated_at": "2026-01-01T10:00:01Z",
        **changes,
    }


def test_a_submitted_answer():
    parsed = parse(record())
    assert (parsed.annotation_id, parsed.task_id, parsed.choice) == (5, 9, "dog")
    assert (parsed.annotator, parsed.lead_time) == ("2", 3.5)
    assert parsed.updated_at > parsed.created_at


@pytest.mark.parametrize(
    "changes", [{"was_cancelled": True}, {"result": []}, {"result": None}, {"result": [{}]}]
)
def test_skips_and_empty_answers_have_no_choice(changes):
    assert parse(record(**changes)).choice is None


def test_webhooks_name_the_annotator_by_an_object_and_the_task_beside():
    parsed = parse(record(completed_by={"id": 2, "email": "a@b.c"}, task=None), task_id=9)
    assert (parsed.annotator, parsed.task_id) == ("2", 9)


def test_the_round_that_was_shown_is_read_from_the_marks():
    marks = [{"id": "x7Gq", "from_name": "label"}, {"id": "r12-star0", "from_name": "star"}]
    assert parse(record(result=marks)).round_number == 12
    assert parse(record()).round_number is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(record(), json_values)))
def test_anything_else_is_a_value_error_that_names_the_field(payload):
    try:
        parsed = parse({**record(), **payload})
    except ValueError as error:
        message = str(error)
    else:
        message = ""
        assert isinstance(parsed, Annotation)
    assert not message or "annotation" in message


def test_our_own_dataset_config_is_read_back():
    tags = read_dataset_config(dataset_config(["a & b", "c<d"]))
    assert tags.classes == ["a & b", "c<d"]
    assert (tags.image_name, tags.image_field, tags.brush_name) == ("image", "image", "label")


@pytest.mark.parametrize(
    "config",
    [
        "no xml",
        "<View/>",
        '<View><Image name="i" value="$x"/><BrushLabels name="b" toName="other"><Label value="a"/>'
        '<Label value="b"/></BrushLabels></View>',
    ],
)
def test_a_config_without_the_needed_tags_is_refused(config):
    with pytest.raises(LabelStudioError, match="label config"):
        read_dataset_config(config)
