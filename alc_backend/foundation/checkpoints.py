"""Reading the original checkpoints of foundation models without running code from them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from alc_backend.errors import FoundationError

Tensors = Mapping[str, torch.Tensor]


def read_tensors(path: Path, model: str, inside: str | None = None) -> Tensors:
    """The tensors in a PyTorch file by name, on the CPU.

    ``inside`` is the entry of the file that contains them, None for the file itself. Raises
    FoundationError for a file that is damaged or contains anything else.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        tensors = held[inside] if inside else held
        if not all(isinstance(value, torch.Tensor) for value in tensors.values()):
            raise TypeError("it contains more than tensors")
    except (
        OSError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, ValueError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise FoundationError(
            f"{path}: is not a checkpoint of {model} ({_first_line(error)}); fetch it again with "
            "`alc weights download`"
        ) from error
    return dict(tensors)


@contextmanager
def fits(path: Path, model: str) -> Iterator[None]:
    """Turn errors of building ``model`` from the file ``path`` into FoundationError."""
    try:
        yield
    except (KeyError, IndexError, RuntimeError, ValueError, AssertionError, OSError) as error:
        raise FoundationError(
            f"{path}: does not fit {model} ({_first_line(error)}); fetch it again with `alc "
            "weights download`"
        ) from error


def not_installed(model: str, error: ImportError) -> FoundationError:
    """The error to raise when a model's package, or one that it needs, cannot be imported."""
    return FoundationError(
        f"{model} cannot be loaded ({error}); install alc-backend[grounded-sam], and where libGL "
        "is missing opencv-python-headless in place of opencv-python"
    )


def count(tensors: Tensors, prefix: str) -> int:
    """The number of modules called ``prefix.0``, ``prefix.1``, …; KeyError when there is none."""
    numbered = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    numbers = {int(found[1]) for name in tensors if (found := numbered.match(name))}
    if not numbers:
        raise KeyError(prefix)
    return max(numbers) + 1


def width(tensors: Tensors, name: str, axis: int = 0) -> int:
    """The length of a tensor along an axis; KeyError when there is no such tensor."""
    return int(tensors[name].shape[axis])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
