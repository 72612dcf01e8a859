"""The settings of all processes: environment variables, and the file that ALC_ENV_FILE names."""

from alc_backend.settings.fields import (
    MEASURED,
    MOST_AREA,
    MOST_FOLDS,
    MOST_QUERIES,
    MOST_SUPERPIXELS,
    Settings,
    variable,
)
from alc_backend.settings.reading import ENV_FILE, settings

__all__ = [
    "ENV_FILE",
    "MEASURED",
    "MOST_AREA",
    "MOST_FOLDS",
    "MOST_QUERIES",
    "MOST_SUPERPIXELS",
    "Settings",
    "settings",
    "variable",
]
