"""Reading the original checkpoints of foundation models without running code from them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

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
    except FoundationError:
        raise
    except (
        KeyError, IndexError, RuntimeError, ValueError, TypeError, AttributeError, OSError,
        SafetensorError,
    ) as error:  # fmt: skip
        raise FoundationError(
            f"{path}: does not fit {model} ({_first_line(error)}); fetch it again with `alc "
            "weights download`"
        ) from error


def not_installed(model: str, error: ImportError) -> FoundationError:
    """The error to raise when the package of a model, or one that it needs, cannot be imported."""
    return FoundationError(f"{model} cannot be loaded ({error}); install alc-backend[grounded-sam]")


def original_in(path: Path) -> Path:
    """The original checkpoint at ``path``: the file itself, or the only one in a folder.

    Raises FoundationError when a folder holds none, or several.
    """
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix in (".pth", ".pt"))
    if len(found) != 1:
        raise FoundationError(
            f"{path}: holds neither a config.json nor exactly one .pth file; name the checkpoint, "
            "or a folder that transformers has written"
        )
    return found[0]


def processor_of(folder: Path, name: str) -> Any:
    """The image processor of this name in transformers, with the settings kept in ``folder``.

    Raises OSError when there are none.
    """
    import transformers

    return getattr(transformers, name).from_pretrained(folder, local_files_only=True)


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


def load(model_class: Any, config: Any, tensors: Tensors) -> Any:
    """A model of the package transformers with exactly these tensors, on the CPU.

    ``tensors`` have its names. Raises KeyError for a tensor too few or too many, RuntimeError for
    one of another shape.
    """
    model, found = model_class.from_pretrained(
        None, config=config, state_dict=dict(tensors), output_loading_info=True
    )
    wrong = sorted([*found["missing_keys"], *found["unexpected_keys"]])
    if wrong:
        raise KeyError(wrong[0])
    return model
