"""Turning class prompts into captions, and token scores into classes (Sec. 3.1, App. A)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.classes import background
from alc_backend.errors import FoundationError

NO_CLASS = -1
"""The class of tokens that belong to no class."""


class Tokenizer(Protocol):
    """The used part of a fast tokenizer of the package transformers."""

    @property
    def unk_token_id(self) -> int | None:
        """The token id of unknown words."""

    def __call__(self, text: str, *, return_offsets_mapping: bool) -> Mapping[str, Any]:
        """``input_ids`` and ``offset_mapping``, the (begin, end) of each token in the text."""


@dataclass(frozen=True)
class Prompt:
    """Words that a detector looks for, and the id of the class that they stand for."""

    text: str
    class_id: int


@dataclass(frozen=True)
class Caption:
    """Several prompts in one text: "aeroplane. bicycle. … tvmonitor."

    ``classes`` int64 (T,) is the class id of each token, NO_CLASS for [CLS], [SEP], "." and words
    that the tokenizer does not know.
    """

    text: str
    classes: NDArray[np.int64]


def class_prompts(
    classes: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> list[Prompt]:
    """The prompts of all classes but the background, which is whatever no box covers.

    ``synonyms`` gives the prompts of classes for which the name is not the prompt. Prompts are in
    lower case; underscores, full stops and question marks (which separate prompts) become spaces.
    Raises FoundationError when a prompt is empty, when two classes share one, or when there is no
    class besides the background.
    """
    prompts: dict[str, int] = {}
    left_out = background(classes)
    for class_id, name in enumerate(classes):
        if class_id == left_out:
            continue
        for words in (synonyms or {}).get(name) or [name]:
            text = _cleaned(words)
            if not text:
                raise FoundationError(
                    f"class {name!r} has an empty prompt; give words to look for in its "
                    "predicted_values"
                )
            other = prompts.setdefault(text, class_id)
            if other != class_id:
                raise FoundationError(
                    f"classes {classes[other]!r} and {name!r} share the prompt {text!r}; give each "
                    "its own words in predicted_values"
                )
    if not prompts:
        raise FoundationError("there is no class to look for; add classes beside the background")
    return [Prompt(text, class_id) for text, class_id in prompts.items()]


def captions(prompts: Sequence[Prompt], tokenizer: Tokenizer, limit: int) -> list[Caption]:
    """The prompts, in their order, joined into captions of at most ``limit`` tokens.

    Raises FoundationError for a prompt that is too long by itself, or whose words the tokenizer
    does not know.
    """
    found: list[Caption] = []
    begun: list[Prompt] = []
    for prompt in prompts:
        alone = _caption([prompt], tokenizer)
        if len(alone.classes) > limit:
            raise _too_long(prompt, len(alone.classes), limit)
        if (alone.classes == NO_CLASS).all():
            raise FoundationError(
                f"the text encoder knows no word of the prompt {prompt.text!r}; give the class "
                "English words in predicted_values"
            )
        if begun and len(_caption([*begun, prompt], tokenizer).classes) > limit:
            found.append(_caption(begun, tokenizer))
            begun = []
        begun.append(prompt)
    return [*found, _caption(begun, tokenizer)] if begun else found


def check_lengths(prompts: Sequence[Prompt], tokenizer: Any, limit: int) -> None:
    """Raise FoundationError for a prompt that has more than ``limit`` tokens by itself."""
    for prompt in prompts:
        count = len(tokenizer(prompt.text)["input_ids"])
        if count > limit:
            raise _too_long(prompt, count, limit)


def best_classes(
    scores: NDArray[np.float32], classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The score (N,) and class (N,) of the best class token of each box.

    ``scores`` (N, T or more) in 0..1 are those of a caption's tokens, ``classes`` (T,) as in
    :class:`Caption`. Tokens without a class are ignored; of equal scores the first wins.
    """
    tokens = np.flatnonzero(classes != NO_CLASS)
    of_classes = scores[:, tokens]
    best = of_classes.argmax(axis=1)
    return of_classes[np.arange(len(scores)), best], classes[tokens[best]]


def _too_long(prompt: Prompt, count: int, limit: int) -> FoundationError:
    return FoundationError(
        f"the prompt {prompt.text[:40]!r}… has {count} tokens, the text encoder takes {limit}; use "
        "fewer words"
    )


def _cleaned(words: str) -> str:
    text = unicodedata.normalize("NFC", words).lower()
    for mark in "._?":
        text = text.replace(mark, " ")
    return " ".join(text.split())


def _caption(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> Caption:
    text = ""
    owner: list[int] = []  # the class of each character
    for prompt in prompts:
        text += f"{prompt.text}. "
        owner += [prompt.class_id] * len(prompt.text) + [NO_CLASS, NO_CLASS]
    text = text.rstrip()
    encoded = tokenizer(text, return_offsets_mapping=True)
    classes = [
        owner[begin] if end > begin and token != tokenizer.unk_token_id else NO_CLASS
        for token, (begin, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return Caption(text, np.array(classes, dtype=np.int64))
