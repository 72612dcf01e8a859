"""What is installed elsewhere: a wheel of this package, with everything that belongs to it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def test_a_wheel_holds_the_whole_package(tmp_path):
    """Tests run from the source tree, where a file that packaging forgets is not missed."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "alc_backend", source / "alc_backend", ignore=ignored)
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run(
        [sys.executable, *command, tmp_path, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("alc_backend/")}
    written = (path for path in (source / "alc_backend").rglob("*") if path.is_file())
    assert packed == {str(path.relative_to(source)) for path in written}


@pytest.mark.parametrize(
    ("package", "unsafe"),
    [
        ("fastapi", "0.131.0"),  # reads a form without a content type as JSON
        ("torch", "2.5.1"),  # CVE-2025-32434: weights_only=True runs code
    ],
)
def test_versions_with_known_holes_are_refused(package, unsafe):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = map(Requirement, setup["options"]["install_requires"].strip().splitlines())
    (found,) = [each for each in wanted if each.name == package]
    assert not found.specifier.contains(unsafe)
