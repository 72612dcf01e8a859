"""Rounds of superpixel-based active learning, whose queries ask for the class of a superpixel.

A network is trained on what was named: from a cold start the rest is void, from a warm start it
keeps its first label. The next superpixels are those of the highest ClassBal score (Cai et al.
2021); from a cold start, the first ones are drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core import acquisition
from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.core.statistics import ImageStatistics
from alc_backend.simulate import oracle
from alc_backend.simulate.baselines import merging, partial_labels, sieving
from alc_backend.simulate.candidates import Predict
from alc_backend.simulate.loop import Loop
from alc_backend.simulate.networks import digest_of
from alc_backend.simulate.scenes import Packed

CLASSBAL = "classbal"


class Region(NamedTuple):
    """What one query is about: superpixels of an image, by their ids, of so many pixels."""

    key: str
    numbers: tuple[int, ...]
    size: int


class Named(NamedTuple):
    """A region with the classes that were named: one, or all that are in it."""

    region: Region
    classes: tuple[int, ...]


class Active(Loop):
    """The state of a row whose method is spx, merspx or mulspx."""

    def run(self) -> Json:
        """Run all rounds; returns the results of the row as JSON types."""
        self._open: list[Named] = []  # named, but not yet part of what is trained on
        self._trained: dict[str, Packed] = {}
        self._sets = partial_labels.ClassSets(len(self.scenes.classes))
        self.begin()
        for number, end in enumerate(self._ends(), start=1):
            predict = self._predictor()
            regions = self._drawn() if predict is None else self._ranked(predict)
            for region in regions:
                if self._given == end:
                    break
                if self._ask_region(region, end - self._given) and self._is_measured():
                    named, trained = list(self._open), dict(self._trained)
                    self._settle(predict)
                    self._measure(number)
                    self._open, self._trained = named, trained  # the round's end settles all
            self._settle(predict)
        return self.finish([])

    def prepare(self) -> None:
        """Train the first network, where there is anything to train it on."""
        self._make_first_labels()
        if self.experiment.start == "warm":
            self._networks.predictor(self.labels, digest_of(self.scenes, self.labels))

    def trained_on(self, key: str) -> NDArray[np.uint8]:
        """The label map that a network is trained on now: the present one, without what is sieved.

        uint8 (H, W), read-only.
        """
        return self._trained[key].read() if key in self._trained else self.labels(key)

    def _make_first_labels(self) -> None:
        if self.experiment.start == "cold":
            for key in self.scenes.keys:
                self._first[key] = Packed.of(np.full_like(self.scenes.labels(key), VOID))
            self._begin_from_present_labels()

    def _model(self, last: bool) -> tuple[float | None, list[float | None]] | None:
        return super()._model(last) if self._given or self.experiment.start == "warm" else None

    def _is_measured(self) -> bool:
        return self._given in self.experiment.budgets

    def _predictor(self) -> Predict | None:
        """The network trained on what is named so far; None before anything is."""
        if not self._given and self.experiment.start == "cold":
            return None
        return self._networks.predictor(self.trained_on, digest_of(self.scenes, self.trained_on))

    # Which regions are asked about.

    def _remaining(self, key: str) -> NDArray[np.int32]:
        """The superpixels that were not asked about, int32 (H, W)."""
        superpixels = self.scenes.superpixels(key)
        done = list(self._answered.get(key, ()))
        return superpixels * ~np.isin(superpixels, done)

    def _drawn(self) -> list[Region]:
        """All superpixels in an order that is drawn."""
        every = []
        for key in self.scenes.keys:
            numbers, sizes = np.unique(self._remaining(key), return_counts=True)
            every += [
                Region(key, (int(number),), int(size))
                for number, size in zip(numbers, sizes, strict=True)
                if number
            ]
        seed = self.experiment.seed
        return sorted(every, key=lambda one: draw(f"first/{one.key}/{one.numbers[0]}", seed))

    def _ranked(self, predict: Predict) -> list[Region]:
        """The regions by ClassBal, best first; of equals by image and superpixel."""
        regions: list[Region] = []
        scores: list[NDArray[np.float64]] = []
        dominant: list[NDArray[np.uint8]] = []
        for index, key in enumerate(self.scenes.keys):
            self._progress(index, len(self.scenes.keys), f"scoring {key}")
            remaining = self._remaining(key)
            if not remaining.any():
                continue
            probabilities = predict(key).probabilities
            groups: dict[int, tuple[int, ...]] = {
                int(number): (int(number),) for number in np.unique(remaining) if number
            }
            if self.experiment.method == "merspx":
                remaining, groups = self._merged(key, probabilities, remaining)
            image = ImageStatistics(probabilities, self.labels(key), remaining)
            regions += [
                Region(key, groups[int(number)], int(size))
                for number, size in zip(image.ids, image.sizes, strict=True)
            ]
            scores.append(image.means(image.rivalry))
            dominant.append(image.dominant)
        if not regions:
            return []
        found = acquisition.Measured(
            np.concatenate(scores),
            np.concatenate(dominant),
            np.concatenate(dominant),
            np.array([region.size for region in regions]),
            np.zeros(len(self.scenes.classes), dtype=np.int64),
        )
        order = np.argsort(-acquisition.compare(found, CLASSBAL), kind="stable")
        return [regions[index] for index in order]

    def _merged(
        self, key: str, probabilities: NDArray[np.float32], superpixels: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], dict[int, tuple[int, ...]]]:
        """The merged superpixels of an image, int32 (H, W), and the superpixels in each."""
        image = ImageStatistics(probabilities, self.labels(key), superpixels)
        group = merging.merged(
            image.mean_probabilities(),
            merging.neighbours(image.index.reshape(image.shape)),
            image.means(image.rivalry),
        )
        numbers = np.concatenate([[0], group + 1]).astype(np.int32)
        members = {
            int(number) + 1: tuple(int(one) for one in image.ids[group == number])
            for number in np.unique(group)
        }
        return numbers[image.index].reshape(image.shape), members

    # What is named, and what a network learns of it.

    def _ask_region(self, region: Region, left: int) -> bool:
        """Ask for the class of a region, or for all classes in it; whether it was asked.

        Each class that is named is a click; a region with more classes than there are clicks
        ``left`` is put off.
        """
        experiment, key = self.experiment, region.key
        mask = self._mask(region)
        truth = self.scenes.truth(key)[mask]
        counts = np.bincount(truth[truth != VOID], minlength=1)
        present = [int(class_id) for class_id in np.flatnonzero(counts)]
        if experiment.method != "mulspx":
            present = present and [int(counts.argmax())]
        if len(present) > left:
            return False
        name = f"{key}/{region.numbers[0]}"
        classes = tuple(
            oracle.blunder(class_id, len(self.scenes.classes), experiment.noise, name, self._seed)
            for class_id in present
        )
        clicks = max(1, len(classes))
        self._given += clicks
        self._seconds += clicks * experiment.pace.classify
        self._answered.setdefault(key, set()).update(region.numbers)
        self._count_selection((self.scenes.keys.index(key), *region.numbers), key, mask)
        if len(set(classes)) == 1:
            self._write(key, mask, classes[0])
        if classes:
            self._open.append(Named(region, tuple(sorted(set(classes)))))
        return True

    @property
    def _seed(self) -> int:
        return self.experiment.seed

    def _mask(self, region: Region) -> NDArray[np.bool_]:
        return np.isin(self.scenes.superpixels(region.key), region.numbers)

    def _settle(self, predict: Predict | None) -> None:
        """Make what was named since part of what is trained on; ``predict`` has chosen it."""
        if self.experiment.method == "merspx":
            self._sieve(predict)
        elif self.experiment.method == "mulspx":
            self._spread()
        self._open.clear()

    def _by_image(self) -> Iterator[tuple[str, list[Named]]]:
        for key in sorted({named.region.key for named in self._open}):
            yield key, [named for named in self._open if named.region.key == key]

    def _sieve(self, predict: Predict | None) -> None:
        """Leave out what the named class does not fit, in regions that are larger than others."""
        sizes = [named.region.size for named in self._open]
        large = float(np.mean(sizes)) if sizes else 0.0
        for key, here in self._by_image():
            seen = None if predict is None else predict(key).probabilities
            kept = self.trained_on(key).copy()
            for region, (class_id, *_) in here:
                mask = self._mask(region)
                kept[mask] = class_id
                if seen is not None:
                    kept[mask & ~sieving.sieved(seen[class_id], mask, large)] = VOID
            self._trained[key] = Packed.of(kept)

    def _spread(self) -> None:
        """Give the pixels of regions with several classes one of these, by a network's view."""
        several = [named for named in self._open if len(named.classes) > 1]
        if not several:
            return
        coded = {key: self.labels(key).copy() for key in {named.region.key for named in several}}
        for region, classes in several:
            coded[region.key][self._mask(region)] = self._sets.id_of(classes)

        def first_stage(key: str) -> NDArray[np.uint8]:
            return coded[key] if key in coded else self.labels(key)

        digest = digest_of(self.scenes, first_stage)
        predict = self._networks.predictor(first_stage, digest, self._sets.table)
        for region, classes in several:
            mask = self._mask(region)
            found = partial_labels.pseudo_labels(predict(region.key).probabilities, mask, classes)
            for class_id in classes:
                of_class = np.zeros_like(mask)
                of_class[mask] = found == class_id
                self._write(region.key, of_class, class_id)


class Unasked(Loop):
    """The row of a network that is trained on the label maps as they were given."""

    def run(self) -> Json:
        """Measure it; returns the results of the row as JSON types, with no answers."""
        self._measure(0, last=True)
        return self.finish([])

    def prepare(self) -> None:
        """Nothing is shared with other rows."""


class Supervised(Unasked):
    """The row of a network that is trained on the ground truth, which others are compared with."""

    def run(self) -> Json:
        """Measure it; returns the results of the row as JSON types, with no answers."""
        self._labels = {key: Packed.of(self.scenes.truth(key)) for key in self.scenes.keys}
        self._begin_from_present_labels()
        return super().run()


LOOPS = {
    "alc": Loop, "given": Unasked, "supervised": Supervised, "spx": Active, "merspx": Active,
    "mulspx": Active,
}  # fmt: skip
"""What runs a row, by its method."""
