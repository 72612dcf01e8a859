"""What queries say to labelers, in several languages."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path

from alc_backend.errors import SettingsError

ENGLISH = "en"

PLACEHOLDERS = {
    "question": {"label"},
    "dispute": {"labels"},
    "dispute_label": {"label"},
    "page": {"label"},
    "page_proposal": {"label", "labels"},
    "page_various": {"label"},
    "page_review": {"label"},
    "doubt": {"label"},
}
"""The placeholders for class names that a text must have; others have none."""

MAX_NAMED = 3
"""How many present labels a page's question names at most."""


@dataclass(frozen=True)
class Texts:
    """All texts of a query. ``{label}`` stands for a class name, ``{labels}`` for several."""

    question: str
    hint: str
    classify: str
    classify_hint: str
    dispute: str
    dispute_label: str
    dispute_or: str
    dispute_hint: str
    required: str
    search: str
    closeup: str
    page: str
    page_proposal: str
    page_various: str
    page_review: str
    page_hint: str
    doubt: str

    def ask(self, label: str) -> str:
        """The question about a pseudo label."""
        return self.question.format(label=label)

    def ask_again(self, labels: Sequence[str]) -> str:
        """The question that decides between the classes that annotators gave.

        One alone is doubted by a review.
        """
        if len(labels) == 1:
            return self.doubt.format(label=labels[0])
        return self.dispute.format(labels=self._either(labels))

    def ask_page(self, proposed: str, present: Sequence[str]) -> str:
        """The question of a page that proposes a class for what has these labels now."""
        if [*present] == [proposed]:
            return self.page.format(label=proposed)
        if len(present) > MAX_NAMED:
            return self.page_various.format(label=proposed)
        return self.page_proposal.format(label=proposed, labels=self._either(present))

    def ask_review(self, label: str) -> str:
        """The question of a page by which answers that named a class are reviewed."""
        return self.page_review.format(label=label)

    def _either(self, labels: Sequence[str]) -> str:
        return self.dispute_or.join(self.dispute_label.format(label=label) for label in labels)


def languages() -> list[str]:
    """The names of the languages that come with the program."""
    names = [entry.name for entry in resources.files(__package__).iterdir()]
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


@lru_cache(maxsize=8)
def texts(language: str = ENGLISH) -> Texts:
    """The texts of a language, or of a JSON file with the same keys; what it lacks is English.

    Raises SettingsError for an unknown language, and for a file that does not fit.
    """
    english = _read(resources.files(__package__).joinpath(f"{ENGLISH}.json").read_text("utf-8"))
    if language in languages():
        found = _read(resources.files(__package__).joinpath(f"{language}.json").read_text("utf-8"))
        return Texts(**found)
    path = Path(language)
    if path.suffix != ".json":
        raise SettingsError(
            f"ALC_LANGUAGE must be one of {', '.join(languages())}, or the path of a JSON file "
            f"with texts, not {language!r}"
        )
    try:
        found = _read(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"ALC_LANGUAGE: {path} cannot be read ({error})") from error
    return Texts(**{**english, **found})


def _read(text: str) -> dict[str, str]:
    """Texts by name; ValueError for unknown names, what is no text, and wrong placeholders."""
    found = json.loads(text)
    known = {field.name for field in fields(Texts)}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("it must be an object of texts")
    for name, value in found.items():
        if name not in known:
            raise ValueError(f"there is no text {name!r}; known: {', '.join(sorted(known))}")
        found_here = {key for _, key, _, _ in string.Formatter().parse(value) if key is not None}
        expected = PLACEHOLDERS.get(name, set())
        if found_here != expected:
            wanted = ", ".join(f"{{{key}}}" for key in expected) or "no placeholder"
            raise ValueError(f"the text {name!r} must have {wanted}")
    return found
