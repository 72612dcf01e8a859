"""What is installed elsewhere: a wheel of this package, with everything that belongs to it."""

from __future__ import annotations

import configparser
import shlex
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


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments):
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stderr.splitlines()[:1], done.stdout


@needs_make
@pytest.mark.parametrize(
    ("version", "is_right"),
    [((3, 9), False), ((3, 10), True), ((3, 13), True), ((3, 14), False)],
)
def test_make_says_which_python_it_needs(tmp_path, version, is_right):
    python = tmp_path / "python"
    code = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    python.chmod(0o755)
    status, said, _ = make("python", f"VENV={tmp_path}/none", f"PYTHON={python}")
    if is_right:
        assert (status, said) == (0, [])
    else:
        assert status != 0
        assert f"needs Python 3.10 to 3.13, and {python} is Python 3.{version[1]}" in said[0]


@needs_make
def test_make_says_that_there_is_no_python(tmp_path):
    status, said, _ = make("python", f"VENV={tmp_path}/none", "PYTHON=python9")
    assert status != 0
    assert "there is no python9: install one" in said[0]


@needs_make
def test_make_takes_the_build_of_pytorch_that_is_asked_for():
    index = "TORCH_INDEX=https://example.com/cpu"
    assert "--torch-backend cpu torch" in make("-n", "torch", "TORCH=cpu", "UV=uv")[2]
    assert "--index-url 'https://example.com/cpu' torch" in make("-n", "torch", "UV=", index)[2]
    assert "pip install" not in make("-n", "torch", "TORCH=cuda")[2]
    status, said, _ = make("torch", "TORCH=cpu", "UV=")
    assert status != 0
    assert "TORCH_INDEX=ADDRESS" in said[0]
    status, said, _ = make("torch", "TORCH=rocm")
    assert status != 0
    assert said == ["TORCH must be cpu or cuda, not rocm"]


@needs_make
@pytest.mark.parametrize("uv", ["", "uv"])
def test_the_tools_are_installed_with_all_their_extras(uv, tmp_path):
    """A comma in an argument of make's functions would end it."""
    said = make("-n", f"VENV={tmp_path}/none", f"UV={uv}", f"{tmp_path}/none/.tools")[2]
    assert "--editable '.[grounded-sam,test,docs]'" in said


@needs_make
def test_a_folder_with_a_space_in_its_name_is_left_alone(tmp_path):
    """What make removes lies in this folder, whatever it is called."""
    folder = tmp_path / "work stuff" / "alc"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", "-n", "UV=", ".venv-label-studio/.installed"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    (removing,) = [line for line in done.stdout.splitlines() if line.startswith("rm -rf")]
    assert all(word.startswith(".venv-label-studio/") for word in shlex.split(removing)[2:])
