"""The choice between two versions of the loops over pixels and classes that dominate scoring.

``kernels_numba`` (compiled, several times faster) and ``kernels_numpy`` (where numba is not
installed) have the same functions. Both compute in the same precision and order, so that their
results are equal to the last bit.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from types import ModuleType

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def fastest_kernels() -> ModuleType:
    """The compiled kernels, or the NumPy ones when numba cannot be imported."""
    try:
        from alc_backend.core import kernels_numba
    except ImportError as error:
        from alc_backend.core import kernels_numpy

        log.warning("scoring runs in plain NumPy, many times slower: %s", error)
        return kernels_numpy
    return kernels_numba
