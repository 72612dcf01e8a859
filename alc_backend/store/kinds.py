"""Kinds of ledger entries, and why an image is out of its dataset."""

from __future__ import annotations

from alc_backend.common.types import TextEnum


class EntryKind(TextEnum):
    """What an entry of the ledger says; ACCEPT and CORRECT are answers, which name a class."""

    ACCEPT = "accept"
    """The query's pseudo label is right."""

    CORRECT = "correct"
    """Another class is."""

    RULED_OUT = "ruled out"
    """It is not of the class that a page proposed; which one it is was not said."""

    REPEATED = "repeated"
    """A tile that a page showed though somebody had named another class before: its class is the
    page's where it was left ticked. It changes nothing, and tells what annotators overlook."""

    REVIEWED = "reviewed"
    """A tile of a page by which somebody reviews answers: its class is the answer's where it was
    left ticked. Where it was unticked, the answer is doubted, and another question decides."""

    SKIP = "skip"
    """The annotator gave no class, or skipped the image."""

    EDIT = "edit"
    """The annotator changed masks by hand in the dataset project."""

    DELETED = "deleted"
    """The annotation was deleted in Label Studio, or a batch of the machine withdrawn."""

    MACHINE = "machine"
    """The machine wrote its own proposal: no answer, and no vote."""


ANSWERS = (EntryKind.ACCEPT, EntryKind.CORRECT)
"""The kinds of entries by which people name a superpixel's class."""


class Removal(TextEnum):
    """Why an image is out of its dataset: it is not asked about, trained on or exported."""

    BY_HAND = "removed"
    """Somebody said so with `alc images remove`."""

    TASK_DELETED = "task deleted"
    """Its task was deleted in the dataset project."""
