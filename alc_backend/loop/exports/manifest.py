"""The manifest of an export: what it was made from, and the digest of every file.

Writes and reads files of an export; compares them with a snapshot. Called by ``export`` and
``alc export --verify``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from alc_backend.common.files import read_json, sha256_of, write_json
from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import DatasetError
from alc_backend.loop.exports import snapshot
from alc_backend.loop.exports.snapshot import Snapshot

NAME = "manifest.json"
MADE_BY = "alc-backend"


def write(
    root: Path,
    taken: Snapshot,
    format_name: str,
    with_images: bool,
    ledger: str,
    entries: int,
) -> None:
    """Write the manifest of the files below ``root``, as the last file of an export.

    ``with_images`` tells whether the export holds the images, ``ledger`` is the snapshot's digest,
    of so many ``entries``.
    """
    manifest: Json = {
        "made_by": MADE_BY,
        "version": __version__,
        "format": format_name,
        "project": taken.project.name,
        "classes": taken.project.classes,
        "images": len(taken.images),
        "images_included": with_images,
        "ledger": {"sha256": ledger, "entries": entries},
        "files": {name: sha256_of(root / name) for name in files(root)},
    }
    write_json(root / NAME, {**manifest, "sha256": _of_itself(manifest)})


def read(root: Path) -> Json:
    """The manifest of an export; DatasetError when the folder is no export, or it was altered."""
    if not (root / NAME).is_file():
        raise DatasetError(f"{root}: is no export (it has no {NAME}); give the folder of one")
    manifest = read_json(root / NAME)
    if not isinstance(manifest, dict) or manifest.get("made_by") != MADE_BY:
        raise DatasetError(
            f"{root / NAME}: is not of an export by alc-backend; give another folder"
        )
    claimed = manifest.pop("sha256", None)
    if claimed != _of_itself(manifest) or not _is_whole(manifest):
        raise DatasetError(
            f"{root / NAME}: was altered since the export; remove the folder and export again"
        )
    return manifest


def files(root: Path) -> list[str]:
    """The names of all files below ``root`` except the manifest, sorted."""
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    names = {path.relative_to(root).as_posix() for path in found}
    return sorted(names - {NAME})


def altered(root: Path, known: Mapping[str, str]) -> list[str]:
    """The files below ``root`` that no longer have the digest that is ``known`` of them.

    Those that are missing do not count.
    """
    return [
        name
        for name, digest in known.items()
        if (root / name).is_file() and sha256_of(root / name) != digest
    ]


def differences(
    root: Path,
    manifest: Json,
    taken: Snapshot,
    progress: Callable[[str], None] = lambda message: None,
) -> list[str]:
    """One sentence for each difference between an export, its manifest and the store."""
    found = []
    exported: dict[str, str] = manifest["files"]
    present = set(files(root))
    for name in sorted(present | exported.keys()):
        progress(f"checking {name}")
        if name not in present:
            found.append(f"{name} is missing")
        elif name not in exported:
            found.append(f"{name} is not part of the export")
        elif sha256_of(root / name) != exported[name]:
            found.append(f"{name} was altered since the export")
    progress("replaying the ledger")
    if manifest["project"] != taken.project.name:
        found.append(
            f"the export is of the project {manifest['project']!r}, not of {taken.project.name!r}"
        )
        return found
    digest, entries = snapshot.digest(taken)
    if manifest["ledger"]["sha256"] != digest:
        found.append(
            f"the ledger has moved on: {manifest['ledger']['entries']} entries were in force, now "
            f"{entries} are; export again"
        )
    return found


def _is_whole(manifest: Json) -> bool:
    parts = {"project": str, "files": dict, "ledger": dict}
    whole = all(isinstance(manifest.get(name), kind) for name, kind in parts.items())
    return whole and {"sha256", "entries"} <= manifest["ledger"].keys()


def _of_itself(manifest: Json) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
