"""People of a user study who answer in a Label Studio in memory, and how long they take."""

from __future__ import annotations

from alc_backend.labelstudio import page
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.study.record import CLASSIFICATION, PAGE, Group, Study
from tests.annotations import at
from tests.fake_label_studio import FakeLabelStudio


class Volunteers:
    """They answer a study's questions: the truth, unless told otherwise."""

    def __init__(self, fake: FakeLabelStudio, study: Study) -> None:
        self._fake, self._study, self._minute = fake, study, 0.0

    def answer(self, person: int, design: str, seconds, *, mistakes=(), first=None, again=0.0):
        """Somebody answers the ``first`` tasks of a design, by default all.

        ``seconds(group, indices)`` are those of a task; ``mistakes`` are the questions (indices)
        that are answered wrongly. With ``again`` seconds, the first task is answered once more.
        """
        group = next(group for group in self._study.groups if group.design == design)
        for task, indices in list(group.tasks.items())[:first]:
            result = self._result(group, task, indices, mistakes)
            self._annotate(group, task, person, result, seconds(indices))
            if again and task == next(iter(group.tasks)):
                self._annotate(group, task, person, result, again)

    def _annotate(self, group: Group, task: int, person: int, result, seconds) -> None:
        self._minute += 1
        record = {
            "id": next(self._fake.numbers),
            "task": task,
            "result": result,
            "completed_by": person,
            "lead_time": seconds,
            "was_cancelled": False,
            "created_at": at(self._minute),
            "updated_at": at(self._minute),
        }
        self._fake.annotate(record, group.project)

    def _result(self, group: Group, task: int, indices, mistakes):
        shown = self._fake.tasks[task].predictions[-1]["result"]
        study = self._study
        if group.design == PAGE:
            content = page.described(
                self._fake.tasks[task].data, {name: i for i, name in enumerate(study.classes)}
            )
            ticked = [
                position
                for position, index in enumerate(indices, start=1)
                if study.questions[index].is_wrong == (index in mistakes)
            ]
            return page.annotation_result(content, ticked)
        (index,) = indices
        truth, label = study.questions[index].truth, study.questions[index].label
        if index in mistakes:
            truth = next(other for other in range(9) if other not in (truth, label))
        if group.design == CLASSIFICATION:
            choice = {"from_name": "label", "to_name": "image", "type": "choices"}
            return [*shown, {**choice, "value": {"choices": [study.classes[truth]]}}]
        return annotation_result(shown, study.classes[truth])
