"""Active Label Correction for semantic segmentation, inside Label Studio."""

__version__ = "0.1.0"
