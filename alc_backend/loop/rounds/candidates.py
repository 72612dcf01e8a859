"""The superpixels that a round has scored, as columns: there may be millions.

Reads the database, and the label maps whose pixels were not counted yet. Called by ``selection``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.common.batches import batched
from alc_backend.core import acquisition
from alc_backend.core.arrays import VOID
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store import ledger, pixel_counts
from alc_backend.store.database import Store
from alc_backend.store.label_map_reader import LabelMapReader
from alc_backend.store.models import Image, Project, Round, Score, Superpixel
from alc_backend.store.numbers import read_numbers

COUNTED_AT_ONCE = 500
"""Images whose pixels are counted before that is written down."""


@dataclass(frozen=True)
class Candidates:
    """M superpixels by image key, then number in the superpixel map; every array has shape (M,).

    ``scores`` float64 are comparable over the whole dataset. ``superpixels`` int32 are row ids,
    ``images`` int32 are places in the order of keys, from 0; ``numbers`` int32 are the ids in the
    superpixel maps and ``sizes`` int64 their areas in pixels.
    """

    scores: NDArray[np.float64]
    superpixels: NDArray[np.int32]
    images: NDArray[np.int32]
    numbers: NDArray[np.int32]
    sizes: NDArray[np.int64]

    def are(self, superpixels: Iterable[int]) -> NDArray[np.bool_]:
        """Which are among some superpixels (row ids), bool (M,)."""
        wanted = np.fromiter(superpixels, dtype=np.int32)
        found: NDArray[np.bool_] = np.isin(self.superpixels, wanted)
        return found


def load(store: Store, round_: Round, report: Reporter) -> Candidates:
    """What a round has scored in the images that are in the dataset."""
    with store.reading() as session:
        of_project = (Image.project_id == round_.project_id, Image.removed.is_(None))
        keys = session.execute(select(Image.id, Image.key).where(*of_project)).all()
        ordered = [row.id for row in sorted(keys, key=lambda row: row.key)]  # by no locale
        turns = np.full(max(ordered, default=0) + 1, -1, dtype=np.int32)
        turns[ordered] = np.arange(len(ordered), dtype=np.int32)
        scored = (
            select(*(column for column, _ in COLUMNS))
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .where(Score.round_id == round_.id)
        )
        blocks = [_in_dataset(block, turns) for block in read_numbers(session, scored)]
    columns = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    blocks.clear()
    if not columns:
        columns = list(_columns(np.empty((0, len(COLUMNS)))))
    order = np.lexsort((columns[2], columns[1]))
    superpixels, images, numbers, sizes, scores, pseudo, dominant = (
        column[order] for column in columns
    )
    columns.clear()
    name = round_.config.acquisition
    if acquisition.ACQUISITIONS[name].compare is not None:
        pixels = class_pixels(store, round_, report)
        scores = acquisition.compare(
            acquisition.Measured(scores, pseudo, dominant, sizes, pixels), name
        )
    return Candidates(scores, superpixels, images, numbers, sizes)


COLUMNS = (
    (Score.superpixel_id, np.int32), (Superpixel.image_id, np.int32), (Superpixel.number, np.int32),
    (Superpixel.size, np.int64), (Score.score, np.float64), (Score.pseudo_label, np.uint8),
    (Score.dominant, np.uint8),
)  # fmt: skip
"""What is read of each superpixel, and as what; a float64 has room for any of it."""


def _columns(block: NDArray[np.float64]) -> Iterator[NDArray[np.generic]]:
    for column, (_, kind) in zip(block.T, COLUMNS, strict=True):
        yield column.astype(kind)


def _in_dataset(
    block: NDArray[np.float64], turns: NDArray[np.int32]
) -> tuple[NDArray[np.generic], ...]:
    """The columns of those whose image has a turn; that stands in place of its row id."""
    images = block[:, 1].astype(np.int64)
    known = images < len(turns)
    known[known] = turns[images[known]] >= 0
    kept = block[known]
    kept[:, 1] = turns[images[known]]
    return tuple(_columns(kept))


def class_pixels(store: Store, round_: Round, report: Reporter) -> NDArray[np.int64]:
    """How many pixels the label maps, as they are now, give each class, int64 (C,).

    What was not counted yet is counted, and that is written down.
    """
    project_id = round_.project_id
    with store.reading() as session:
        pixels, lacking = pixel_counts.read(session, project_id)
        position = ledger.position(session, project_id)
        overlap = session.get_one(Project, project_id).overlap
    maps = LabelMapReader(store, project_id, position, overlap=overlap, order=lacking)
    for part in batched(lacking, COUNTED_AT_ONCE):
        report(0, 3, f"choosing the batch: counting the pixels of {len(lacking)} label maps")
        counts = {
            image: np.bincount(maps.read(image).ravel(), minlength=VOID + 1) for image in part
        }
        pixels += np.sum(list(counts.values()), axis=0)
        with store.session() as session:
            pixel_counts.note(session, project_id, position, overlap, counts)
    found: NDArray[np.int64] = pixels[: len(round_.project.classes)]
    return found
