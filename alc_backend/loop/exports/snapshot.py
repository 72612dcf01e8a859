"""A project at one moment: its images, what the ledger says, and the digest of both.

Reads the database and the project's maps; changes nothing. Called by ``export`` and ``manifest``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.store import ledger, tallies
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.label_map_reader import LabelMapReader
from alc_backend.store.models import TRAIN, Image, LedgerEntry, Project, Round
from alc_backend.store.tallies import Key


@dataclass(frozen=True)
class Snapshot:
    """What is in force in a project at one moment of its ledger.

    ``images`` are those under correction, ordered by key; ``position`` is the id of the last entry
    of the ledger, ``counts`` is what was counted then; ``rounds`` are those that were opened;
    ``maps`` replays the label maps.
    """

    store: Store
    project: Project
    images: Sequence[Image]
    position: int
    counts: Counter[Key]
    rounds: Sequence[Round]
    maps: LabelMapReader
    files: ProjectFiles

    def entries(self) -> Iterator[tuple[LedgerEntry, int | None]]:
        """The entries in force in the order of replay, each with the number of its superpixel.

        They are streamed: there are too many to have them all in memory.
        """
        ours = {image.id for image in self.images}
        with self.store.reading() as session:
            for entry, number in ledger.stream(session, self.project.id, self.position):
                if entry.image_id in ours:
                    yield entry, number


@dataclass(frozen=True)
class Maps:
    """The arrays of one image, all (H, W).

    ``initial`` and ``labels``, uint8, are the first label map and the repaired one;
    ``superpixels`` is int32. ``authors``, int32, tells which entry wrote each pixel: its index in
    ``writers`` plus 1, or 0 for none. ``entries`` are those in force about the image, in replay
    order.
    """

    initial: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]
    authors: NDArray[np.int32]
    writers: list[LedgerEntry]
    entries: list[LedgerEntry]


def take(store: Store, project_id: int) -> Snapshot:
    """The snapshot of a project as it is now; answers that come later do not change it."""
    files = store.files(project_id)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        of_project = (
            Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None)
        )  # fmt: skip
        images = session.scalars(select(Image).where(*of_project)).all()
        opened = (Round.project_id == project_id, Round.opened_at.is_not(None))
        rounds = session.scalars(select(Round).where(*opened).order_by(Round.number)).all()
        position = ledger.position(session, project_id)
        counts = tallies.read(session, project_id)
    images = sorted(images, key=lambda image: image.key)
    order = [image.id for image in images]
    maps = LabelMapReader(store, project_id, position, overlap=project.overlap, order=order)
    return Snapshot(store, project, images, position, counts, rounds, maps, files)


def read_maps(snapshot: Snapshot, image: Image) -> Maps:
    """The arrays of one image of a snapshot; NotFoundError when one of its files is gone."""
    maps = snapshot.maps.of(image.id)
    labels, authors, writers = maps.read_with_authors(image.id)
    return Maps(
        initial=snapshot.files.read_label_map("initial", image.id),
        labels=labels,
        superpixels=snapshot.files.read_superpixels(image.id),
        authors=authors,
        writers=writers,
        entries=maps.entries(image.id),
    )


class Digest:
    """Computes the SHA-256 of a snapshot, equal where the same was said about the same images.

    It is taken over lines of JSON with sorted keys: first the classes and the number of annotators
    asked; then each image by key, with the SHA-256 of its initial label map, its superpixel map and
    its repaired label map; then the entries in force, in the order of replay. Row ids do not
    enter, nor does anything about the machine. ``entries`` is how many of these there are, once
    it is finished.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._keys = {image.id: image.key for image in snapshot.images}
        self._sha = hashlib.sha256()
        self.entries = 0
        project = snapshot.project
        self._line({"digest": 1, "classes": project.classes, "overlap": project.overlap})

    def add(self, image: Image, maps: Maps) -> None:
        """Take in the next image of the snapshot, in its order."""
        self._line(
            {
                "image": image.key,
                "size": list(maps.labels.shape),
                "initial": _array(maps.initial, "|u1"),
                "superpixels": _array(maps.superpixels, "<i4"),
                "labels": _array(maps.labels, "|u1"),
            }
        )

    def finish(self) -> str:
        """Take in the entries, and return the digest as 64 hexadecimal digits."""
        for entry, number in self._snapshot.entries():
            self._line(self._said(entry, number))
            self.entries += 1
        return self._sha.hexdigest()

    def _said(self, entry: LedgerEntry, number: int | None) -> dict[str, Any]:
        return {
            "image": self._keys[entry.image_id],
            "superpixel": number,
            "kind": entry.kind,
            "class": entry.class_id,
            "position": entry.position,
            "proposed": entry.proposed,
            "shown": entry.pseudo_label,
            "pixel": [entry.row, entry.col],
            "round": entry.round_number,
            "overlap": entry.overlap,
            "adjudication": entry.adjudication,
            "annotator": entry.annotator,
            "moment": ledger.replay_order(entry)[0].isoformat(),
            "lead_time": entry.lead_time,
            "changes": [
                {name: value for name, value in change.items() if name != "superpixel"}
                for change in entry.changes or ()
            ],
        }

    def _line(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, sort_keys=True, separators=(",", ":"))
        self._sha.update(f"{line}\n".encode())


def digest(snapshot: Snapshot) -> tuple[str, int]:
    """The digest of a whole snapshot, as :class:`Digest` computes it, and the number of entries."""
    whole = Digest(snapshot)
    for image in snapshot.images:
        whole.add(image, read_maps(snapshot, image))
    return whole.finish(), whole.entries


def _array(values: NDArray[Any], dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=dtype).tobytes()).hexdigest()
