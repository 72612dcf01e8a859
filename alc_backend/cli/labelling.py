"""Gives waiting images their first label maps, here or by the workers, and shows how it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alc_backend.cli.common import MinuteLines, print_problems
from alc_backend.errors import FoundationError

if TYPE_CHECKING:
    from alc_backend.loop.projects.image_queue import Waiting
    from alc_backend.store.database import Store

console = Console()

POLL_S = 1.0


def label_waiting(store: Store, project_id: int, *, here: bool, wait: bool = True) -> None:
    """Label the waiting images in this process (``here``) or by the workers.

    Returns when none is waiting any more or, without ``wait``, when the workers have their jobs.
    Raises FoundationError when something keeps all images from being labelled.
    """
    from alc_backend.loop.projects import image_queue

    total = image_queue.waiting(store, project_id).left
    if total and here:
        _label_here(store, project_id, total)
    elif total and not _label_by_workers(store, project_id, total, wait=wait):
        return
    if total:  # workers may have some of them, or all
        _watch(store, project_id, total)
        count = image_queue.count(store, project_id)
        console.print(
            f"{count.images} images with {count.superpixels} superpixels are there; "
            f"{count.hidden} detections were hidden by smaller ones, {count.empty} had no mask"
        )
    print_problems(console, image_queue.problems(store, project_id))
    error = image_queue.waiting(store, project_id).error
    if error is not None:
        raise FoundationError(f"{error}; then run `alc pseudo --retry`")


def _label_here(store: Store, project_id: int, total: int) -> None:
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.projects import initial_labels

    with Client.from_settings(store.settings) as client, _Bar(store, project_id, total) as bar:
        initial_labels.work(
            store,
            client,
            project_id,
            limit=None,
            progress=lambda count, name: bar.show(name),
            sleep=time.sleep,
        )


def _label_by_workers(store: Store, project_id: int, total: int, *, wait: bool) -> bool:
    """Give the workers their jobs; whether to stay and watch them."""
    from alc_backend.loop.projects import image_queue
    from alc_backend.service.jobs.queues import Jobs, connect, is_up

    connection = connect(store.settings)
    Jobs(store.settings, connection).enqueue_images(project_id, image_queue.shards(total))
    if not is_up(connection):
        console.print(
            "No Redis answers, so no worker can begin yet: start `alc serve`, or use `alc pseudo "
            "--here`",
            style="yellow",
        )
        return False
    if not wait:
        console.print(f"{total} images wait for a worker; `alc pseudo` shows how it goes")
    return wait


def _watch(store: Store, project_id: int, total: int) -> None:
    """Show how the workers get on until nothing waits, or something keeps everything waiting."""
    try:
        with _Bar(store, project_id, total) as bar:
            while (state := bar.show("labelling")).left and state.error is None:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        console.print("The workers go on; `alc pseudo` shows how it goes, --cancel stops it.")


class _Bar:
    """A progress bar of the ``total`` images that were waiting when it began."""

    def __init__(self, store: Store, project_id: int, total: int) -> None:
        self._store, self._project_id, self._total = store, project_id, total
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("labelling", total=total)
        self._lines = MinuteLines(console)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, name: str) -> Waiting:
        """Show how many are done by now, whoever did them; what is still waiting."""
        from alc_backend.loop.projects import image_queue

        state = image_queue.waiting(self._store, self._project_id)
        done = max(0, self._total - state.left)
        self._bar.update(self._task, completed=done, description=escape(name))
        self._lines(f"{name}: {done} of {self._total}")
        return state
