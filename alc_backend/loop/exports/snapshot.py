"""A project at one moment: its images, what the ledger says, and the digest of both.

Reads the database and the project's maps; changes nothing. Called by ``export`` and ``manifest``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Image, LedgerEntry, Project, Round, Superpixel


@dataclass(frozen=True)
class Snapshot:
    """What is in force in a project at one moment of its ledger.

    ``images`` are those under correction, ordered by key; ``entries`` the ledger's entries in
    force, in the order of replay; ``numbers`` the number of each superpixel, by row id, that the
    ledger speaks of; ``rounds`` those that were opened; ``maps`` replays the label maps.
    """

    project: Project
    images: Sequence[Image]
    entries: list[LedgerEntry]
    numbers: dict[int, int]
    rounds: Sequence[Round]
    maps: LabelMaps
    files: ProjectFiles


@dataclass(frozen=True)
class Maps:
    """The arrays of one image, all (H, W).

    ``initial`` and ``labels``, uint8, are the first label map and the repaired one;
    ``superpixels`` is int32. ``authors``, int32, tells which entry wrote each pixel: its index in
    ``writers`` plus 1, or 0 for none.
    """

    initial: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]
    authors: NDArray[np.int32]
    writers: list[LedgerEntry]


def take(store: Store, project_id: int) -> Snapshot:
    """The snapshot of a project as it is now; answers that come later do not change it."""
    files = store.files(project_id)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        of_project = (
            Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None)
        )  # fmt: skip
        images = session.scalars(select(Image).where(*of_project)).all()
        asked = (
            select(Superpixel.id, Superpixel.number)
            .join(LedgerEntry, LedgerEntry.superpixel_id == Superpixel.id)
            .where(LedgerEntry.project_id == project_id)
            .distinct()
        )
        opened = (Round.project_id == project_id, Round.opened_at.is_not(None))
        return Snapshot(
            project=project,
            images=sorted(images, key=lambda image: image.key),
            entries=ledger.standing(session, project_id),
            numbers={row.id: row.number for row in session.execute(asked)},
            rounds=session.scalars(select(Round).where(*opened).order_by(Round.number)).all(),
            maps=LabelMaps(session, files, project_id),
            files=files,
        )


def read_maps(snapshot: Snapshot, image: Image) -> Maps:
    """The arrays of one image of a snapshot; NotFoundError when one of its files is gone."""
    labels, authors, writers = snapshot.maps.read_with_authors(image.id)
    return Maps(
        initial=snapshot.files.read_label_map("initial", image.id),
        labels=labels,
        superpixels=snapshot.files.read_superpixels(image.id),
        authors=authors,
        writers=writers,
    )


class Digest:
    """Computes the SHA-256 of a snapshot, equal where the same was said about the same images.

    It is taken over lines of JSON with sorted keys: first the classes and the number of annotators
    asked; then each image by key, with the SHA-256 of its initial label map, its superpixel map and
    its repaired label map; then the entries in force, in the order of replay. Row ids do not
    enter, nor does anything about the machine.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._keys = {image.id: image.key for image in snapshot.images}
        self._sha = hashlib.sha256()
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
        for entry in self._snapshot.entries:
            if entry.image_id in self._keys:
                self._line(self._said(entry))
        return self._sha.hexdigest()

    def _said(self, entry: LedgerEntry) -> dict[str, Any]:
        asked = entry.superpixel_id
        return {
            "image": self._keys[entry.image_id],
            "superpixel": None if asked is None else self._snapshot.numbers[asked],
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


def digest(snapshot: Snapshot) -> str:
    """The digest of a whole snapshot, as :class:`Digest` computes it."""
    whole = Digest(snapshot)
    for image in snapshot.images:
        whole.add(image, read_maps(snapshot, image))
    return whole.finish()


def _array(values: NDArray[Any], dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=dtype).tobytes()).hexdigest()
