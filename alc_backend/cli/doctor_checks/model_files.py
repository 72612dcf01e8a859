"""The check of the foundation models' files that a project's warm start needs."""

from __future__ import annotations

from alc_backend.cli.doctor_checks.finding import Result, ok, problem, warning
from alc_backend.common.types import Json
from alc_backend.errors import WeightsError
from alc_backend.foundation import catalogue, weights
from alc_backend.foundation.warm_start import WarmStart, check_files
from alc_backend.settings import Settings


def check(kept: Json | None, settings: Settings) -> Result:
    """Whether the models of a project's warm start, as it is ``kept``, are there and whole.

    Raises SettingsError for a model that nobody knows.
    """
    if kept is None:
        return ok("this project needs none")
    try:
        files = check_files(WarmStart.of(kept), settings)
    except WeightsError as error:
        return warning(f"not on this machine: {error}", "workers for the queue pseudo need them")
    used = {path for path in (files.detector, files.segmenter) if path is not None}
    if not used:
        return ok("this project needs none")
    wrong = [
        f"{model.name}/{name}"
        for model in catalogue.chosen([])
        if settings.models / model.name in used
        for name, state in weights.check(settings.models, model).items()
        if state == weights.FileState.WRONG
    ]
    if wrong:
        return problem(
            f"the hash of these files is wrong: {', '.join(wrong)}",
            "remove them and run `alc weights download`",
        )
    return ok("the files of Grounded-SAM are there and whole")
