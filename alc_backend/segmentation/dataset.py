"""Random training crops (scaled, cropped, flipped), determined by seed and iteration."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.core.arrays import VOID
from alc_backend.segmentation.config import OUTPUT_STRIDE

Loader = Callable[[str], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
"""Called with an image key; returns image uint8 (H, W, 3) and label map uint8 (H, W)."""


class Batch(NamedTuple):
    """N crops: ``images`` uint8 (N, S, S, 3), ``labels`` uint8 (N, S, S), and their image keys.

    S is the input size, padded to a multiple of 16 with pixels labelled void.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    keys: list[str]


class TrainingCrops:
    """Batches of random crops; batch ``i`` depends only on the seed and ``i``.

    Up to ``cache_bytes`` of decoded images are kept in memory. Thread-safe.
    """

    def __init__(
        self,
        keys: Sequence[str],
        load: Loader,
        *,
        input_size: int,
        batch_size: int,
        fill: tuple[int, int, int],
        seed: int,
        cache_bytes: int,
    ) -> None:
        if not keys:
            raise ValueError("keys must name at least one training image")
        self._keys = list(keys)
        self._load = load
        self._size = input_size
        self._batch_size = batch_size
        self._fill = np.array(fill, dtype=np.uint8)
        self._seed = seed
        self._padded = -(-input_size // OUTPUT_STRIDE) * OUTPUT_STRIDE
        self._room = cache_bytes
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def batch(self, iteration: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The crops of one iteration; every image is drawn once before any is drawn again.

        Process ``rank`` of ``ranks`` gets its share: crops ``rank``, ``rank + ranks``, …
        """
        indices = self._indices(iteration)[rank::ranks]
        keys = [self._key(index) for index in indices]
        crops = [self._crop(key, index) for key, index in zip(keys, indices, strict=True)]
        return Batch(
            np.stack([image for image, _ in crops]), np.stack([labels for _, labels in crops]), keys
        )

    def keys(self, iteration: int) -> list[str]:
        """The image keys of the whole batch of an iteration."""
        return [self._key(index) for index in self._indices(iteration)]

    def _indices(self, iteration: int) -> range:
        """The indices of the crops of an iteration, counted from the start of the training."""
        return range(iteration * self._batch_size, (iteration + 1) * self._batch_size)

    def batches(
        self, start: int, stop: int, *, threads: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """The batches of iterations ``start`` up to ``stop``, prepared ahead by ``threads``."""
        iterations = iter(range(start, stop))
        with ThreadPoolExecutor(threads, thread_name_prefix="crops") as pool:
            pending: deque[Future[Batch]] = deque(
                pool.submit(self.batch, iteration, rank, ranks)
                for iteration in islice(iterations, 2 * threads)
            )
            try:
                while pending:
                    batch = pending.popleft().result()
                    for iteration in islice(iterations, 1):
                        pending.append(pool.submit(self.batch, iteration, rank, ranks))
                    yield batch
            finally:
                pool.shutdown(cancel_futures=True)

    def _key(self, index: int) -> str:
        epoch, position = divmod(index, len(self._keys))
        order = np.random.default_rng([self._seed, 1, epoch]).permutation(len(self._keys))
        return self._keys[int(order[position])]

    def _read(self, key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if key in self._cache:
            return self._cache[key]
        pair = self._load(key)
        size = pair[0].nbytes + pair[1].nbytes
        with self._lock:
            if key not in self._cache and size <= self._room:
                self._room -= size
                self._cache[key] = pair
        return pair

    def _crop(self, key: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A crop at a random scale of 0.5-2, padded with void, and flipped at random."""
        rng = np.random.default_rng([self._seed, 2, index])
        image, labels = self._read(key)
        window = round(self._size / rng.uniform(0.5, 2.0))
        height, width = labels.shape
        top = int(rng.integers(min(0, height - window), max(0, height - window) + 1))
        left = int(rng.integers(min(0, width - window), max(0, width - window) + 1))
        cut_image = np.empty((window, window, 3), dtype=np.uint8)
        cut_image[:] = self._fill
        cut_labels = np.full((window, window), VOID, dtype=np.uint8)
        inside = slice(max(0, top), top + window), slice(max(0, left), left + window)
        part = labels[inside]
        into = (
            slice(max(0, -top), max(0, -top) + part.shape[0]),
            slice(max(0, -left), max(0, -left) + part.shape[1]),
        )
        cut_image[into], cut_labels[into] = image[inside], part
        size = (self._size, self._size)
        scaled_image = np.asarray(
            Image.fromarray(cut_image).resize(size, Image.Resampling.BILINEAR)
        )
        scaled_labels = np.asarray(
            Image.fromarray(cut_labels).resize(size, Image.Resampling.NEAREST)
        )
        if rng.random() < 0.5:
            scaled_image, scaled_labels = scaled_image[:, ::-1], scaled_labels[:, ::-1]
        if (missing := self._padded - self._size) == 0:
            return scaled_image, scaled_labels
        padded_image = np.empty((self._padded, self._padded, 3), dtype=np.uint8)
        padded_image[:] = self._fill
        padded_image[:-missing, :-missing] = scaled_image
        around = ((0, missing), (0, missing))
        return padded_image, np.pad(scaled_labels, around, constant_values=VOID)
