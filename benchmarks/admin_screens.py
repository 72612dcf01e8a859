"""Screenshots of the service's own pages, for docs/screens; :mod:`benchmarks.screens` takes them.

``python -m benchmarks.admin_screens FOLDER`` takes these alone, without Label Studio: a project
with 10 000 answers beside eleven others in all kinds of states, made up and written into a store.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.datasets.images import read_image
from alc_backend.datasets.superpixels import slic
from alc_backend.loop.config import round_config
from alc_backend.service.jobs.processes import Processes, start_redis
from alc_backend.service.web.app import create_app
from alc_backend.settings import Settings
from alc_backend.simulate.sample import write_sample
from alc_backend.store import recording, upkeep
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import TRAIN, Image, Project, Query, Round, Superpixel, utc_now
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_states import RoundState
from tests.serving import serving

ANSWERS = 10_000
IMAGES, SUPERPIXELS = 120, 100
"""Images of the project with the answers, and about how many superpixels each has."""

TILES = 12
AT_ONCE = 40
"""Pages that are written in one transaction."""

ANNOTATORS = ("3", "7", "12")
OTHERS = {
    "Aerial, spring": RoundState.OPEN,
    "Aerial, autumn": RoundState.SCORING,
    "Colonoscopy": RoundState.OPEN,
    "Crops 2026": None,
    "Dash cams, night": RoundState.FAILED,
    "Harbour": RoundState.CANCELLED,
    "Leaves": RoundState.OPEN,
    "Office chairs": RoundState.TRAINING,
    "Pets": RoundState.OPEN,
    "Weld seams of line 4, second camera from the left": RoundState.PUBLISHING,
    "Zebra crossings": None,
}
"""The other projects by name: how their last round stands, None before the first."""

SCREENS = {
    "projects": "/",
    "project-0-answers": "/projects/{Crops 2026}",
    "project-10000-answers": "/projects/{City streets}",
    "project-problems": "/projects/{Dash cams, night}",
    "gallery-doubtful": "/images?project={City streets}&sort=doubtful",
}
"""The pages by the names of their screenshots; a project's name stands for its number."""

LOOKS: dict[str, dict[str, Any]] = {
    "": {"viewport": {"width": 1280, "height": 1000}},
    "-dark": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"},
    "-phone": {"viewport": {"width": 390, "height": 844}},
}
"""The looks of a page by the endings of their names."""


def take(browser: Browser, target: Path) -> None:
    """Make the projects, and take a screenshot of each page in each look."""
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        settings = Settings(data_dir=Path(folder) / "data", port=1, _env_file=None)
        settings.data_dir.mkdir()
        start_redis(processes, settings)
        store = Store(settings)
        write_sample(Path(folder) / "sample", images=IMAGES, held_out=0)
        numbers = {"City streets": many_answers(store, Path(folder) / "sample" / "train")}
        small, _ = write_sample(Path(folder) / "small", 1, images=12, held_out=0)
        for place, (name, state) in enumerate(OTHERS.items(), start=1):
            numbers[name] = other_project(store, small, name, state, place)
        with serving(create_app(settings)) as port:
            for suffix, options in LOOKS.items():
                page = browser.new_context(**options).new_page()
                for name, path in SCREENS.items():
                    for project, number in numbers.items():
                        path = path.replace(f"{{{project}}}", str(number))
                    page.goto(f"http://127.0.0.1:{port}{path}")
                    page.wait_for_load_state("networkidle")
                    page.wait_for_timeout(600)
                    page.screenshot(path=target / f"{name}{suffix}.jpg", type="jpeg", quality=72)
        store.close()


def many_answers(store: Store, folder: Path) -> int:
    """A project of several rounds, of which three people have answered much; its row id."""
    for path in sorted((folder / "images").iterdir()):
        pieces = slic(read_image(path), SUPERPIXELS)
        Picture.fromarray(pieces.astype(np.uint16)).save(folder / "objects" / f"{path.stem}.png")
    project_id = import_folder(store, folder, "City streets").project_id
    config = round_config(store.settings, {})
    with store.session() as session:
        _connect(session, project_id, 1)
        began = utc_now() - timedelta(days=5)
        for number in range(1, 6):
            share = (number - 1) / 5
            session.add(
                Round(
                    project_id=project_id, number=number, config=config,
                    state=RoundState.OPEN if number == 5 else RoundState.CLOSED,
                    answers=round(ANSWERS * share), labeler_s=2.1 * ANSWERS * share,
                    expected_pixels=None if number == 1 else 3.1e6 * share,
                    corrected_pixels=None if number == 1 else round(2.9e6 * share),
                    worthwhile=1400, data_miou=0.46 + 0.34 * (1 - np.exp(-3 * share)),
                    model_miou=0.41 + 0.25 * (1 - np.exp(-3 * share)),
                    opened_at=began + timedelta(days=number - 1),
                )
            )  # fmt: skip
    answered = 0
    for part in batched(_questions(store, project_id), AT_ONCE):
        with store.session() as session:
            round_ = session.scalars(
                select(Round).where(Round.project_id == project_id, Round.number == 5)
            ).one()
            for proposed, members in part:
                if answered >= ANSWERS:
                    break
                answered += _answer(session, round_, proposed, members, answered)
    with store.session() as session:
        rng = np.random.default_rng(0)
        images = _images(session, project_id)
        doubts = {image: int(1e6 * rng.beta(2, 9)) for image in images}
        upkeep.note_doubts(session, project_id, doubts)
    return project_id


def _images(session: Session, project_id: int) -> list[int]:
    """The images (row ids) under correction."""
    mine = (Image.project_id == project_id, Image.split == TRAIN)
    return list(session.scalars(select(Image.id).where(*mine).order_by(Image.id)))


Members = list[tuple[int, int]]
"""Superpixels (row ids), and the class that each really is."""


def _questions(store: Store, project_id: int) -> Iterator[tuple[int, Members]]:
    """Pages about superpixels of one label each: the label, and what they are."""
    files, waiting = store.files(project_id), defaultdict[int, Members](list)
    for image in store.images(project_id, TRAIN):
        pieces = files.read_superpixels(image.id)
        labels, truth = (
            _most(files.read_label_map(kind, image.id), pieces)
            for kind in ("initial", "ground_truth")
        )
        with store.reading() as session:
            rows = session.execute(
                select(Superpixel.number, Superpixel.id).where(Superpixel.image_id == image.id)
            ).all()
        for number, row_id in rows:
            members = waiting[int(labels[number])]
            members.append((row_id, int(truth[number])))
            if len(members) == TILES:
                yield int(labels[number]), waiting.pop(int(labels[number]))


def _most(values: NDArray[np.uint8], pieces: NDArray[np.int32]) -> NDArray[np.intp]:
    """The most frequent class of each superpixel, by its number."""
    counts = np.bincount(256 * pieces.ravel().astype(np.int64) + values.ravel())
    padded = np.zeros(256 * (int(pieces.max()) + 1), dtype=np.int64)
    padded[: len(counts)] = counts
    return padded.reshape(-1, 256)[:, :255].argmax(axis=1)


def _answer(session: Session, round_: Round, proposed: int, members: Members, before: int) -> int:
    """Somebody answers a page, and then singly about what they unticked; the classes named."""
    tiles = [
        Tile(position=p, superpixel_id=row_id, row=0, col=0, pseudo_label=proposed)
        for p, (row_id, _) in enumerate(members, start=1)
    ]
    page = Page(
        project_id=round_.project_id, round=round_, key=f"{before:032x}", proposed=proposed,
        plan=1, place=0.5, task_id=1_000_000 + before, tiles=tiles,
    )  # fmt: skip
    session.add(page)
    session.flush()
    rng = np.random.default_rng(before)
    who = ANNOTATORS[before % 7 % len(ANNOTATORS)]
    moment = utc_now() - timedelta(minutes=30) - timedelta(seconds=30 * (ANSWERS - before))

    def reply(number: int, class_id: int | None, seconds: float) -> recording.Reply:
        return recording.Reply(number, class_id, who, seconds, moment, moment)

    right = {place for place, (_, really) in enumerate(members, start=1) if really == proposed}
    took = float(rng.gamma(6, 2.2))
    is_page = before % 5 > 0  # else they are asked about singly
    if is_page:
        told = reply(20 * before + 1, proposed, took)
        recording.record_page(session, page, told, right, again=False)
    for place, (row_id, really) in enumerate(members, start=1):
        if really != proposed or not is_page:
            query = Query(
                superpixel_id=row_id, round_id=round_.id, rank=before + place, score=1.0,
                row=0, col=0, pseudo_label=proposed,
            )  # fmt: skip
            session.add(query)
            session.flush()
            said = reply(20 * before + 1 + place, really, float(rng.gamma(6, 0.8)))
            recording.record(session, query, said)
    return len(members)


def _connect(session: Session, project_id: int, place: int) -> None:
    project = session.get_one(Project, project_id)
    project.dataset_project, project.query_project = 2 * place, 2 * place + 1


def other_project(
    store: Store, folder: Path, name: str, state: RoundState | None, place: int
) -> int:
    """A small project whose last round stands so; its row id."""
    project_id = import_folder(store, folder, name).project_id
    with store.session() as session:
        _connect(session, project_id, place + 1)
        if state is None:
            return project_id
        round_ = Round(
            project_id=project_id, number=1 + place % 3, state=state, answers=0,
            config=round_config(store.settings, {}), done=place, total=20,
            message=f"image {place} of 20", step_began_at=utc_now() - timedelta(minutes=place),
            opened_at=utc_now() if state == RoundState.OPEN else None,
        )  # fmt: skip
        session.add(round_)
        session.flush()
        if state == RoundState.OPEN:
            images = _images(session, project_id)[:place]
            asked = select(Superpixel).where(Superpixel.image_id.in_(images))
            for rank, superpixel in enumerate(session.scalars(asked)):
                session.add(
                    Query(
                        superpixel_id=superpixel.id, round_id=round_.id, rank=rank, score=1.0,
                        row=0, col=0, pseudo_label=1, task_id=10_000 * place + rank,
                    )
                )  # fmt: skip
        if state == RoundState.FAILED:
            round_.error = (
                "the GPU ran out of memory while training; lower ALC_BATCH_SIZE or ALC_INPUT_SIZE "
                "and start the round again"
            )
            round_.warning = "3 tasks that are not asked any more were not closed"
            session.add(
                Arrival(
                    project_id=project_id, dataset_task=17, error="night_017.png is no image",
                    finished_at=utc_now(),
                )
            )  # fmt: skip
    return project_id


def main() -> None:
    """Take the screenshots into the folder that is named."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        take(browser, target)
        browser.close()


if __name__ == "__main__":
    main()
