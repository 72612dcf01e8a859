"""What the people of a user study said, and how long they took, read from Label Studio.

A lead time is an *interruption* when it is longer than PAUSE_S and more than INTERRUPTION times the
median of that person's: such a time, and one that Label Studio does not know, is replaced by the
median. Of several answers to one question, a person's first one counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from alc_backend.labelstudio.annotation import Annotation, parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.study.record import PAGE, Group, Study

PAUSE_S, INTERRUPTION = 20.0, 5.0
"""Seconds, and multiples of a person's median: a longer answer was interrupted."""


@dataclass(frozen=True)
class Given:
    """One answer: the questions (indices) it is about, and for each whether it is right.

    ``accepts`` says whether a single question's label was accepted. ``seconds`` is the lead time,
    None where it is not known.
    """

    questions: tuple[int, ...]
    right: tuple[bool, ...]
    accepts: bool
    seconds: float | None
    when: datetime


@dataclass(frozen=True)
class Person:
    """What one person of a group did: the answers in the order of time.

    ``seconds`` are those of the answers, after the rule about interruptions, of which there were
    so many ``interruptions``.
    """

    annotator: str
    design: str
    answers: list[Given]
    seconds: list[float]
    interruptions: int

    @property
    def total(self) -> float:
        """The seconds of all answers together."""
        return sum(self.seconds)

    @property
    def accuracy(self) -> float:
        """The share of the questions that were answered rightly, in [0, 1]."""
        right = [is_right for given in self.answers for is_right in given.right]
        return sum(right) / len(right)


@dataclass(frozen=True)
class Taken:
    """Whoever answered every question of a group, and why others are left out: sentences."""

    people: list[Person]
    left_out: list[str]


def read(client: Client, study: Study) -> Taken:
    """All that people answered so far. Raises LabelStudioError; NotFoundError for a lost project.

    A person counts in the one group in which that person answered first.
    """
    taken, left_out = [], list[str]()
    begun: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    by_design: dict[str, dict[str, list[Given]]] = {}
    for group in study.groups:
        answers, problems = _answers(client, study, group)
        by_design[group.design] = answers
        left_out += problems
        for annotator, given in answers.items():
            begun[annotator].append((min(one.when for one in given), group.design))
    for group in study.groups:
        for annotator, given in sorted(by_design[group.design].items()):
            first = min(begun[annotator])[1]
            there = sum(len(one.questions) for one in given)
            who = f"user {annotator}, {group.design}"
            if first != group.design:
                left_out.append(f"{who}: began with the {first} queries, and saw the images there")
            elif there < len(study.questions):
                left_out.append(f"{who}: answered {there} of {len(study.questions)} questions")
            elif not any(one.seconds for one in given):
                left_out.append(f"{who}: Label Studio has no times of the answers")
            else:
                taken.append(_person(annotator, group.design, given))
    return Taken(taken, left_out)


def _person(annotator: str, design: str, given: list[Given]) -> Person:
    ordered = sorted(given, key=lambda one: one.when)
    seconds, interruptions = uninterrupted([one.seconds for one in ordered])
    return Person(annotator, design, ordered, seconds, interruptions)


def uninterrupted(seconds: Iterable[float | None]) -> tuple[list[float], int]:
    """A person's lead times by the rule about interruptions, and how many of them it replaced."""
    every = list(seconds)
    known = [value for value in every if value is not None and value > 0]
    usual = median(known) if known else 0.0
    longest = max(PAUSE_S, INTERRUPTION * usual)
    kept = [value if value is not None and 0 < value <= longest else None for value in every]
    return [usual if value is None else value for value in kept], kept.count(None)


def _answers(
    client: Client, study: Study, group: Group
) -> tuple[dict[str, list[Given]], list[str]]:
    """The first answer of each person to each task of a group; what could not be read."""
    unread = LeftOut()
    found: dict[str, dict[int, tuple[datetime, Given]]] = defaultdict(dict)
    problems = []
    for task in client.tasks(group.project, leave_out=unread):
        indices = group.tasks.get(int(task["id"]))
        for record in task.get("annotations") or [] if indices else []:
            try:
                annotation = parse(record, int(task["id"]))
                given = _given(study, group.design, indices or (), annotation)
            except ValueError as error:
                problems.append(f"an annotation of task {task['id']}, {group.design}: {error}")
                continue
            if given is None:
                continue
            of_person = found[annotation.annotator]
            earlier = of_person.get(annotation.task_id)
            if earlier is None or annotation.created_at < earlier[0]:
                of_person[annotation.task_id] = (annotation.created_at, given)
    problems += [f"task {number}, {group.design}: {why}" for number, why in unread.items()]
    return {who: [given for _, given in tasks.values()] for who, tasks in found.items()}, problems


def _given(
    study: Study, design: str, indices: tuple[int, ...], annotation: Annotation
) -> Given | None:
    """What an annotation says; None for a skip or an empty one."""
    if annotation.cancelled:
        return None
    asked = [study.questions[index] for index in indices]
    if design == PAGE:
        if annotation.ticked is None:
            return None
        right = tuple(
            (position in annotation.ticked) != question.is_wrong
            for position, question in enumerate(asked, start=1)
        )
        accepts = False
    else:
        if annotation.choice is None:
            return None
        (question,) = asked
        right = (annotation.choice == study.classes[question.truth],)
        accepts = annotation.choice == study.classes[question.label]
    return Given(indices, right, accepts, annotation.lead_time, annotation.created_at)
