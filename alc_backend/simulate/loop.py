"""The loop of Active Label Correction with an oracle annotator, without Label Studio."""

from __future__ import annotations

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
from alc_backend.simulate.networks import Networks, digest_of
from alc_backend.simulate.scenes import Packed, Scenes


class Loop:
    """The state of one experiment: label maps, what was answered, what it brought."""

    def __init__(
        self, scenes: Scenes, experiment: Experiment, folder: Path, progress: Progress
    ) -> None:
        """``folder`` keeps networks and the candidates of first rounds, for other rows too."""
        self.scenes, self.experiment = scenes, experiment
        self._folder, self._progress = folder, progress
        self._networks = Networks(scenes, experiment, folder / "networks", progress)
        self._labels: dict[str, Packed] = {}
        self._first: dict[str, Packed] = {}
        self._answered: dict[str, set[int]] = {}
        self._counted: set[tuple[int, ...]] = set()
        self._points: list[Json] = []
        self._given = self._accepted = 0
        self._seconds = 0.0
        self._found = metrics.SelectionCounts(0, 0, 0)
        self._confusion = scenes.confusion(self.labels)
        self.before = self._confusion.copy()

    def labels(self, key: str) -> NDArray[np.uint8]:
        """The label map of an image as it is now, uint8 (H, W); read-only."""
        if key in self._labels:
            return self._labels[key].read()
        return self.first(key)

    def first(self, key: str) -> NDArray[np.uint8]:
        """The label map that an image began with."""
        return self._first[key].read() if key in self._first else self.scenes.labels(key)

    @property
    def changed(self) -> list[str]:
        """The keys of the images whose label map is not the first one any more."""
        return [key for key in self.scenes.keys if self._labels.get(key) != self._first.get(key)]

    def prepare(self) -> None:
        """Train the first network and score with it: what rows with the same network share."""
        self._begin()
        self._candidates(self._ends()[0] - self._given, first=True)

    def run(self) -> Json:
        """Walk all rounds; returns the row's results as JSON types."""
        experiment = self.experiment
        self._begin()
        if self._given == 0:
            self._measure(0)
        for number, end in enumerate(self._ends(), start=1):
            candidates = self._candidates(end - self._given, first=number == 1)
            order = candidates.order(self.scenes, experiment, end - self._given)
            for place in order:
                self._ask(candidates, place)
                if self._given in experiment.budgets:
                    self._measure(number)
        if self._points[-1]["answers"] < self._given:  # there was less to ask than the budget
            self._measure(experiment.rounds, last=True)
        return {
            **experiment.as_dict(),
            "superpixels_in_all": self.scenes.superpixel_count,
            "round_count": experiment.rounds,
            "rounds": self._points,
            "confusion_before": self.before.tolist(),
            "confusion_after": self._confusion.tolist(),
        }

    def _ends(self) -> list[int]:
        """The number of answers at the end of each round that has any left to ask for."""
        total, rounds = self.experiment.budgets[-1], self.experiment.rounds
        ends = [total * number // rounds for number in range(1, rounds + 1)]
        return [end for end in ends if end > self._given] or [total]

    def _begin(self) -> None:
        """Make the first label maps where the dataset's are not to be used (Figure 6)."""
        if self.experiment.labels == "given" or self._first:
            return
        scenes, seed, classes = self.scenes, self.experiment.seed, len(self.scenes.classes)
        for key in scenes.keys:
            self._first[key] = Packed.of(np.full_like(scenes.labels(key), VOID))
        self._confusion = scenes.confusion(self.labels)
        self.before = self._confusion.copy()
        everything = [
            (key, int(number))
            for key in scenes.keys
            for number in np.unique(scenes.superpixels(key))
            if number > 0
        ]
        everything.sort(key=lambda item: draw(f"first/{item[0]}/{item[1]}", seed))
        written: list[tuple[str, NDArray[np.bool_], int]] = []
        for key, number in everything[: self.experiment.budgets[0]]:
            mask = scenes.superpixels(key) == number
            truth = scenes.truth(key)
            inside = np.flatnonzero(mask)
            star = inside[draw(f"star/{key}/{number}", seed) % len(inside)]
            class_id = int(truth.ravel()[star])
            self._given += 1
            self._seconds += cost.CLASSIFICATION_S
            self._answered.setdefault(key, set()).add(number)
            if class_id != VOID:
                class_id = oracle.blunder(
                    class_id, classes, self.experiment.noise, f"{key}/{number}", seed
                )
                written.append((key, mask, class_id))
                self._write(key, mask, class_id)
        predict = self._networks.predictor(self.labels, digest_of(scenes, self.labels))
        for place, key in enumerate(scenes.keys):
            self._progress(place, len(scenes.keys), f"first labels of {key}")
            self._labels[key] = Packed.of(predict(key).argmax(axis=0).astype(np.uint8))
        for key, mask, class_id in written:
            labels = self.labels(key).copy()
            labels[mask] = class_id
            self._labels[key] = Packed.of(labels)
        self._first = dict(self._labels)
        self._confusion = scenes.confusion(self.labels)
        self.before = self._confusion.copy()
        self._measure(0)

    def _candidates(self, count: int, *, first: bool) -> Candidates:
        """What could be asked now; that of the ``first`` round is kept for other rows.

        Without training anew, the first network scores the label maps as they are.
        """
        experiment, scenes = self.experiment, self.scenes
        trained_on = self.labels if first or experiment.train else self.first
        digest = digest_of(scenes, trained_on)
        names = [ACQUISITIONS[experiment.acquisition].measured]
        if first and experiment.pool == "superpixel":  # other rows will ask for the others
            names = sorted({acquisition.measured for acquisition in ACQUISITIONS.values()})
        about = {
            "networks": self._networks.name(digest),
            "seed": experiment.seed,
            "names": names,
            "version": __version__,
            "pool": experiment.pool,
            "count": count if experiment.pool != "superpixel" else None,
            "epsilon": experiment.epsilon,
            "dataset": scenes.digest,
            "answered": {key: sorted(done) for key, done in sorted(self._answered.items())},
        }
        path = self._folder / "candidates" / f"{fingerprint(about)}.npz"
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

    def _ask(self, candidates: Candidates, place: int) -> None:
        """Put one question to the oracle and write its answer."""
        experiment, scenes = self.experiment, self.scenes
        image, number = int(candidates.image[place]), int(candidates.superpixel[place])
        row, col = int(candidates.row[place]), int(candidates.col[place])
        key, pseudo = scenes.keys[image], int(candidates.pseudo[place])
        mask = scenes.superpixels(key) == number
        labels, truth = self.labels(key), scenes.truth(key)
        class_id = oracle.answer(experiment.oracle, truth, labels, mask, row, col, pseudo)
        class_id = oracle.blunder(
            class_id, len(scenes.classes), experiment.noise, f"{key}/{number}", experiment.seed
        )
        self._given += 1
        self._accepted += class_id == pseudo
        self._seconds += oracle.seconds(class_id == pseudo)
        self._answered.setdefault(key, set()).add(number)
        reached = mask
        if not experiment.expansion:
            reached = np.zeros_like(mask)
            reached[row, col] = True
        elif experiment.epsilon > 0:
            reached = mask & candidates.reach[image].read()
        about = (image, number) if experiment.expansion else (image, row, col)
        if about not in self._counted:
            self._counted.add(about)
            counts = metrics.selection_counts(reached, self.first(key), truth)
            self._found = self._found.plus(counts)
        if class_id != pseudo:
            self._write(key, reached, class_id)
        elif labels[row, col] != class_id:  # void: what was accepted is not there yet, as in replay
            self._write(key, mask if experiment.expansion else reached, class_id)

    def _write(self, key: str, mask: NDArray[np.bool_], class_id: int) -> None:
        labels, truth = self.labels(key).copy(), self.scenes.truth(key)
        there, classes = truth[mask][None], len(self.scenes.classes)
        self._confusion -= metrics.confusion_matrix(there, labels[mask][None], classes)
        labels[mask] = class_id
        self._confusion += metrics.confusion_matrix(there, labels[mask][None], classes)
        self._labels[key] = Packed.of(labels)

    def _measure(self, number: int, *, last: bool = False) -> None:
        """Note how good the label maps are now, and the network where that is asked.

        ``last``: there is nothing more to ask, whatever the budget.
        """
        experiment, classes = self.experiment, len(self.scenes.classes)
        accepted = self._accepted / self._given if self._given else 0.0
        iou = [metrics.known(value) for value in metrics.class_iou(self._confusion).tolist()]
        last = last or self._given >= experiment.budgets[-1]
        model = None
        if experiment.model_at == "all" or (experiment.model_at == "last" and last):
            model = self._networks.measure(self.labels, digest_of(self.scenes, self.labels))
        per_answer = cost.correction_cost(classes, accepted) / cost.classification_cost(classes)
        self._points.append(
            {
                "round": number,
                "budget": self._given,
                "share": self._given / max(self.scenes.superpixel_count, 1),
                "answers": self._given,
                "accept_rate": accepted if self._given else None,
                "data_miou": metrics.known(metrics.mean_iou(self._confusion)),
                "model_miou": model[0] if model else None,
                "precision": metrics.known(self._found.precision),
                "recall": metrics.known(self._recall()),
                "class_iou": iou,
                "model_class_iou": model[1] if model else None,
                "normalised_clicks": self._given * per_answer,
                "hours": self._seconds / 3600,
                "hours_classifying": self._given * cost.CLASSIFICATION_S / 3600,
            }
        )

    def _recall(self) -> float:
        """The share of the pixels that were wrong at the start which the answers reached."""
        classes = len(self.scenes.classes)
        right = int(np.diagonal(self.before[:, :classes]).sum())
        return self._found._replace(wrong=int(self.before.sum()) - right).recall
