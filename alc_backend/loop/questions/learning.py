"""What the answers teach of a round's superpixels: the probability of each class for each.

Reads what earlier rounds' scoring kept of superpixels (``round_traits``); writes nothing. Called by
``planning``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.core.proposals import Known, Proposals, Traits
from alc_backend.loop.questions import round_traits
from alc_backend.store.database import Store
from alc_backend.store.kinds import EntryKind
from alc_backend.store.ledger import Judgement
from alc_backend.store.models import LedgerEntry, Round
from alc_backend.store.traits import ShardTraits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learnt:
    """A round's superpixels, N of C classes, and what they probably are.

    ``traits`` are as the scoring pass saw them; ``place`` is the index of each superpixel (row id)
    in its arrays. ``beliefs`` float64 (N, C) and ``known`` are those of
    :class:`~alc_backend.core.proposals.Proposals`; ``held_out`` float64 (A,) is the probability
    that the class which people named had before they did, for ``known``'s A answers.
    """

    traits: ShardTraits
    place: Mapping[int, int]
    beliefs: NDArray[np.float64]
    known: Known
    held_out: NDArray[np.float64]

    def expected_pixels(self, index: int) -> float:
        """How many pixels of a superpixel are expected to be labelled wrongly."""
        right = self.beliefs[index, self.traits.labels[index]]
        return float(1.0 - right) * int(self.traits.sizes[index])


def learn(
    store: Store,
    round_: Round,
    now: ShardTraits,
    judged: Judgement,
    standing: Iterable[LedgerEntry],
) -> Learnt:
    """Learn from the entries ``standing``, as they are ``judged``, what superpixels are.

    ``now`` is what the round knows of those that its plans choose from.

    An answer teaches with what was true when it was asked: the label shown, and the probabilities
    of the network of then, which had not been trained on it. The features are the present ones.
    No session is open meanwhile: it takes seconds.
    """
    if not len(now.superpixels):
        log.warning(
            "round %s: what it knew of its superpixels is gone; until the next round, questions "
            "are asked singly, in the order of its queue",
            round_.number,
        )
    place = {int(row_id): index for index, row_id in enumerate(now.superpixels)}
    traits = Traits(
        features=now.features.astype(np.float32),
        predicted=now.predicted.astype(np.float64),
        labels=now.labels.copy(),
        dominant=now.dominant.copy(),
        sizes=now.sizes,
        doubt=now.doubt.astype(np.float64),
    )
    answers = [
        (place[row_id], entry) for row_id, entry in judged.resolved.items() if row_id in place
    ]
    teaching = _as_they_were(store, round_, traits, answers)
    classes = traits.predicted.shape[1]
    known = Known.nothing(len(place), classes)
    for entry in standing:
        if entry.kind == EntryKind.RULED_OUT and entry.superpixel_id in place:
            assert entry.proposed is not None
            known.ruled_out[place[entry.superpixel_id], entry.proposed] = True
    known = known._replace(
        members=np.array([index for index, _ in teaching], dtype=np.intp),
        classes=np.array([entry.class_id for _, entry in teaching], dtype=np.intp),
    )
    proposals = Proposals(traits)
    penalty = proposals.best_penalty(known)
    return Learnt(
        now, place, proposals.beliefs(known, penalty), known, proposals.held_out(known, penalty)
    )


def _as_they_were(
    store: Store, round_: Round, traits: Traits, answers: list[tuple[int, LedgerEntry]]
) -> list[tuple[int, LedgerEntry]]:
    """Give answered superpixels the traits that they had when they were asked about.

    Returns the answers, in the order they were given, without those of rounds whose traits are
    gone.
    """
    answers = sorted(answers, key=lambda item: (item[1].answered_at, item[1].id))
    numbers = {entry.round_number for _, entry in answers} - {round_.number}
    rounds = select(Round).where(Round.project_id == round_.project_id, Round.number.in_(numbers))
    with store.reading() as session:
        earlier = session.scalars(rounds).all()
    asked = np.unique([entry.superpixel_id or 0 for _, entry in answers]).astype(np.int64)
    before = {old.number: round_traits.about(store, old, asked) for old in earlier}
    places = {
        number: {int(row_id): index for index, row_id in enumerate(old.superpixels)}
        for number, old in before.items()
    }
    kept = []
    for index, entry in answers:
        if entry.pseudo_label is not None:
            traits.labels[index] = entry.pseudo_label
        if entry.round_number != round_.number:
            there = places.get(entry.round_number, {}).get(entry.superpixel_id or 0)
            old = before.get(entry.round_number)
            if there is None or old is None:
                continue
            width = old.predicted.shape[1]  # classes may have been added since
            traits.predicted[index] = 0.0
            traits.predicted[index, :width] = old.predicted[there]
            traits.doubt[index] = old.doubt[there]
            traits.dominant[index] = old.dominant[there]
        kept.append((index, entry))
    return kept
