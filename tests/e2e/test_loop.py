"""The whole loop with a real Label Studio, a real Redis, a real backend and a real worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.cli.demo.labeler import answer_queries
from alc_backend.labelstudio.projects import connect_backend
from alc_backend.labelstudio.regions import painted
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.rounds.status import latest_round
from alc_backend.store import ledger
from alc_backend.store.kinds import EntryKind
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Superpixel
from alc_backend.store.round_states import RUNNING, RoundState
from tests.conftest import wait_for
from tests.docs.blocks import ROOT, shell_blocks
from tests.e2e.demonstration import IMAGES, alc, retrieve_predictions, wait_open

pytestmark = [pytest.mark.ls, pytest.mark.slow]


def queue_in_label_studio(demo) -> dict[tuple[str, int], float]:
    """The open queries by what they ask about → score of the prediction in force."""
    version = demo.client.get(f"/api/projects/{demo.query_project}")["model_version"]
    queue = {}
    for task in demo.client.tasks(demo.query_project):
        about = task["data"]["alc"]
        in_force = [p for p in task["predictions"] if p["model_version"] == version]
        if not task["annotations"]:
            assert len(in_force) == 1
            queue[about["image"], about["superpixel"]] = in_force[0]["score"]
    return queue


def queue_in_store(demo) -> list[tuple[str, int]]:
    """The open queries of the store in descending SIM."""
    with demo.store.reading() as session:
        settled = ledger.judgement(session, demo.project_id).settled
        rows = session.execute(
            select(Query.superpixel_id, Query.score, Image.key, Superpixel.number)
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
        ).all()
    open_ = [row for row in rows if row.superpixel_id not in settled]
    return [
        (row.key, row.number)
        for row in sorted(open_, key=lambda row: (-row.score, row.key, row.number))
    ]


def annotations_in_label_studio(demo) -> dict[int, str]:
    """Annotation id → the class chosen in it."""
    found = {}
    for task in demo.client.tasks(demo.query_project):
        for annotation in task["annotations"]:
            chosen = [r for r in annotation["result"] if r["from_name"] == "label"]
            found[annotation["id"]] = chosen[0]["value"]["choices"][0]
    return found


def ledger_entries(demo) -> dict[int, str]:
    wait_for(lambda: not webhooks.waiting(demo.store))
    with demo.store.reading() as session:
        entries = session.scalars(select(LedgerEntry)).all()
        classes = session.get_one(Project, demo.project_id).classes
    assert max(Counter(entry.annotation_id for entry in entries).values()) == 1
    return {entry.annotation_id: classes[entry.class_id] for entry in entries}


def answer_some(demo, count: int) -> list[float]:
    """Let the oracle answer; returns the prediction scores in the order of serving."""
    served: list[float] = []
    given = answer_queries(
        demo.store,
        demo.client,
        demo.project_id,
        count,
        on_answer=lambda given: served.append(given.score),
    )
    assert given == count
    return served


def kill_worker_in_training(demo, processes) -> None:
    """SIGKILL the worker once the running round has trained a few iterations."""
    backend = psutil.Process(processes.pid_of("backend"))

    def has_trained() -> bool:
        round_ = latest_round(demo.store, demo.project_id)
        assert round_.state in RUNNING
        return round_.state == RoundState.TRAINING and round_.done > demo.settings.checkpoint_every

    wait_for(has_trained)
    worker = next(p for p in backend.children() if "worker" in p.cmdline())
    os.kill(worker.pid, signal.SIGKILL)


def test_two_rounds(running, tmp_path):
    demo, processes = running
    with demo.store.reading() as session:
        total = len(session.scalars(select(Superpixel)).all())
    share = total // 8
    batch = share + 12  # a few stay open for the next round

    # Three presses of the button start one round.
    said = [alc(demo, "round", "start", "--size", str(batch)) for _ in range(3)]
    assert "round 1 started" in said[0]
    assert all("running already" in text for text in said[1:])
    first = wait_open(demo, processes)
    assert (first.number, first.answers) == (1, 0)

    # Label Studio's queue is the store's, best SIM first.
    queue = queue_in_label_studio(demo)
    assert sorted(queue, key=queue.__getitem__) == queue_in_store(demo)
    assert len(queue) == batch

    # It is served in that order, and every answer is in the ledger exactly once.
    served = answer_some(demo, share)
    assert served == sorted(served)
    assert len(set(served)) == len(served)
    assert ledger_entries(demo) == annotations_in_label_studio(demo)
    repeated = reconcile(demo.store, demo.client, demo.project_id, full=True)
    assert repeated == {Outcome.KNOWN: share}
    order_before = queue_in_store(demo)

    # Start Training in Label Studio starts the next round; the worker is killed on the way.
    backends = demo.client.get("/api/ml", project=demo.query_project)
    for _ in range(3):
        demo.client.post(f"/api/ml/{backends[0]['id']}/train", {})
    kill_worker_in_training(demo, processes)
    answered_meanwhile = answer_some(demo, 1)
    assert len(answered_meanwhile) == 1
    second = wait_open(demo, processes)
    assert second.number == 2
    assert second.answers == share
    assert len(ledger_entries(demo)) == share + 1
    assert ledger_entries(demo) == annotations_in_label_studio(demo)

    # The queries that were left got a new order.
    queue = queue_in_label_studio(demo)
    order_after = sorted(queue, key=queue.__getitem__)
    assert order_after == queue_in_store(demo)
    left = [item for item in order_before if item in queue]
    assert len(left) == batch - share - 1
    assert [item for item in order_after if item in left] != left

    # A query task that somebody deletes is made again when it is asked again.
    with demo.store.reading() as session:
        best = select(Query).where(Query.round_id == second.id, Query.rank == 0)
        gone = session.scalars(best).one()
    demo.client.delete(f"/api/tasks/{gone.task_id}/")

    # 25 % of the superpixels answered: the label maps are better by 0.10 and more.
    served = answer_some(demo, total // 4 - len(ledger_entries(demo)))
    assert served == sorted(served)
    alc(demo, "round", "start", "--size", str(batch))
    third = wait_open(demo, processes)
    with demo.store.reading() as session:
        again = session.get_one(Query, gone.id)
    assert again.round_id == third.id
    assert again.task_id not in (None, gone.task_id)
    assert third.data_miou >= first.data_miou + 0.10
    assert first.data_miou < second.data_miou < third.data_miou
    assert 0 < third.model_miou < 1
    status = json.loads(alc(demo, "round", "status", "--json"))["rounds"]
    assert [entry["state"] for entry in status] == ["closed", "closed", "open"]

    # The export is what the ledger says, image by image.
    out = tmp_path / "export"
    assert f"{IMAGES} label maps" in alc(demo, "export", str(out))
    assert_export_is_the_replay(demo, out)


def assert_export_is_the_replay(demo, folder: Path) -> None:
    """Compare exported PNGs with the initial maps corrected here, answer by answer."""
    files = demo.store.files(demo.project_id)
    with demo.store.reading() as session:
        images = session.scalars(select(Image).where(Image.split == "train")).all()
        corrections = session.execute(
            select(Superpixel.image_id, Superpixel.number, LedgerEntry.class_id)
            .join(LedgerEntry, LedgerEntry.superpixel_id == Superpixel.id)
            .order_by(LedgerEntry.answered_at)
        ).all()
        classes = session.get_one(Project, demo.project_id).classes
    assert (folder / "classes.txt").read_text().split() == classes
    changed = 0
    for image in images:
        initial = files.read_label_map("initial", image.id)
        expected = initial.copy()
        for image_id, number, class_id in corrections:
            if image_id == image.id:
                expected[files.read_superpixels(image.id) == number] = class_id
        exported = np.asarray(Picture.open(folder / "labels" / f"{image.key}.png"))
        assert np.array_equal(exported, expected)
        changed += not np.array_equal(expected, initial)
    assert changed > IMAGES / 3


def test_lost_webhooks_are_repaired_and_deletions_followed(running):
    """Runs after the two rounds: an answer without webhook, then its deletion."""
    demo, _ = running
    project = demo.query_project
    hook = demo.client.get("/api/webhooks/", project=project)[0]
    path = f"/api/webhooks/{hook['id']}/"
    before = len(ledger_entries(demo))

    demo.client.patch(path, {"url": hook["url"], "is_active": False})
    task = demo.client.get(f"/api/projects/{project}/next")
    prediction = task["predictions"][0]["result"]
    result = annotation_result(prediction, task["data"]["choices"][1]["value"])
    made = demo.client.post(f"/api/tasks/{task['id']}/annotations/", {"result": result})
    assert len(ledger_entries(demo)) == before
    assert "1 recorded" in alc(demo, "reconcile")
    assert made["id"] in ledger_entries(demo)

    secret = demo.settings.secret.get_secret_value()
    connect_backend(demo.client, project, demo.settings.backend, secret)  # repairs the webhook
    demo.client.delete(f"/api/annotations/{made['id']}/")
    wait_for(lambda: made["id"] in withdrawn(demo))
    with demo.store.reading() as session:
        kinds = session.scalars(
            select(LedgerEntry.kind)
            .where(LedgerEntry.annotation_id == made["id"])
            .order_by(LedgerEntry.id)
        ).all()
    assert kinds == [EntryKind.CORRECT, EntryKind.DELETED]


def withdrawn(demo) -> set[int]:
    with demo.store.reading() as session:
        gone = select(LedgerEntry.annotation_id).where(LedgerEntry.kind == EntryKind.DELETED)
        return set(session.scalars(gone))


def test_the_dataset_project_shows_the_present_masks(running):
    """ "Retrieve predictions" on dataset tasks brings the replayed label map as brush regions."""
    demo, _ = running
    files = demo.store.files(demo.project_id)
    with demo.store.reading() as session:
        project = session.get_one(Project, demo.project_id)
        maps = LabelMaps(session, files, demo.project_id)
        image = session.scalars(
            select(Image).where(Image.dataset_task.is_not(None)).order_by(Image.key)
        ).first()
    retrieve_predictions(demo, project.dataset_project, image.dataset_task)
    task = demo.client.get(f"/api/tasks/{image.dataset_task}/")
    own = files.read_superpixels(image.id)
    result = task["predictions"][-1]["result"]
    labels, superpixels = painted(result, project.classes, own.shape)
    assert np.array_equal(labels[own > 0], maps.read(image.id)[own > 0])
    assert np.array_equal(superpixels > 0, own > 0)


def test_the_quick_start(running, tmp_path):
    """Its commands as they stand, after `make demo`, which is what runs."""
    demo, _ = running
    installed = [block for block in shell_blocks(ROOT / "docs/quickstart.md") if "make" in block]
    told = [block for block in shell_blocks(ROOT / "docs/quickstart.md") if "make" not in block]
    assert len(installed) == 2
    assert len(told) == 2
    (tmp_path / "alc-data").mkdir()
    (tmp_path / "alc-data/demo").symlink_to(demo.settings.data_dir)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    before = latest_round(demo.store, demo.project_id).number
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(told)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest_round(demo.store, demo.project_id).number == before + 1
    assert "0 problems" in done.stdout
    assert f"{IMAGES} label maps" in done.stdout


def test_an_existing_dataset_project_is_taken_over(running):
    """`alc init --from-project` on a project somebody else made, one task with a mask."""
    demo, _ = running
    with demo.store.reading() as session:
        first = session.get_one(Project, demo.project_id)
        image = session.scalars(select(Image).where(Image.split == "train")).first()
    url = demo.client.get(f"/api/tasks/{image.dataset_task}/")["data"]["image"]
    config = (
        '<View><Image name="photo" value="$photo"/><BrushLabels name="mask" toName="photo">'
        '<Label value="horse"/><Label value="background"/></BrushLabels></View>'
    )
    classes = ["horse", "background"]
    superpixels = np.zeros((image.height, image.width), dtype=np.int32)
    superpixels[20:60, 30:90] = 1
    mask = mask_regions(
        np.zeros(superpixels.shape, dtype=np.uint8),
        superpixels,
        classes,
        from_name="mask",
        to_name="photo",
    )
    theirs = demo.client.post("/api/projects/", {"title": "Farm", "label_config": config})["id"]
    path = f"/api/projects/{theirs}/import"
    demo.client.post(
        path,
        [{"data": {"photo": url}, "predictions": [{"result": mask}]}, {"data": {"photo": url}}],
    )
    said = " ".join(alc(demo, "init", "--from-project", str(theirs)).split())
    assert "2 new images, 0 already there" in said
    assert "2 images with" in said
    again = " ".join(alc(demo, "init", "--from-project", str(theirs)).split())
    assert "0 new images, 2 already there" in again
    with demo.store.reading() as session:
        taken = session.scalars(select(Project).where(Project.dataset_project == theirs)).one()
    assert taken.classes == classes
    assert taken.query_project not in (None, first.query_project)
    connected = demo.client.get("/api/ml", project=theirs)
    assert [entry["url"] for entry in connected] == [demo.settings.backend]
    files = demo.store.files(taken.id)
    with_mask, without = demo.store.images(taken.id, "train")
    assert np.array_equal(files.read_superpixels(with_mask.id), superpixels)
    expected = np.where(superpixels == 1, 0, 1)
    assert np.array_equal(files.read_label_map("initial", with_mask.id), expected)
    assert (files.read_label_map("initial", without.id) == 1).all()
    assert files.read_superpixels(without.id).min() == 1

    # An image added later comes in as soon as Label Studio asks about it.
    demo.client.post(path, [{"data": {"photo": url}}])
    new = max(task["id"] for task in demo.client.tasks(theirs, fields="task_only"))
    retrieve_predictions(demo, theirs, new)
    wait_for(lambda: len(demo.store.images(taken.id, "train")) == 3)
