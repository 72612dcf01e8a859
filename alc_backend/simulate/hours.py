"""Annotators who work for some hours, on single questions, on pages, or on both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core.proposals import NEWS, Known, Proposals, Traits
from alc_backend.core.questions import Questions
from alc_backend.simulate.candidates import Candidates
from alc_backend.simulate.corrector import relabelled
from alc_backend.simulate.loop import Loop

GROWTH = 1.25
"""The penalty of its weights is chosen anew when there are so many times as many answers."""


def run(loop: Loop) -> Json:
    """Run the row of an experiment with hours; returns its results as JSON types."""
    loop.begin()
    candidates = loop.candidates(loop.experiment.budgets[-1], first=True)
    return loop.finish(Work(loop, candidates).until_the_end())


@dataclass
class Counts:
    """What was asked so far.

    ``answers`` single questions, ``pages`` with ``tiles`` on them; ``confirmed`` is the number of
    superpixels whose class a person has said.
    """

    answers: int = 0
    pages: int = 0
    tiles: int = 0
    confirmed: int = 0


class Work:
    """The work of the annotators of one row, measured by the hours of its experiment."""

    def __init__(self, loop: Loop, candidates: Candidates) -> None:
        """Nothing is asked yet; ``candidates`` are the superpixels that may be asked about."""
        self._loop, self._candidates = loop, candidates
        self._counts = Counts()
        self._points: list[Json] = []
        self._hours = list(loop.experiment.hours)

    def until_the_end(self) -> list[Json]:
        """Work until the last hour, or until nothing is left to ask.

        Returns what was true after each of the hours: ``hours``, ``data_miou``, and the fields of
        :class:`Counts`. A question counts once it has been answered in full; where a corrector
        relabels, the question in which the hour ends counts, too.
        """
        self._remember()
        if self._loop.experiment.questions == "single":
            self._singly()
        else:
            self._as_questions_come()
        while self._hours:
            self._note()
        return self._points

    def _singly(self) -> None:
        """Ask about one superpixel after the other, in the order of the acquisition."""
        loop, candidates = self._loop, self._candidates
        answers: dict[int, int] = {}
        labels, corrected = candidates.pseudo.copy(), list[int]()
        for index in candidates.order(loop.scenes, loop.experiment, len(candidates)):
            answers[index] = loop.ask(candidates, index)
            if answers[index] != labels[index]:
                corrected.append(answers[index])
            self._counts.answers += 1
            self._counts.confirmed += 1
            if loop.experiment.corrector and self._is_over():
                self._relabel(labels, answers, corrected)
                corrected.clear()
            if not self._goes_on():
                return

    def _relabel(
        self, labels: NDArray[np.uint8], answers: dict[int, int], corrected: list[int]
    ) -> None:
        """Let the corrector write what the answers taught it, also into ``labels`` (N,)."""
        named = np.array(corrected, dtype=np.intp)
        predicted, seed = self._candidates.predicted, self._loop.experiment.seed
        for index, class_id in relabelled(predicted, labels, answers, named, seed).items():
            self._loop.relabel(self._candidates, index, class_id)
            labels[index] = class_id
        self._remember()

    def _as_questions_come(self) -> None:
        """Ask what is worth most for each second, and learn from the answers."""
        learner = Learner(self._loop, self._candidates)
        pace = learner.pace
        while (question := learner.questions.next()) is not None:
            members = [int(index) for index in question.members]
            if question.proposed is None:
                (index,) = members
                learner.answered(index, self._loop.ask(self._candidates, index))
                self._counts.answers += 1
                self._counts.confirmed += 1
            else:
                self._loop.spend(pace.page + pace.tile * len(members))
                self._counts.pages += 1
                self._counts.tiles += len(members)
                for index in members:
                    if self._loop.tick(self._candidates, index, question.proposed):
                        learner.answered(index, question.proposed)
                        self._counts.confirmed += 1
                    else:
                        learner.refused(index, question.proposed)
            if not self._goes_on():
                return
            learner.learn()

    def _goes_on(self) -> bool:
        """Note what was true after the hours that have passed; whether any is left."""
        while self._is_over():
            self._note()
        self._remember()
        return bool(self._hours)

    def _is_over(self) -> bool:
        """Whether the next of the hours to be measured has passed."""
        return bool(self._hours) and self._loop.seconds > 3600 * self._hours[0]

    def _remember(self) -> None:
        """What is true now, for the hours that end before the next question does."""
        self._now = {"data_miou": self._loop.data_miou, **self._counts.__dict__}

    def _note(self) -> None:
        self._points.append({"hours": self._hours.pop(0), **self._now})


class Learner:
    """Chooses the questions, and learns from the answers what to propose."""

    def __init__(self, loop: Loop, candidates: Candidates) -> None:
        experiment = loop.experiment
        self.pace = experiment.pace
        doubt = candidates.scores["sim"] / np.maximum(candidates.size, 1)
        self._proposals = Proposals(
            Traits(
                features=candidates.features,
                predicted=candidates.predicted,
                labels=candidates.pseudo,
                dominant=candidates.dominant,
                sizes=candidates.size,
                doubt=doubt,
            )
        )
        classes = len(loop.scenes.classes)
        self._known = Known.nothing(len(candidates), classes)
        self._members: list[int] = []
        self._classes: list[int] = []
        self._new = self._chosen_at = 0
        self._penalty: float | None = None
        self.questions = Questions(
            candidates.pseudo,
            candidates.size,
            doubt,
            candidates.class_pixels,
            self._proposals.beliefs(self._known, None),
            pace=self.pace,
            tiles=experiment.tiles,
            kind=experiment.questions,
        )

    def answered(self, index: int, class_id: int) -> None:
        """A person has said that a superpixel is of this class."""
        self._members.append(index)
        self._classes.append(class_id)
        self.questions.answer(index)
        self._new += 1

    def refused(self, index: int, class_id: int) -> None:
        """A person has said that a superpixel is not of this class."""
        self._known.ruled_out[index, class_id] = True
        self.questions.rule_out(index, class_id)
        self._new += 1

    def learn(self) -> None:
        """Learn from what was said, when there is enough of it."""
        if self._new < NEWS:
            return
        self._new = 0
        self._known = Known(
            np.array(self._members, dtype=np.intp),
            np.array(self._classes, dtype=np.intp),
            self._known.ruled_out,
        )
        if len(self._members) >= GROWTH * self._chosen_at:
            self._chosen_at = len(self._members)
            self._penalty = self._proposals.best_penalty(self._known)
        self.questions.learn(self._proposals.beliefs(self._known, self._penalty))
