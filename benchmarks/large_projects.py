"""What grows with large images and many classes, and what must not.

``python -m benchmarks.large_projects [FILE]``: one image of 3000×4000 pixels with 400 superpixels
in 20 classes, in a store of its own. Measured are reading its label map without an answer and with
400, its prediction when Label Studio asks for it first and again, and the order of ``default`` over
100 000 superpixels in 20 and in 255 classes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from sqlalchemy import select

from alc_backend.core.acquisition import Measured, compare
from alc_backend.service.web.model import ALCModel
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.kinds import EntryKind
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, LedgerEntry, Project, Superpixel, utc_now
from benchmarks.__main__ import fastest

HEIGHT, WIDTH, COUNT, CLASSES = 3000, 4000, 400, 20
CANDIDATES = 100_000
TASK = 1
"""The numbers of the image's task and of its project in Label Studio."""


def maps() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A label map, uint8 (H, W), and superpixels, int32 (H, W), with wavy borders."""
    rows = np.arange(HEIGHT)[:, None] + 20 * np.sin(np.arange(WIDTH) / 9)[None]
    cols = np.arange(WIDTH)[None] + 20 * np.sin(np.arange(HEIGHT) / 9)[:, None]
    side = int(np.sqrt(COUNT))
    row = np.clip(rows * side // HEIGHT, 0, side - 1)
    col = np.clip(cols * side // WIDTH, 0, side - 1)
    superpixels = (row * side + col + 1).astype(np.int32)
    classes = np.random.default_rng(0).integers(0, CLASSES, COUNT + 1).astype(np.uint8)
    return classes[superpixels], superpixels


@contextmanager
def project() -> Iterator[tuple[Store, int, int]]:
    """A store with the image: the store, and the row ids of the project and the image."""
    labels, superpixels = maps()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        for name, values in (
            ("images", np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)),
            ("pseudo_labels", labels),
            ("objects", superpixels.astype(np.uint16)),
        ):
            (root / name).mkdir(parents=True)
            Pillow.fromarray(values).save(root / name / "large.png")
        (root / "classes.txt").write_text("\n".join(f"class {n}" for n in range(CLASSES)))
        store = Store(Settings(data_dir=Path(folder) / "data", _env_file=None))
        project_id = import_folder(store, root, "large").project_id
        with store.session() as session:
            session.get_one(Project, project_id).dataset_project = TASK
            image = session.scalars(select(Image)).one()
            image.dataset_task = TASK
            image_id = image.id
        yield store, project_id, image_id
        store.close()


def answer_everything(store: Store, project_id: int, image_id: int) -> None:
    """Correct every superpixel to the next class."""
    labels, _ = maps()
    superpixels = store.files(project_id).read_superpixels(image_id)
    numbers, stars = np.unique(superpixels, return_index=True)
    star_of = dict(zip(numbers.tolist(), stars.tolist(), strict=True))
    with store.session() as session:
        for superpixel in session.scalars(select(Superpixel)):
            row, col = divmod(star_of[superpixel.number], WIDTH)
            session.add(
                LedgerEntry(
                    project_id=project_id,
                    image_id=image_id,
                    superpixel_id=superpixel.id,
                    annotation_id=superpixel.id,
                    revision=0,
                    kind=EntryKind.CORRECT,
                    class_id=int(labels[row, col] + 1) % CLASSES,
                    pseudo_label=int(labels[row, col]),
                    row=row,
                    col=col,
                    round_number=1,
                    overlap=1,
                    annotator="1",
                    answered_at=utc_now(),
                    updated_at=utc_now(),
                )
            )


def read(store: Store, project_id: int, image_id: int) -> NDArray[np.uint8]:
    """The label map as it is now."""
    with store.reading() as session:
        label_maps = LabelMaps(session, store.files(project_id), project_id)
    return label_maps.read(image_id)


def predict(store: Store) -> Any:
    """What Label Studio is answered when the image's task is shown."""
    model = ALCModel(store, cast(Any, None), cast(Any, None), TASK)
    return model.predict([{"id": TASK}])


def candidates(classes: int) -> Measured:
    """100 000 superpixels of all pairs of classes."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 20_000, CANDIDATES)
    return Measured(
        sizes * rng.random(CANDIDATES),
        rng.integers(0, classes, CANDIDATES).astype(np.uint8),
        rng.integers(0, classes, CANDIDATES).astype(np.uint8),
        sizes,
        rng.integers(10**6, 10**9, classes),
    )


def main() -> None:
    """Measure, print; write FILE as JSON."""
    result: dict[str, float] = {}
    with project() as (store, project_id, image_id):
        result["label map (s)"] = fastest(lambda: read(store, project_id, image_id), 3)
        answer_everything(store, project_id, image_id)
        result["label map, 400 answers (s)"] = fastest(lambda: read(store, project_id, image_id), 3)
        result["prediction, the first time (s)"] = fastest(lambda: predict(store), 1)
        result["prediction, again (s)"] = fastest(lambda: predict(store), 3)
        result["run lengths of the prediction (bytes)"] = sum(
            len(region["value"]["rle"]) for region in predict(store)[0]["result"]
        )
    for classes in (20, 255):
        found = candidates(classes)
        result[f"order of default, {classes} classes (s)"] = fastest(
            lambda found=found: compare(found, "default"),
            1,  # type: ignore[misc]
        )
    document = json.dumps(result, indent=1)
    print(document)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(document + "\n")


if __name__ == "__main__":
    main()
