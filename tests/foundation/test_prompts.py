from __future__ import annotations

import numpy as np
import pytest

from alc_backend.errors import FoundationError
from alc_backend.foundation.prompts import NO_CLASS, best_classes, captions, class_prompts
from tests.foundation.tiny import write_tokenizer

PASCAL = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
CITYSCAPES = [
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
]
KVASIR = ["background", "polyp"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(write_tokenizer(tmp_path_factory.mktemp("text") / "bert"))


def words_of(caption, tokenizer):
    """What the tokens of each class spell, in their order."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(caption.text)["input_ids"])
    found: dict[int, list[str]] = {}
    for token, class_id in zip(tokens, caption.classes.tolist(), strict=True):
        found.setdefault(class_id, []).append(token)
    return found


@pytest.mark.parametrize("classes", [PASCAL, CITYSCAPES, KVASIR], ids=["pascal", "city", "kvasir"])
def test_each_class_has_the_tokens_of_its_own_words(classes, tokenizer):
    (caption,) = captions(class_prompts(classes), tokenizer, 256)
    found = words_of(caption, tokenizer)
    assert set(found[NO_CLASS]) == {"[CLS]", "[SEP]", "."}
    for class_id, name in enumerate(classes):
        if name == "background":
            assert class_id not in found
        else:
            spelled = "".join(found[class_id]).replace("##", "")
            assert spelled == name.replace(" ", "")
    assert caption.text.endswith(".")


def test_a_word_of_several_tokens_gives_them_all_to_its_class(tokenizer):
    (caption,) = captions(class_prompts(PASCAL), tokenizer, 256)
    table = words_of(caption, tokenizer)[PASCAL.index("diningtable")]
    assert table == ["dining", "##table"]
    (plant,) = captions(class_prompts(["background", "potted plant"]), tokenizer, 256)
    assert plant.classes.tolist() == [NO_CLASS, 1, 1, NO_CLASS, NO_CLASS]


def test_one_name_inside_another_and_repeated_words_stay_apart(tokenizer):
    classes = ["car", "cable car", "traffic light", "traffic sign"]
    (caption,) = captions(class_prompts(classes), tokenizer, 256)
    assert caption.text == "car. cable car. traffic light. traffic sign."
    without_dots = [c for c in caption.classes.tolist() if c != NO_CLASS]
    assert without_dots == [0, 1, 1, 2, 2, 3, 3]


def test_several_prompts_of_a_class_come_from_its_synonyms(tokenizer):
    prompts = class_prompts(["background", "sofa", "dog"], {"sofa": ["sofa", "Couch "], "dog": []})
    assert [(prompt.text, prompt.class_id) for prompt in prompts] == [
        ("sofa", 1),
        ("couch", 1),
        ("dog", 2),
    ]
    (caption,) = captions(prompts, tokenizer, 256)
    assert caption.text == "sofa. couch. dog."


def test_long_class_lists_become_several_captions(tokenizer):
    classes = [f"{a} {b}" for a in ("car", "dog", "cat") for b in CITYSCAPES]
    prompts = class_prompts(classes)
    found = captions(prompts, tokenizer, 40)
    assert len(found) > 3
    assert all(len(caption.classes) <= 40 for caption in found)
    seen = [c for caption in found for c in dict.fromkeys(caption.classes.tolist()) if c >= 0]
    assert seen == list(range(len(classes)))
    assert len(captions(prompts, tokenizer, 1000)) == 1


def test_a_prompt_longer_than_a_caption_is_refused(tokenizer):
    with pytest.raises(FoundationError, match="tokens, the text encoder takes 12"):
        captions(class_prompts(["dog", "a very long description of a cat"]), tokenizer, 12)


def test_names_that_are_not_ascii(tokenizer):
    (caption,) = captions(class_prompts(["Café", "İnek", "dog"]), tokenizer, 256)
    found = words_of(caption, tokenizer)
    assert "".join(found[0]).replace("##", "") == "cafe"  # the encoder drops the accent
    assert found[2] == ["dog"]
    with pytest.raises(FoundationError, match="knows no word of the prompt '狗'"):
        captions(class_prompts(["狗", "cat"]), tokenizer, 256)
    (mixed,) = captions(class_prompts(["狗 dog", "cat"]), tokenizer, 256)
    assert [c for c in mixed.classes.tolist() if c != NO_CLASS] == [0, 1]  # 狗 itself never wins


def test_marks_that_separate_prompts_do_not_cut_a_name(tokenizer):
    prompts = class_prompts(["st. bernard dog", "traffic_light"])
    assert [prompt.text for prompt in prompts] == ["st bernard dog", "traffic light"]


def test_prompts_that_cannot_be_told_apart_are_refused():
    with pytest.raises(FoundationError, match=r"'rider' and 'driver' share the prompt 'person'"):
        class_prompts(["rider", "driver"], {"rider": ["person"], "driver": ["Person"]})
    with pytest.raises(FoundationError, match="'rider' has an empty prompt"):
        class_prompts(["rider", "driver"], {"rider": ["rider", "."]})
    with pytest.raises(FoundationError, match="no class to look for"):
        class_prompts(["background"])


def test_tokens_of_no_class_never_win():
    scores = np.array([[0.9, 0.2, 0.8, 0.3, 0.9], [0.0, 0.5, 0.9, 0.5, 0.0]], dtype=np.float32)
    best, classes = best_classes(scores, np.array([NO_CLASS, 4, NO_CLASS, 2, NO_CLASS]))
    assert best.tolist() == pytest.approx([0.3, 0.5])
    assert classes.tolist() == [2, 4]  # of equal scores the first token


def test_the_best_token_decides_not_the_sum_of_a_class():
    scores = np.array([[0.0, 0.4, 0.4, 0.5]], dtype=np.float32)
    _, classes = best_classes(scores, np.array([NO_CLASS, 1, 1, 2]))
    assert classes.tolist() == [2]
