"""The files of the foundation models: downloading, installing and checking them.

Nothing is downloaded at run time; only ``alc weights download`` does that. Where no hash is
published, that of the first file installed is kept in ``hashes.json`` and required from then on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from alc_backend.common.files import sha256_of
from alc_backend.common.types import TextEnum
from alc_backend.errors import WeightsError
from alc_backend.foundation.catalogue import File, Weights, chosen

DownloadProgress = Callable[[str, int, int | None], None]
"""Called with a file's name, its bytes downloaded so far, and its size (None while unknown)."""

HASHES = "hashes.json"
TRIES = 5
PAUSE_S = 2.0
"""The pause before an interrupted download continues; doubled each time."""


class FileState(TextEnum):
    """The result of checking a file."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong hash"
    UNKNOWN = "no published hash"


def require(names: Sequence[str], models: Path) -> dict[str, Path]:
    """The path that the loader of each of these models takes, by name; downloads nothing.

    Raises WeightsError with instructions when files are missing or not of the published size.
    """
    wanted = chosen(names) if names else []
    missing = [file for entry in wanted for file in entry.files if not _is_whole(models, file)]
    if missing:
        raise WeightsError(
            f"model files are missing in {models}; "
            + instructions(models, missing, "fetch them with `alc weights download`")
        )
    return {entry.name: entry.path_in(models) for entry in wanted}


def instructions(models: Path, files: Sequence[File], begin: str) -> str:
    """How to install files by hand, on a machine without internet access.

    ``begin`` is the first half of the sentence that the instructions continue.
    """
    lines = [f"{begin}, or on a machine that has a network, and put them there:"]
    lines += [f"  {file.url}\n    → {(models / file.path).absolute()}" for file in files]
    lines.append("(`alc weights download NAME --from FILE` checks a file and puts it there)")
    return "\n".join(lines)


def check(models: Path, file: File) -> FileState:
    """The state of a file; an unknown hash is kept, and required from then on."""
    path = models / file.path
    if not path.is_file():
        return FileState.MISSING
    expected = _expected(models, file)
    found = sha256_of(path)
    if expected is None:
        _remember(models, file, found)
        return FileState.UNKNOWN
    return FileState.OK if found == expected else FileState.WRONG


def install(models: Path, file: File, source: Path) -> bool:
    """Copy a file that the user has into the folder of models; returns whether its hash was known.

    Raises WeightsError for a wrong hash, for an unreadable file, and when the disk is full.
    """
    path = models / file.path
    part = path.with_name(path.name + ".part")
    try:
        _make_room(path, source.stat().st_size)
        with _saying_disk_full(path):
            shutil.copyfile(source, part)
    except OSError as error:
        raise WeightsError(f"{source}: cannot be read ({error}); give the file's path") from error
    return _put(models, file, part)


def download(
    models: Path,
    file: File,
    *,
    mirror: str | None = None,
    progress: DownloadProgress = lambda name, done, size: None,
    pause_s: float = PAUSE_S,
) -> bool:
    """Download a file unless it is installed; returns whether its hash was known.

    Continues where an earlier attempt stopped. ``mirror`` is a URL below which the files have their
    paths. Raises WeightsError when the file cannot be downloaded (with instructions to do it by
    hand), when its hash or that of the installed file is wrong, or when the disk is full.
    """
    path = models / file.path
    if path.is_file():
        state = check(models, file)
        if state == FileState.WRONG:
            raise WeightsError(f"{path}: is not the published file; delete it and fetch it again")
        return state == FileState.OK
    url = f"{mirror.rstrip('/')}/{file.path}" if mirror else file.url
    part = path.with_name(path.name + ".part")
    begun = part.stat().st_size if part.is_file() else 0
    _make_room(path, None if file.size is None else file.size - begun)
    with httpx.Client(timeout=30, follow_redirects=True, max_redirects=5) as http:
        retrying = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(multiplier=pause_s),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            retrying(_fetch, http, url, part, file, progress, secure=mirror is None)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise WeightsError(
                f"{url} cannot be fetched ({_said(error)}); "
                + instructions(models, [file], "try again, which goes on where it stopped")
            ) from error
    return _put(models, file, part)


def _fetch(
    http: httpx.Client,
    url: str,
    part: Path,
    file: File,
    progress: DownloadProgress,
    *,
    secure: bool,
) -> None:
    """Download the missing rest of a file into ``part``."""
    begun = part.stat().st_size if part.is_file() else 0
    tag = part.with_name(part.name + ".etag")
    headers = {"Accept-Encoding": "identity"}
    if begun and tag.is_file():
        headers |= {"Range": f"bytes={begun}-", "If-Range": tag.read_text()}
    elif begun:
        headers |= {"Range": f"bytes={begun}-"}
    with http.stream("GET", url, headers=headers) as response:
        if secure and any(step.url.scheme != "https" for step in (*response.history, response)):
            raise WeightsError(f"{url} leads to an address without https; use a mirror you trust")
        if response.status_code == 416:  # nothing follows: ``part`` is complete, or too long
            if file.size is not None and begun != file.size:
                part.unlink()
                raise httpx.ReadError("the server has a file of another size")
            return
        response.raise_for_status()
        begun = begun if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        size = begun + int(length) if length.isdecimal() else file.size
        if size is not None:
            _make_room(part, size - begun)
        known = response.headers.get("ETag", "")
        if known and not known.startswith("W/"):
            tag.write_text(known)
        else:
            tag.unlink(missing_ok=True)
        with _saying_disk_full(part), part.open("ab" if begun else "wb") as sink:
            done = begun
            progress(file.path, done, size)
            for chunk in response.iter_raw():
                sink.write(chunk)
                done += len(chunk)
                progress(file.path, done, size)
        if size is not None and done != size:
            raise httpx.ReadError(f"the connection ended after {done} of {size} bytes")


def _put(models: Path, file: File, part: Path) -> bool:
    """Install a file, or remove it if its hash is wrong; returns whether its hash was known."""
    expected, found = _expected(models, file), sha256_of(part)
    part.with_name(part.name + ".etag").unlink(missing_ok=True)
    if expected is not None and found != expected:
        part.unlink()
        raise WeightsError(
            f"{Path(file.path).name}: has the SHA-256 {found}, expected {expected}; nothing was "
            "put in place; fetch it again, or from elsewhere"
        )
    part.replace(models / file.path)
    if expected is None:
        _remember(models, file, found)
    return expected is not None


def _is_whole(models: Path, file: File) -> bool:
    path = models / file.path
    return path.is_file() and (file.size is None or path.stat().st_size == file.size)


def _expected(models: Path, file: File) -> str | None:
    return file.sha256 or _known(models).get(file.path)


def _known(models: Path) -> dict[str, str]:
    try:
        found = json.loads((models / HASHES).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{models / HASHES}: cannot be read ({error}); delete it to check from anew"
        ) from error
    return found if isinstance(found, dict) else {}


def _remember(models: Path, file: File, digest: str) -> None:
    known = {**_known(models), file.path: digest}
    written = models / f"{HASHES}.part"
    written.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    written.replace(models / HASHES)


def _make_room(path: Path, size: int | None) -> None:
    """Create the folder of a file; WeightsError when the disk has less than ``size`` bytes free."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise WeightsError(
            f"{path.parent}: cannot be written ({error}); set ALC_MODEL_DIR to another folder"
        ) from error
    if size is not None and free < size:
        raise WeightsError(
            _full(path, f"needs {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free")
        )


def _full(path: Path, why: str) -> str:
    return f"{path.name}: the disk of {path.parent} is full ({why}); make room and try again"


@contextmanager
def _saying_disk_full(path: Path) -> Iterator[None]:
    """Turn a full disk into WeightsError; the part written stays, so that it can be continued."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(_full(path, os.strerror(error.errno))) from error
        raise


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: not when the server refuses or the URL is invalid."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.HTTPError) and not isinstance(error, httpx.UnsupportedProtocol)


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def state(models: Path, entry: Weights) -> str:
    """Whether a model's files are there, in part or missing; hashes are not checked."""
    there = [_is_whole(models, file) for file in entry.files]
    return "there" if all(there) else "in part" if any(there) else "missing"


def sources(entry: Weights, given: Path) -> Iterator[tuple[File, Path]]:
    """Each file of a model with the user's copy; ``given`` is a file, or a folder of files.

    Raises WeightsError for a single file where the model has several.
    """
    for file in entry.files:
        if given.is_dir():
            yield file, given / Path(file.path).name
        elif len(entry.files) == 1:
            yield file, given
        else:
            raise WeightsError(
                f"{entry.name} has {len(entry.files)} files; give the folder that holds them"
            )
