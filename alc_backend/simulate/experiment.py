"""The configuration of one row of a simulation: everything that decides its outcome."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.core.questions import KINDS, PUBLISHED, TILES, Pace
from alc_backend.errors import SettingsError
from alc_backend.segmentation.config import TrainingConfig
from alc_backend.simulate.oracle import ORACLES
from alc_backend.simulate.scenes import SUPERPIXELS

POOLS = ("superpixel", "pixelpick", "pixel")
"""The pools of candidates: the representative pixels of superpixels (the paper's choice),
PixelPick's draw (Table 9), or the best of all pixels, without diversity (Table 3)."""

LABELS = ("given", "random")
"""The sources of the first label maps: the dataset, or a network trained on the classes of random
superpixels, as many as the first budget has answers (Figure 6)."""

MOST_TILES = 48
"""The most tiles that a simulated page may hold."""

MODEL_AT = ("last", "all", "none")
"""The budgets at which a network is trained and its mIoU measured."""


METHODS = ("alc", "spx", "merspx", "mulspx", "given", "supervised")
"""Active label correction; the superpixel-based active learning that it is compared with
(:mod:`alc_backend.simulate.baselines`); or a network that is trained on the label maps as they were
given, or on the ground truth."""

STARTS = ("warm", "cold")
"""Where active learning begins: with the first label maps, or with nothing."""


@dataclass(frozen=True)
class Experiment:
    """A row, measured after each of the numbers of answers in ``budgets``, which ascend.

    The answers up to the last budget are given in ``rounds`` equal parts. Before each round the
    network is trained anew on the present label maps; without ``train`` the first network is kept.
    ``probabilities`` is a folder of ``KEY.npy`` to use instead of a network. ``noise`` is the share
    of answers that name a wrong class.

    With ``hours``, which ascend, the annotators work until the last of them, and the row is
    measured after each, too. ``questions`` says what they are asked (see
    :mod:`alc_backend.core.questions`): pages hold up to ``tiles`` tiles, and a wrong tile is left
    ticked with probability ``overlooked``. ``pace`` says how long everything takes. With
    ``corrector``, a network taught by the answers relabels what was not asked about, after each of
    the hours, as A²LC does.

    ``method`` says which loop is run; those of active learning ask for classes, by ClassBal, and
    begin at their ``start``. Raises SettingsError for options that are invalid or cannot be
    combined.
    """

    training: TrainingConfig
    budgets: tuple[int, ...]
    acquisition: str = "sim"
    pool: str = "superpixel"
    expansion: bool = True
    epsilon: float = 0.0
    labels: str = "given"
    superpixels: str = "objects"
    superpixel_count: int = 100
    folds: int = 1
    share_iterations: bool = False
    flip: bool = False
    oracle: str = "object"
    noise: float = 0.0
    rounds: int = 1
    per_image: int | None = None
    min_area: int = 0
    train: bool = True
    model_at: str = "last"
    probabilities: str | None = None
    hours: tuple[float, ...] = ()
    questions: str = "single"
    pace: Pace = PUBLISHED
    tiles: int = TILES
    overlooked: float = 0.0
    corrector: bool = False
    method: str = "alc"
    start: str = "warm"

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        self._check_combinations()

    def _check_choices(self) -> None:
        for name, value, known in (
            ("--acquisition", self.acquisition, sorted(ACQUISITIONS)),
            ("--pool", self.pool, POOLS),
            ("--labels", self.labels, LABELS),
            ("--superpixels", self.superpixels, SUPERPIXELS),
            ("--oracle", self.oracle, ORACLES),
            ("--model-at", self.model_at, MODEL_AT),
            ("--questions", self.questions, KINDS),
            ("--method", self.method, METHODS),
            ("--start", self.start, STARTS),
        ):
            if value not in known:
                raise SettingsError(f"{name} must be one of {', '.join(known)}, not {value!r}")

    def _check_numbers(self) -> None:
        if not self.budgets or any(budget < 1 for budget in self.budgets):
            raise SettingsError("--budgets must name at least one positive number of answers")
        if list(self.budgets) != sorted(set(self.budgets)):
            raise SettingsError("--budgets must ascend, each given once")
        if not 0 <= self.noise <= 1 or not 0 <= self.epsilon <= 1:
            raise SettingsError("--noise and --epsilon must lie between 0 and 1")
        if list(self.hours) != sorted(set(self.hours)) or any(not 0 < h <= 1e6 for h in self.hours):
            raise SettingsError("--hours must ascend, each positive and given once")
        if not 0 < self.pace.tile <= 3600 or not 1 <= self.tiles <= MOST_TILES:
            raise SettingsError(
                f"--seconds-per-tile must be positive and --tiles between 1 and {MOST_TILES}"
            )
        if not 0 <= self.overlooked <= 1:
            raise SettingsError("--overlooked must lie between 0 and 1")
        if self.rounds < 1 or self.folds < 1:
            raise SettingsError("--rounds and --folds must be at least 1")

    def _check_combinations(self) -> None:
        if self.pool != "superpixel" and (self.epsilon > 0 or self.per_image or self.min_area):
            raise SettingsError(
                f"--pool {self.pool} cannot be combined with --epsilon, --per-image and --min-area"
            )
        if self.pool == "pixel" and self.acquisition not in ("sim", "cil"):
            raise SettingsError(
                "--pool pixel ranks every pixel by itself: --acquisition must be sim or cil"
            )
        if self.method != "alc" and (
            self.hours
            or self.pool != "superpixel"
            or not self.expansion
            or self.epsilon > 0
            or self.labels != "given"
            or not (self.train or self.probabilities)
        ):
            raise SettingsError(
                f"--method {self.method} cannot be combined with --hours, --pool, --expansion off, "
                "--epsilon, --labels random and --no-train"
            )
        if self.start == "cold" and self.method == "alc":
            raise SettingsError(
                "--start cold is for active learning (--method): label correction needs labels"
            )
        if self.questions != "single" and not self.hours:
            raise SettingsError("--questions mixed and pages are measured over --hours")
        if self.corrector and (self.questions != "single" or not self.hours):
            raise SettingsError("--corrector needs --hours and --questions single")
        if self.hours and (self.rounds > 1 or self.pool != "superpixel" or not self.expansion):
            raise SettingsError(
                "--hours cannot be combined with --rounds, --pool and --expansion off"
            )
        if self.probabilities and (self.train or self.labels == "random" or self.folds > 1):
            raise SettingsError(
                "--probabilities replaces the network: combine it with --no-train and the given "
                "labels, without --folds"
            )

    @property
    def seed(self) -> int:
        """The seed of every random choice."""
        return self.training.seed

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON types."""
        values = asdict(self)
        lists = {
            "budgets": list(self.budgets),
            "hours": list(self.hours),
            "pace": self.pace._asdict(),
        }
        return {"seed": self.seed, **values, **lists}

    def name(self, *others: str) -> str:
        """A short name for the row's results, which also depend on ``others``, such as the data."""
        return fingerprint(self.as_dict(), *others)


def fingerprint(*values: Any) -> str:
    """A short name (24 hexadecimal digits) that is equal for equal JSON values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
