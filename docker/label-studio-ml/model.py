"""The model that label-studio-ml serves: Active Label Correction."""

from alc_backend.service.ml_backend import ALCBackend

__all__ = ["ALCBackend"]
