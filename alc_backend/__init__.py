"""Active Label Correction for semantic segmentation, inside Label Studio.

The names in ``__all__`` are what other programs may build on; docs/api.md documents them. Each is
imported from its module when it is first asked for, so that ``import alc_backend`` costs nothing
and loads no network. Modules of the package import each other, never this face.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alc_backend.common.version import __version__

if TYPE_CHECKING:
    from alc_backend.core.acquisition import (
        ACQUISITIONS,
        Acquisition,
        Measured,
        Scene,
        compare,
        measure,
        sim,
    )
    from alc_backend.core.agreement import Agreement, agreement
    from alc_backend.core.arrays import VOID
    from alc_backend.core.cost import classification_cost, correction_cost, saving
    from alc_backend.core.expansion import expand, expand_all
    from alc_backend.core.metrics import (
        SelectionCounts,
        class_iou,
        confusion_matrix,
        mean_iou,
        selection_counts,
    )
    from alc_backend.core.painting import Painted, paint
    from alc_backend.core.pool import Pool, best_pixels, pixelpick, representative_pixels
    from alc_backend.core.selection import Scored, ranked, spread, top
    from alc_backend.core.statistics import ImageStatistics
    from alc_backend.datasets.dataset import Dataset, OutputImage, Sample
    from alc_backend.datasets.layouts import WRITERS, open_dataset
    from alc_backend.datasets.superpixels import slic
    from alc_backend.errors import (
        AlcError,
        CancelledError,
        DatasetError,
        FoundationError,
        LabelStudioAwayError,
        LabelStudioError,
        NotFoundError,
        RoundError,
        ServiceError,
        SettingsError,
        StorageError,
        TrainingError,
        WeightsError,
    )
    from alc_backend.loop.annotations.webhooks import Letterbox
    from alc_backend.segmentation.config import TrainingConfig
    from alc_backend.service.jobs.queues import Jobs
    from alc_backend.service.web.app import create_app
    from alc_backend.service.web.model import ALCModel
    from alc_backend.settings import Settings
    from alc_backend.store.database import Store
    from alc_backend.store.files import ProjectFiles
    from alc_backend.store.importing import ImportSummary, import_dataset
    from alc_backend.store.kinds import EntryKind, Removal
    from alc_backend.store.label_maps import LabelMaps
    from alc_backend.store.ledger import Judgement, judge, standing
    from alc_backend.store.models import (
        Image,
        LedgerEntry,
        Part,
        Project,
        Round,
        Superpixel,
    )
    from alc_backend.store.round_config import RoundConfig
    from alc_backend.store.round_states import RoundState, Step
    from alc_backend.store.storage import Storage
    from alc_backend.store.traits import ShardTraits

__all__ = [
    "ACQUISITIONS",
    "VOID",
    "WRITERS",
    "ALCModel",
    "Acquisition",
    "Agreement",
    "AlcError",
    "CancelledError",
    "Dataset",
    "DatasetError",
    "EntryKind",
    "FoundationError",
    "Image",
    "ImageStatistics",
    "ImportSummary",
    "Jobs",
    "Judgement",
    "LabelMaps",
    "LabelStudioAwayError",
    "LabelStudioError",
    "LedgerEntry",
    "Letterbox",
    "Measured",
    "NotFoundError",
    "OutputImage",
    "Painted",
    "Part",
    "Pool",
    "Project",
    "ProjectFiles",
    "Removal",
    "Round",
    "RoundConfig",
    "RoundError",
    "RoundState",
    "Sample",
    "Scene",
    "Scored",
    "SelectionCounts",
    "ServiceError",
    "Settings",
    "SettingsError",
    "ShardTraits",
    "Step",
    "Storage",
    "StorageError",
    "Store",
    "Superpixel",
    "TrainingConfig",
    "TrainingError",
    "WeightsError",
    "__version__",
    "agreement",
    "best_pixels",
    "class_iou",
    "classification_cost",
    "compare",
    "confusion_matrix",
    "correction_cost",
    "create_app",
    "expand",
    "expand_all",
    "import_dataset",
    "judge",
    "mean_iou",
    "measure",
    "open_dataset",
    "paint",
    "pixelpick",
    "ranked",
    "representative_pixels",
    "saving",
    "selection_counts",
    "sim",
    "slic",
    "spread",
    "standing",
    "top",
]

_MODULES = {
    "ACQUISITIONS": "core.acquisition",
    "Acquisition": "core.acquisition",
    "Measured": "core.acquisition",
    "Scene": "core.acquisition",
    "compare": "core.acquisition",
    "measure": "core.acquisition",
    "sim": "core.acquisition",
    "Agreement": "core.agreement",
    "agreement": "core.agreement",
    "VOID": "core.arrays",
    "classification_cost": "core.cost",
    "correction_cost": "core.cost",
    "saving": "core.cost",
    "expand": "core.expansion",
    "expand_all": "core.expansion",
    "SelectionCounts": "core.metrics",
    "class_iou": "core.metrics",
    "confusion_matrix": "core.metrics",
    "mean_iou": "core.metrics",
    "selection_counts": "core.metrics",
    "Painted": "core.painting",
    "paint": "core.painting",
    "Pool": "core.pool",
    "best_pixels": "core.pool",
    "pixelpick": "core.pool",
    "representative_pixels": "core.pool",
    "Scored": "core.selection",
    "ranked": "core.selection",
    "spread": "core.selection",
    "top": "core.selection",
    "ImageStatistics": "core.statistics",
    "Dataset": "datasets.dataset",
    "OutputImage": "datasets.dataset",
    "Sample": "datasets.dataset",
    "WRITERS": "datasets.layouts",
    "open_dataset": "datasets.layouts",
    "slic": "datasets.superpixels",
    "AlcError": "errors",
    "CancelledError": "errors",
    "DatasetError": "errors",
    "FoundationError": "errors",
    "LabelStudioAwayError": "errors",
    "LabelStudioError": "errors",
    "NotFoundError": "errors",
    "RoundError": "errors",
    "ServiceError": "errors",
    "SettingsError": "errors",
    "StorageError": "errors",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "Letterbox": "loop.annotations.webhooks",
    "TrainingConfig": "segmentation.config",
    "Jobs": "service.jobs.queues",
    "create_app": "service.web.app",
    "ALCModel": "service.web.model",
    "Settings": "settings",
    "Store": "store.database",
    "ProjectFiles": "store.files",
    "ImportSummary": "store.importing",
    "import_dataset": "store.importing",
    "LabelMaps": "store.label_maps",
    "RoundConfig": "store.round_config",
    "RoundState": "store.round_states",
    "Step": "store.round_states",
    "Storage": "store.storage",
    "ShardTraits": "store.traits",
    "Judgement": "store.ledger",
    "judge": "store.ledger",
    "standing": "store.ledger",
    "EntryKind": "store.kinds",
    "Image": "store.models",
    "LedgerEntry": "store.models",
    "Part": "store.models",
    "Project": "store.models",
    "Removal": "store.kinds",
    "Round": "store.models",
    "Superpixel": "store.models",
}
"""The module below this package that each public name comes from."""


def __getattr__(name: str) -> Any:
    """A public name, imported from its module and kept here."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every name of this module, those included that are not imported yet."""
    return sorted({*globals(), *__all__})
