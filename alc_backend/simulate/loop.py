"""The loop of Active Label Correction with an oracle as annotator, without Label Studio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json, Progress
from alc_backend.common.version import __version__
from alc_backend.core import cost, metrics
from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.simulate import oracle
from alc_backend.simulate.candidates import Candidates, survey
from alc_backend.simulate.experiment import Experiment, fingerprint
from alc_backend.simulate.figures import Point
from alc_backend.simulate.networks import Networks, digest_of
from alc_backend.simulate.scenes import Packed, Scenes


class Loop:
    """The state of one experiment: its label maps, the answers so far, and the figures."""

    def __init__(
        self, scenes: Scenes, experiment: Experiment, folder: Path, progress: Progress
    ) -> None:
        """``folder`` keeps the networks and the candidates of first rounds, which rows share."""
        self.scenes, self.experiment = scenes, experiment
        self._folder, self._progress = folder, progress
        self._networks = Networks(scenes, experiment, folder / "networks", progress)
        self._labels: dict[str, Packed] = {}
        self._first: dict[str, Packed] = {}
        self._answered: dict[str, set[int]] = {}
        self._counted: set[tuple[int, ...]] = set()
        self._points: list[Point] = []
        self._given = self._accepted = 0
        self._seconds = 0.0
        self._found = metrics.SelectionCounts(0, 0, 0)
        self._begin_from_present_labels()

    def labels(self, key: str) -> NDArray[np.uint8]:
        """The present label map of an image, uint8 (H, W), read-only."""
        if key in self._labels:
            return self._labels[key].read()
        return self.first(key)

    def first(self, key: str) -> NDArray[np.uint8]:
        """The label map of an image before the first correction, uint8 (H, W), read-only."""
        return self._first[key].read() if key in self._first else self.scenes.labels(key)

    def trained_on(self, key: str) -> NDArray[np.uint8]:
        """The label map of an image that a network is trained on now, uint8 (H, W), read-only."""
        return self.labels(key)

    @property
    def answered(self) -> dict[str, frozenset[int]]:
        """The superpixels that were asked about, by image key."""
        return {key: frozenset(numbers) for key, numbers in self._answered.items()}

    @property
    def changed(self) -> list[str]:
        """The keys of the images whose label maps differ from the first ones."""
        return [key for key in self.scenes.keys if self._labels.get(key) != self._first.get(key)]

    def prepare(self) -> None:
        """Train the first network and score with it: the work that rows with it share."""
        self._make_first_labels()
        self.candidates(self._ends()[0] - self._given, first=True)

    def run(self) -> Json:
        """Run all rounds; returns the results of the row as JSON types."""
        self.begin()
        self._ask_by_rounds()
        return self.finish([])

    def begin(self) -> None:
        """Make the first label maps, and measure them."""
        self._make_first_labels()
        if self._given == 0:
            self._measure(0)

    def finish(self, by_hours: list[Json]) -> Json:
        """Measure what is not measured yet; returns the results of the row as JSON types."""
        if self._points[-1].answers < self._given:  # fewer candidates than the budget, or hours
            self._measure(self.experiment.rounds, last=True)
        return {
            **self.experiment.as_dict(),
            "by_hours": by_hours,
            "superpixels_in_all": self.scenes.superpixel_count,
            "round_count": self.experiment.rounds,
            "rounds": [point.as_json() for point in self._points],
            "confusion_before": self._before.tolist(),
            "confusion_after": self._confusion.tolist(),
        }

    def _ask_by_rounds(self) -> None:
        """Ask as many questions as the last budget, one superpixel at a time."""
        experiment = self.experiment
        for number, end in enumerate(self._ends(), start=1):
            candidates = self.candidates(end - self._given, first=number == 1)
            for index in candidates.order(self.scenes, experiment, end - self._given):
                self.ask(candidates, index)
                if self._given in experiment.budgets:
                    self._measure(number)

    def candidates(self, count: int, *, first: bool) -> Candidates:
        """The candidates at present; those of the ``first`` round are saved for other rows.

        Unless the experiment trains anew, the first network scores the present label maps.
        """
        experiment, scenes = self.experiment, self.scenes
        trained_on = self.labels if first or experiment.train else self.first
        digest = digest_of(scenes, trained_on)
        names = [ACQUISITIONS[experiment.acquisition].measured]
        if first and experiment.pool == "superpixel":  # other rows will need the others
            names = sorted({acquisition.measured for acquisition in ACQUISITIONS.values()})
        path = self._candidates_path(digest, names, count)
        if first and (known := Candidates.load(path)) is not None:
            return known
        candidates = survey(
            scenes,
            self.labels,
            self._networks.predictor(trained_on, digest),
            experiment,
            count=count,
            names=names,
            answered=self._answered,
            progress=self._progress,
        )
        if first:
            path.parent.mkdir(parents=True, exist_ok=True)
            candidates.save(path)
        return candidates

    def ask(self, candidates: Candidates, index: int) -> int:
        """Put one query to the oracle, count its answer and write it to the label map.

        Returns the class that the oracle named.
        """
        key, number = candidates.identity(self.scenes, index)
        row, col = int(candidates.row[index]), int(candidates.col[index])
        present = int(self.labels(key)[row, col])
        pseudo = int(candidates.pseudo[index]) if present == VOID else present
        superpixel = self.scenes.superpixels(key) == number
        class_id = self._answer(key, superpixel, number, row, col, pseudo)
        pace = self.experiment.pace
        self._count(key, number, pace.accept if class_id == pseudo else pace.correct)
        self._accepted += class_id == pseudo
        if self.experiment.expansion:
            self._take(candidates, index, class_id)
        else:
            star = np.zeros_like(superpixel)
            star[row, col] = True
            self._count_selection((int(candidates.image[index]), number, row, col), key, star)
            if class_id != pseudo or self.labels(key)[row, col] != class_id:  # void, and accepted
                self._write(key, star, class_id)
        return class_id

    def tick(self, candidates: Candidates, index: int, class_id: int) -> bool:
        """Put one tile, which proposes ``class_id``, to the oracle; whether it stays ticked.

        If it does, the class is written as an answer is. A wrong tile is overlooked now and then.
        """
        experiment = self.experiment
        key, number = candidates.identity(self.scenes, index)
        mask = self.scenes.superpixels(key) == number
        row, col = int(candidates.row[index]), int(candidates.col[index])
        name = f"{key}/{number}/{class_id}"
        right = oracle.agrees(experiment.oracle, self.scenes.truth(key), mask, row, col, class_id)
        if not right and not oracle.overlooks(experiment.overlooked, name, experiment.seed):
            return False
        self._count(key, number, 0.0)
        self._accepted += class_id == int(candidates.pseudo[index])
        self._take(candidates, index, class_id)
        return True

    def relabel(self, candidates: Candidates, index: int, class_id: int) -> None:
        """Write a class to a superpixel that nobody was asked about."""
        key, number = candidates.identity(self.scenes, index)
        self._write(key, self.scenes.superpixels(key) == number, class_id)

    def spend(self, seconds: float) -> None:
        """Count seconds of an annotator that belong to no single answer."""
        self._seconds += seconds

    @property
    def seconds(self) -> float:
        """The annotators' seconds so far."""
        return self._seconds

    @property
    def data_miou(self) -> float:
        """The mIoU of the present label maps, in [0, 1]."""
        return metrics.mean_iou(self._confusion)

    def _take(self, candidates: Candidates, index: int, class_id: int) -> None:
        """Write an answer to the pixels that it reaches, unless they have the class already."""
        key, number = candidates.identity(self.scenes, index)
        image = int(candidates.image[index])
        reached = self.scenes.superpixels(key) == number
        if self.experiment.epsilon > 0:
            reached = reached & candidates.reach[image].read()
        self._count_selection((image, number), key, reached)
        there = self.labels(key)[candidates.row[index], candidates.col[index]]
        if there != class_id:  # also where it is void, and the pseudo label was accepted
            self._write(key, reached, class_id)

    def _ends(self) -> list[int]:
        """The number of answers at the end of each round that has any left to ask for."""
        total, rounds = self.experiment.budgets[-1], self.experiment.rounds
        ends = [total * number // rounds for number in range(1, rounds + 1)]
        return [end for end in ends if end > self._given] or [total]

    def _make_first_labels(self) -> None:
        """Replace the dataset's first label maps where the experiment asks for it (Figure 6).

        Random superpixels are classified; a network trained on them labels everything else.
        """
        if self.experiment.labels == "given" or self._first:
            return
        for key in self.scenes.keys:
            self._first[key] = Packed.of(np.full_like(self.scenes.labels(key), VOID))
        self._begin_from_present_labels()
        written = list(self._classify_random_superpixels())
        predict = self._networks.predictor(self.labels, digest_of(self.scenes, self.labels))
        for index, key in enumerate(self.scenes.keys):
            self._progress(index, len(self.scenes.keys), f"first labels of {key}")
            self._labels[key] = Packed.of(
                predict(key).probabilities.argmax(axis=0).astype(np.uint8)
            )
        for key, mask, class_id in written:
            labels = self.labels(key).copy()
            labels[mask] = class_id
            self._labels[key] = Packed.of(labels)
        self._first = dict(self._labels)
        self._begin_from_present_labels()
        self._measure(0)

    def _begin_from_present_labels(self) -> None:
        self._confusion = self.scenes.confusion(self.labels)
        self._before = self._confusion.copy()

    def _classify_random_superpixels(self) -> Iterator[tuple[str, NDArray[np.bool_], int]]:
        """Ask for the class of as many random superpixels as the first budget has answers.

        Yields those that were written to the label maps: image key, mask bool (H, W), class id.
        """
        scenes, seed, noise = self.scenes, self.experiment.seed, self.experiment.noise
        everything = [
            (key, int(number))
            for key in scenes.keys
            for number in np.unique(scenes.superpixels(key))
            if number > 0
        ]
        everything.sort(key=lambda item: draw(f"first/{item[0]}/{item[1]}", seed))
        for key, number in everything[: self.experiment.budgets[0]]:
            mask = scenes.superpixels(key) == number
            inside = np.flatnonzero(mask)
            star = inside[draw(f"star/{key}/{number}", seed) % len(inside)]
            class_id = int(scenes.truth(key).ravel()[star])
            self._count(key, number, self.experiment.pace.classify)
            if class_id != VOID:
                class_id = oracle.blunder(
                    class_id, len(scenes.classes), noise, f"{key}/{number}", seed
                )
                self._write(key, mask, class_id)
                yield key, mask, class_id

    def _candidates_path(self, digest: str, names: Sequence[str], count: int) -> Path:
        """The file for candidates scored by the networks trained on the label maps ``digest``."""
        experiment = self.experiment
        about = {
            "networks": self._networks.name(digest),
            "seed": experiment.seed,
            "names": names,
            "version": __version__,
            "pool": experiment.pool,
            "count": count if experiment.pool != "superpixel" else None,
            "epsilon": experiment.epsilon,
            "dataset": self.scenes.digest,
            "answered": {key: sorted(done) for key, done in sorted(self._answered.items())},
        }
        return self._folder / "candidates" / f"{fingerprint(about)}.npz"

    def _answer(
        self, key: str, superpixel: NDArray[np.bool_], number: int, row: int, col: int, pseudo: int
    ) -> int:
        """The class that the oracle names, or a wrong one by mistake."""
        experiment, scenes = self.experiment, self.scenes
        truth, labels = scenes.truth(key), self.labels(key)
        class_id = oracle.answer(experiment.oracle, truth, labels, superpixel, row, col, pseudo)
        return oracle.blunder(
            class_id, len(scenes.classes), experiment.noise, f"{key}/{number}", experiment.seed
        )

    def _count(self, key: str, number: int, seconds: float) -> None:
        """Count an answer about superpixel ``number`` of an image."""
        self._given += 1
        self._seconds += seconds
        self._answered.setdefault(key, set()).add(number)

    def _count_selection(
        self, identity: tuple[int, ...], key: str, reached: NDArray[np.bool_]
    ) -> None:
        """Count the pixels that a query reached for precision and recall, once an identity."""
        if identity not in self._counted:
            self._counted.add(identity)
            counts = metrics.selection_counts(reached, self.first(key), self.scenes.truth(key))
            self._found = self._found.plus(counts)

    def _write(self, key: str, mask: NDArray[np.bool_], class_id: int) -> None:
        """Write a class to the masked pixels, and update the confusion matrix for them."""
        labels, truth = self.labels(key).copy(), self.scenes.truth(key)
        there, classes = truth[mask][None], len(self.scenes.classes)
        self._confusion -= metrics.confusion_matrix(there, labels[mask][None], classes)
        labels[mask] = class_id
        self._confusion += metrics.confusion_matrix(there, labels[mask][None], classes)
        self._labels[key] = Packed.of(labels)

    def _measure(self, number: int, *, last: bool = False) -> None:
        """Add the figures of the present to round ``number``, with the network's where asked for.

        ``last``: nothing is left to ask, whatever the budget.
        """
        experiment, classes = self.experiment, len(self.scenes.classes)
        accepted = self._accepted / self._given if self._given else 0.0
        last = last or self._given >= experiment.budgets[-1]
        model = self._model(last)
        per_answer = cost.correction_cost(classes, accepted) / cost.classification_cost(classes)
        iou = metrics.class_iou(self._confusion).tolist()
        self._points.append(
            Point(
                round=number,
                answers=self._given,
                share=self._given / max(self.scenes.superpixel_count, 1),
                accept_rate=accepted if self._given else None,
                data_miou=metrics.known(metrics.mean_iou(self._confusion)),
                model_miou=model[0] if model else None,
                precision=metrics.known(self._found.precision),
                recall=metrics.known(self._recall()),
                class_iou=[metrics.known(value) for value in iou],
                model_class_iou=model[1] if model else None,
                normalised_clicks=self._given * per_answer,
                hours=self._seconds / 3600,
                hours_classifying=self._given * experiment.pace.classify / 3600,
            )
        )

    def _model(self, last: bool) -> tuple[float | None, list[float | None]] | None:
        """The quality of a network that is trained now; None where it is not asked for."""
        wanted = self.experiment.model_at
        if wanted == "none" or (wanted == "last" and not last):
            return None
        return self._networks.measure(self.trained_on, digest_of(self.scenes, self.trained_on))

    def _recall(self) -> float:
        """The share of the pixels that were wrong at first which the answers reached."""
        classes = len(self.scenes.classes)
        right = int(np.diagonal(self._before[:, :classes]).sum())
        return self._found._replace(wrong=int(self._before.sum()) - right).recall
