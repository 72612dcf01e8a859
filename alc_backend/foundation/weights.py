"""The files of the foundation models: downloading, installing and checking them.

Nothing is downloaded at run time; only ``alc weights download`` does that, from the Hugging Face
hub. Each model has a folder of its own. The commit it was fetched from and the hashes of its files
are kept in ``hashes.json`` of that folder, and required from then on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alc_backend.common.files import sha256_of
from alc_backend.common.types import TextEnum
from alc_backend.errors import WeightsError
from alc_backend.foundation.catalogue import Model, chosen

HASHES = "hashes.json"
REVISION = "revision"
"""The key of the commit in HASHES; the others are names of files."""


class FileState(TextEnum):
    """The result of checking a file."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong hash"
    UNKNOWN = "no known hash"


def require(names: Sequence[str], models: Path) -> dict[str, Path]:
    """The folder of each of these models, by name; downloads nothing.

    Raises WeightsError with instructions when files are missing.
    """
    wanted = chosen(names) if names else []
    missing = [model for model in wanted if not is_there(models, model)]
    if missing:
        raise WeightsError(
            f"model files are missing in {models}; "
            + instructions(models, missing, "fetch them with `alc weights download`")
        )
    return {model.name: models / model.name for model in wanted}


def is_there(models: Path, model: Model) -> bool:
    """Whether all files of a model are there, or its original; hashes are not checked."""
    folder = models / model.name
    if _is_original(folder, model):
        return True
    return all((folder / name).is_file() for name in _needed(model))


def _is_original(folder: Path, model: Model) -> bool:
    """Whether a model is read from its original file: one with a config.json is read by that."""
    return (
        model.original is not None
        and (folder / model.original.name).is_file()
        and not (folder / "config.json").is_file()
    )


def state(models: Path, model: Model) -> str:
    """Whether a model's files are there, in part or missing; hashes are not checked."""
    if is_there(models, model):
        return "there"
    return "in part" if any((models / model.name / name).is_file() for name in model.files) else (
        "missing"
    )  # fmt: skip


def instructions(models: Path, missing: Sequence[Model], begin: str) -> str:
    """How to install models by hand, on a machine without internet access.

    ``begin`` is the first half of the sentence that the instructions continue.
    """
    lines = [f"{begin}, or on a machine that has a network, and put them there:"]
    for model in missing:
        folder = (models / model.name).absolute()
        address = f"https://huggingface.co/{model.repository}"
        lines.append(f"  {address}\n    ({', '.join(model.files)})\n    → {folder}")
        if model.original is not None:
            lines.append(f"  or the original {model.original.url}\n    → {folder}")
    lines.append("(`alc weights download NAME --from FILE_OR_FOLDER` puts them there)")
    return "\n".join(lines)


def hashes(models: Path, model: Model) -> dict[str, str]:
    """The SHA-256 of a model's large files that are published or were kept, by file name."""
    known = {**_known(models / model.name), **_published(model)}
    return {
        name: digest for name, digest in known.items() if name.endswith((".safetensors", ".pth"))
    }


def check(models: Path, model: Model) -> dict[str, FileState]:
    """The state of each file of a model, by name; an unknown hash is kept, and required then on."""
    folder = models / model.name
    known = _known(folder)
    if model.original is not None:
        known = {**known, **_published(model)}
    names = list(model.files)
    if model.original is not None and _is_original(folder, model):
        names = [model.original.name]
    states = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            if name in _needed(model) or name not in model.files:
                states[name] = FileState.MISSING
            continue
        found = sha256_of(path)
        if name in known:
            states[name] = FileState.OK if known[name] == found else FileState.WRONG
        else:
            _remember(folder, {name: found})
            states[name] = FileState.UNKNOWN
    return states


def install(models: Path, model: Model, given: Path) -> None:
    """Copy the files that the user has: an original checkpoint, or the folder of a model's files.

    Raises WeightsError for a wrong hash, for a file of another name, and for what cannot be read.
    """
    folder = models / model.name
    original = model.original
    if given.is_dir():
        sources = {name: given / name for name in model.files if (given / name).is_file()}
        missing = [name for name in _needed(model) if name not in sources]
        if missing:
            raise WeightsError(f"{given}: has no {', '.join(missing)} of {model.name}")
    elif original is not None and given.suffix == ".pth":
        sources = {original.name: given}
    elif given.is_file() and given.name in model.files:
        sources = {given.name: given}
    else:
        raise WeightsError(
            f"{given}: is no file of {model.name}; give "
            + (f"{original.name}, or " if original else "")
            + f"the folder that holds {', '.join(model.files)}"
        )
    known = {**_known(folder), **_published(model)}
    for name, source in sources.items():
        try:
            found = sha256_of(source)
            if known.get(name, found) != found:
                raise WeightsError(
                    f"{source}: has the SHA-256 {found}, expected {known[name]}; nothing was put "
                    "in place"
                )
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f"{name}.part"
            shutil.copyfile(source, part)
            part.replace(folder / name)
        except OSError as error:
            raise WeightsError(
                f"{source}: cannot be copied to {folder} ({error}); give a file that can be read, "
                "and a folder of models (ALC_MODEL_DIR) with room"
            ) from error
        _remember(folder, {name: found})


def download(models: Path, model: Model, endpoint: str | None = None) -> None:
    """Download a model from the Hugging Face hub, going on where an earlier attempt stopped.

    ``endpoint`` is the address of a mirror; by default HF_ENDPOINT names one. HF_TOKEN is that of
    the account that a model with terms of its own needs.
    Raises WeightsError, with instructions to do it by hand, when it cannot be fetched, and when a
    file is not the one that the hub describes.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise WeightsError(
            f"downloading needs the package huggingface_hub ({error}); install "
            "alc-backend[grounded-sam]"
        ) from error
    folder = models / model.name
    known = _known(folder)
    revision = model.revision or known.get(REVISION)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in model.files:
            url = hf_hub_url(model.repository, name, revision=revision, endpoint=endpoint)
            try:
                described: Any = get_hf_file_metadata(url, endpoint=endpoint)
            except EntryNotFoundError:
                if name in _needed(model):
                    raise
                continue
            revision = described.commit_hash or revision
            path = Path(
                hf_hub_download(
                    model.repository,
                    name,
                    revision=revision,
                    local_dir=folder,
                    endpoint=endpoint,
                )
            )
            _confirm(path, described.etag, known.get(name))
            _remember(folder, {name: sha256_of(path), REVISION: str(revision)})
    except WeightsError:
        raise
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        terms = (
            f"accept its terms at https://huggingface.co/{model.repository} and set HF_TOKEN, "
            if model.gated
            else ""
        )
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{model.name} cannot be fetched ({said}); {terms}"
            + instructions(models, [model], "try again, which goes on where it stopped")
        ) from error


def _confirm(path: Path, etag: str | None, known: str | None) -> None:
    """Remove a file that is not the one expected, and raise WeightsError.

    The hub's tag of a large file is its SHA-256; ``known`` is that of an earlier download.
    """
    expected = known or (etag if etag is not None and len(etag) == 64 else None)
    if expected is None:
        return
    found = sha256_of(path)
    if found != expected:
        path.unlink()
        raise WeightsError(
            f"{path.name}: has the SHA-256 {found}, expected {expected}; it was removed; fetch it "
            "again, or from elsewhere"
        )


def _needed(model: Model) -> list[str]:
    """The files without which a model cannot be loaded; the others come in several forms."""
    optional = {
        "preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "vocab.txt",
        "vocab.json", "merges.txt",
    }  # fmt: skip
    return [name for name in model.files if name not in optional]


def _published(model: Model) -> dict[str, str]:
    original = model.original
    return {original.name: original.sha256} if original and original.sha256 else {}


def _known(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / HASHES).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder / HASHES}: cannot be read ({error}); delete it to check from anew"
        ) from error
    return found if isinstance(found, dict) else {}


def _remember(folder: Path, digests: dict[str, str]) -> None:
    written = folder / f"{HASHES}.part"
    known = {**_known(folder), **digests}
    written.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    written.replace(folder / HASHES)
