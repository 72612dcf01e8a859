"""Pages of look-alikes and single queries, put into Label Studio without a store or a round."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import skimage.data
from PIL import Image
from skimage.segmentation import slic

from alc_backend.labelstudio import page, query, sheets, tasks, uploads
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.projects import create_query_project
from alc_backend.labelstudio.texts import texts

CLASSES = ["background", "cat", "dog", "person", "rocket", "cup"]
PHOTOS = ("chelsea", "astronaut", "rocket", "coffee")
VERSION = "alc-r1"


def photo(name: str, segments: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A photo of scikit-image, uint8 (H, W, 3), and superpixels of it, int32 (H, W)."""
    picture = getattr(skimage.data, name)()
    return picture, slic(picture, segments, 20, start_label=1).astype(np.int32)


class Pages:
    """A query project that pages and single queries are put into."""

    def __init__(
        self, client: Client, classes=CLASSES, language: str = "en", segments: int = 40
    ) -> None:
        self.client, self.classes, self.wording = client, classes, texts(language)
        title = f"pages {uuid.uuid4().hex[:8]}"
        self.project = create_query_project(client, title, 1, len(classes), self.wording)
        self.sheets = uploads.sheets_project(client, self.project)
        self.photos = {name: photo(name, segments) for name in PHOTOS}
        self.queue: list[tasks.QueueItem] = []

    def _pixel(self, name, number):
        rows, cols = np.nonzero(self.photos[name][1] == number)
        return int(rows[len(rows) // 2]), int(cols[len(cols) // 2])

    def _put(self, key, data, result) -> None:
        self.queue.append(tasks.QueueItem(0, key, None, True, False, data, result))

    def add_page(self, tiles: int, proposed=1, labels=(1,), seed=0, names=PHOTOS):
        """Put a page of some tiles, from these photos in turn, at the queue's end; what it asks."""
        rng = np.random.default_rng(seed)
        orders = {
            name: iter(rng.permutation(int(self.photos[name][1].max())) + 1) for name in names
        }
        named = [names[place % len(names)] for place in range(tiles)]
        chosen = [(name, int(next(orders[name]))) for name in named]
        drawn = [sheets.draw_tile(*self.photos[name], number) for name, number in chosen]
        key = uuid.uuid4().hex
        address = uploads.upload_sheets(self.client, self.sheets, {key: sheets.sheet(drawn)})[key]
        asked = page.PageContent(
            key=key,
            round_number=1,
            epsilon=0.1,
            proposed=proposed,
            classes=self.classes,
            tiles=tuple(
                page.Tile(name, number, *self._pixel(name, number), labels[place % len(labels)])
                for place, (name, number) in enumerate(chosen)
            ),
            sheet=address,
        )
        data = page.task_data(asked, self.wording)
        self._put(query.Key("", 0, page=key), data, page.prediction(asked))
        return asked

    def add_single(self, folder, name: str, number: int):
        """Put a single query at the end of the queue; returns what it asks."""
        picture, superpixels = self.photos[name]
        path = folder / f"{name}.png"
        Image.fromarray(picture).save(path)
        (url,) = self.client.upload(self.sheets, [path])
        row, col = self._pixel(name, number)
        asked = query.QueryContent(
            url=url,
            image_key=name,
            height=picture.shape[0],
            width=picture.shape[1],
            superpixel=number,
            row=row,
            col=col,
            pseudo_label=1,
            classes=self.classes,
            round_number=1,
            shape=query.shape_of(superpixels == number),
        )
        data = query.task_data(asked, self.wording)
        self._put(query.Key(name, number), data, query.prediction(asked))
        return asked

    def publish(self) -> None:
        """Let Label Studio serve what was added, in that order."""
        numbers: dict[query.Key, int] = {}
        tasks.create_tasks(self.client, self.project, self.queue, numbers.update)
        self.queue = [replace(item, task_id=numbers[item.key]) for item in self.queue]
        assert tasks.import_queue(self.client, self.project, VERSION, self.queue)
        tasks.switch(self.client, self.project, VERSION)
