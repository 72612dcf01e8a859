from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from alc_backend.datasets.plain_images import open_images
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES


def test_a_folder_of_plain_images(tmp_path):
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.jpg", "twin.png", "twin.jpg"):
        Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(images / name)
    (images / "notes.txt").write_text("no image")
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(CLASSES))
    found = open_images(images, classes, blank=True)
    samples = list(found.samples())
    assert [sample.key for sample in samples] == ["a", "more/b"]
    assert all(not sample.labels.any() and sample.superpixels.min() == 1 for sample in samples)
    assert any("notes.txt: not an image" in problem for problem in found.problems)
    assert any("share the name 'twin'" in problem for problem in found.problems)
    classes.write_text("cat\ndog")
    with pytest.raises(DatasetError, match="names no class background"):
        open_images(images, classes, blank=True)
    assert open_images(images, classes, blank=False).classes == ["cat", "dog"]
    with pytest.raises(DatasetError, match="is not a folder"):
        open_images(tmp_path / "nothing", classes, blank=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no images"):
        open_images(tmp_path / "empty", classes, blank=False)
