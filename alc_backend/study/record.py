"""What a user study asks, and where: a file in the data folder.

The truth is kept here and nowhere else: Label Studio shows a task's data to everybody.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alc_backend.common.files import read_json, write_atomically, write_json
from alc_backend.errors import DatasetError, NotFoundError, SettingsError

CORRECTION, CLASSIFICATION, PAGE = "correction", "classification", "page"

DESIGNS = (CORRECTION, CLASSIFICATION, PAGE)
"""How a question can be put: is it this class, or else which; which class is it; is each of these
this class."""


@dataclass(frozen=True)
class Asked:
    """One question: a superpixel of an image and the pixel (row, col) that stands for it.

    ``label`` is the class id that is shown, ``truth`` the right one; both in 0..C-1.
    """

    image: str
    superpixel: int
    row: int
    col: int
    label: int
    truth: int

    @property
    def is_wrong(self) -> bool:
        """Whether the label that is shown is wrong."""
        return self.label != self.truth


@dataclass(frozen=True)
class Group:
    """The project of one group of annotators, all of whom see one design.

    ``tasks`` are the questions of each task (id), by their indices: one, or the tiles of a page in
    the order of their positions.
    """

    design: str
    project: int
    tasks: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Study:
    """A study that was made: its questions, and a group for each design."""

    name: str
    classes: list[str]
    people: int
    questions: list[Asked]
    groups: list[Group]

    @property
    def share_right(self) -> float:
        """The share p of the questions whose label is right."""
        right = sum(not question.is_wrong for question in self.questions)
        return right / len(self.questions)


def folder(data_dir: Path) -> Path:
    """Where the studies of an installation are kept."""
    return data_dir / "studies"


def path_of(data_dir: Path, name: str) -> Path:
    """The file of a study; SettingsError for a name that cannot be one of a file."""
    if not name.strip() or name != Path(name).name or name.startswith(".") or "\0" in name:
        raise SettingsError(f"the study's name {name!r} is not fit for a file; give --name")
    return folder(data_dir) / f"{name}.json"


def save(study: Study, path: Path) -> None:
    """Write the file of a study, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: write_json(part, asdict(study)))


def load(data_dir: Path, name: str | None) -> Study:
    """The study of a name or, without one, the only one.

    Raises NotFoundError where there is none such, DatasetError naming a damaged file.
    """
    known = sorted(path.stem for path in folder(data_dir).glob("*.json"))
    if name is None and len(known) == 1:
        (name,) = known
    if name is None and known:
        raise NotFoundError(f"there are several studies; name one: {', '.join(known)}")
    if name not in known:
        what = "no study yet" if name is None else f"no study {name!r}"
        raise NotFoundError(
            f"there is {what}; known: {', '.join(known) or 'none'}. `alc study create` makes one"
        )
    path = folder(data_dir) / f"{name}.json"
    try:
        return _study(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path}: is not the file of a study ({error!r}); restore it, or make another study"
        ) from error


def _study(found: Any) -> Study:
    questions = [Asked(**question) for question in found["questions"]]
    if not questions:
        raise ValueError("it has no questions")
    groups = [
        Group(
            design=group["design"],
            project=int(group["project"]),
            tasks={
                int(task): tuple(int(index) for index in indices)
                for task, indices in group["tasks"].items()
            },
        )
        for group in found["groups"]
    ]
    asked = [index for group in groups for indices in group.tasks.values() for index in indices]
    if not all(0 <= index < len(questions) for index in asked):
        raise ValueError("a task asks a question that it does not have")
    return Study(found["name"], list(found["classes"]), int(found["people"]), questions, groups)
