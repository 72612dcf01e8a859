"""What a round's scoring pass kept of its superpixels, as plans and reviews need it.

A plan looks at PLANNED_AMONG superpixels at most, however many there are: the answered ones among
them teach, the others may be asked about. Reads the files of traits (``store.traits``), what stands
and the parts of rounds; writes the file of those superpixels. Called by ``planning``,
``learning``, ``reviewing`` and, for what a replaced round leaves, by ``rounds`` and ``exports``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.common.types import Progress
from alc_backend.core.acquisition import ACCURACY
from alc_backend.core.proposals import MOST_TAUGHT
from alc_backend.errors import NotFoundError
from alc_backend.store import standing
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Round
from alc_backend.store.round_states import Step
from alc_backend.store.traits import ShardTraits

log = logging.getLogger(__name__)

PLANNED_AMONG = 2**16
"""Superpixels that a plan chooses from. Each takes about 9 kB of memory with 20 classes."""

REPORT_EVERY = 20
"""Shards of which as many are read between two words of progress."""


def shards_of(session: Session, round_: Round) -> list[int]:
    """The numbers of the shards of images that a round's scoring pass was divided into."""
    return [part.number for part in _scoring(session, round_) if part.work["images"]]


def state_of(session: Session, round_: Round) -> str:
    """A name of the scoring pass; another one once any part of it is done anew."""
    done = [(part.number, str(part.finished_at)) for part in _scoring(session, round_)]
    return hashlib.sha256(json.dumps(done).encode()).hexdigest()[:16]


def about(store: Store, round_: Round, superpixels: NDArray[np.int64]) -> ShardTraits:
    """What a round's scoring pass kept of these superpixels (row ids, ascending), no features."""
    with store.reading() as session:
        shards = shards_of(session, round_)
    parts = _readable(store, round_, shards)
    found = [part.only(superpixels).without_features() for part in parts]
    return ShardTraits.joined(found, len(round_.project.classes))


class Plannable(NamedTuple):
    """What the plans of a round choose from: its ``traits``; ``is_part``: there are more."""

    traits: ShardTraits
    is_part: bool


def plannable(store: Store, round_: Round, progress: Progress) -> Plannable:
    """What a round's scoring pass kept of the superpixels that its plans choose from.

    They are all, or PLANNED_AMONG of them at most: of those that were answered before the round, up
    to MOST_TAUGHT drawn at random, and of the others those that promise the largest gain before
    anything is learnt. Which these are follows from the round and its traits alone; they are kept
    in a file. A file of traits that is missing or damaged is left out, with a line in the log: its
    superpixels are on no page, and asked about singly. ``progress`` may raise to stop, and is
    called before that file is written.
    """
    files, classes = store.files(round_.project_id), len(round_.project.classes)
    with store.reading() as session:
        state, shards = state_of(session, round_), shards_of(session, round_)
    known = files.read_plannable(round_.number, state)
    if known is not None:
        return Plannable(ShardTraits.joined([known], classes), is_part=True)

    def reading() -> Iterator[ShardTraits]:
        for done, part in enumerate(_readable(store, round_, shards)):
            if done % REPORT_EVERY == 0:
                progress(0, 3, f"choosing what to plan from, shard {done + 1} of {len(shards)}")
            yield part

    parts, first = reading(), list[ShardTraits]()
    for part in parts:
        first.append(part)
        if sum(len(part.superpixels) for part in first) > PLANNED_AMONG:
            break
    else:
        return Plannable(ShardTraits.joined(first, classes), is_part=False)
    slim = [part.without_features() for part in chain(first, parts)]
    del first
    everything = ShardTraits.joined(slim, classes)
    chosen = np.sort(everything.superpixels[_choose(store, round_, everything)])
    kept = [part.only(chosen) for part in reading()]
    found = ShardTraits.joined(kept, classes)
    if len(slim) == len(kept) == len(shards):  # else another plan may read more
        progress(0, 3, "choosing what to plan from")
        files.write_plannable(round_.number, state, found)
    return Plannable(found, is_part=True)


def _choose(store: Store, round_: Round, traits: ShardTraits) -> NDArray[np.intp]:
    """The indices of the superpixels that plans choose from, of more than PLANNED_AMONG."""
    with store.reading() as session:
        answered = np.fromiter(
            (
                row_id
                for row_id, _ in standing.resolved_at(
                    session, round_.project_id, round_.ledger_position or 0, round_.config.overlap
                )
            ),
            np.int64,
        )
    is_answered = np.isin(traits.superpixels, answered)
    rng = np.random.default_rng([round_.config.training.seed, round_.number])
    taught = rng.permutation(np.flatnonzero(is_answered))[:MOST_TAUGHT]
    left = np.flatnonzero(~is_answered)
    best = np.argsort(-_promise(traits)[left], kind="stable")
    return np.concatenate([taught, left[best[: PLANNED_AMONG - len(taught)]]])


def _promise(traits: ShardTraits) -> NDArray[np.float64]:
    """What putting each superpixel right promises to gain before anything is learnt, (N,).

    That is the gain of a question (:class:`~alc_backend.core.questions.Questions`) with the
    network's doubt for the chance that the label is wrong, and with the dominant class instead.
    """
    pixels = traits.class_pixels
    share = 1.0 / np.maximum(pixels, 1)
    pixel = ACCURACY * np.count_nonzero(pixels) / max(int(pixels.sum()), 1)
    worth = share[traits.labels] + share[traits.dominant] + pixel
    promise: NDArray[np.float64] = traits.doubt.astype(np.float64) * traits.sizes * worth
    return promise


def _scoring(session: Session, round_: Round) -> list[Part]:
    parts = select(Part).where(Part.round_id == round_.id, Part.step == Step.SCORING)
    return list(session.scalars(parts.order_by(Part.number)))


def _readable(store: Store, round_: Round, shards: Sequence[int]) -> Iterator[ShardTraits]:
    """The files of traits of these shards of a round that can be read, one after the other."""
    files = store.files(round_.project_id)
    for shard in shards:
        try:
            yield files.read_traits(round_.number, shard)
        except NotFoundError as error:
            log.warning("round %s: %s", round_.number, error)
