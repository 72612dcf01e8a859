"""The snippets of docs/training.md, run on what is written for them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from alc_backend.datasets.layouts import WRITERS
from tests.conftest import CLASSES
from tests.datasets.made import KEYS, output_image
from tests.docs.blocks import ROOT, blocks

PAGE = (ROOT / "docs/training.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
NEEDS = {
    "torchvision": "torchvision",
    "Hugging Face": "datasets",
    "Ultralytics": "ultralytics",
    "nnU-Net": "nnunetv2",
    "MMSegmentation": "mmseg",
}


def test_each_framework_has_a_section_that_names_its_format():
    assert list(SECTIONS) == list(NEEDS)
    for text in SECTIONS.values():
        (name,) = re.findall(r"alc export \S+ --format (\S+)`", text)
        assert name in WRITERS


def exported(tmp_path, section):
    """The folder ``pets`` below ``tmp_path``, in the format of a section, and its environment."""
    (root,) = re.findall(r"alc export (\S+) --format", SECTIONS[section])
    (name,) = re.findall(r"alc export \S+ --format (\S+)`", SECTIONS[section])
    (tmp_path / root).mkdir(parents=True)
    images = [output_image(tmp_path, key, seed=seed) for seed, key in enumerate(KEYS)]
    WRITERS[name](tmp_path / root, CLASSES, iter(images))
    folders = {
        f"nnUNet_{part}": str(tmp_path / f"nnUNet_{part}")
        for part in ("raw", "preprocessed", "results")
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "YOLO_OFFLINE": "true"}
    return {
        **os.environ, **folders, **offline, "YOLO_CONFIG_DIR": str(tmp_path / "yolo"),
        "OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "1", "nnUNet_compile": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip


def run(command, tmp_path, environment):
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def skip_without(section):
    if find_spec(NEEDS[section]) is None:
        pytest.skip(f"{NEEDS[section]} is not installed")


@pytest.mark.parametrize("section", ["torchvision", "Hugging Face", "Ultralytics"])
def test_a_snippet_trains_for_one_epoch(tmp_path, section):
    skip_without(section)
    (code,) = blocks(SECTIONS[section], "python")
    environment = exported(tmp_path, section)
    said = run([sys.executable, "-c", code], tmp_path, environment)
    assert section == "Ultralytics" or re.search(r"loss \d", said)


@pytest.mark.slow
def test_nnunets_commands_train_for_one_epoch(tmp_path):
    skip_without("nnU-Net")
    (lines,) = blocks(SECTIONS["nnU-Net"], "sh")
    environment = exported(tmp_path, "nnU-Net")
    for line in lines.strip().splitlines():
        device = ["-device", "cpu"] if line.startswith("nnUNetv2_train") else ["-np", "1"]
        run([*line.split(), *device], tmp_path, environment)


def test_the_part_of_a_config_for_mmsegmentation_names_what_is_there(tmp_path):
    exported(tmp_path, "MMSegmentation")
    (code,) = blocks(SECTIONS["MMSegmentation"], "python")
    names: dict = {}
    exec(code.replace('open("pets', f'open("{tmp_path}/pets'), names)
    dataset = names["train_dataloader"]["dataset"]
    assert dataset["metainfo"]["classes"] == tuple(CLASSES)
    root = tmp_path / dataset["data_root"]
    for key in KEYS:
        assert (
            root / dataset["data_prefix"]["img_path"] / f"{key}{dataset['img_suffix']}"
        ).is_file()
        mask = root / dataset["data_prefix"]["seg_map_path"] / f"{key}{dataset['seg_map_suffix']}"
        assert mask.is_file()
