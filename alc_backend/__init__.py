"""Active Label Correction for semantic segmentation, inside Label Studio."""

from alc_backend.common.version import __version__

__all__ = ["__version__"]
