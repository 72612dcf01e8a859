"""A CVAT, as far as this backend calls it, as its published API has it.

There is no CVAT to be had here. What this server answers is read by cvat-sdk's own client, whose
models are made from CVAT's OpenAPI schema and refuse what does not fit; what it is sent is read by
the same models. Answers are checked by them before they are sent, too.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePath
from urllib.parse import parse_qsl, urlsplit

from cvat_sdk.api_client import models
from cvat_sdk.api_client.configuration import Configuration
from cvat_sdk.api_client.model_utils import validate_and_convert_types
from PIL import Image as Picture

from alc_backend.cvat.shapes import shapes_of
from alc_backend.cvat.signature import HEADER, sign

TASK = 7
"""The task that is there from the beginning."""

FIRST_LABEL = 100
"""The id of its first label."""

TOKEN, PASSWORD = "t0ken", "p4ss"
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
ANNA = {"url": "http://cvat/api/users/1", "id": 1, "username": "anna"}


@dataclass
class Task:
    """A task: the files of its frames by name, its annotations, and the frames of each job."""

    number: int
    name: str
    project: int | None = None
    per_job: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    tags: list[dict] = field(default_factory=list)
    shapes: list[dict] = field(default_factory=list)
    jobs: list[int] = field(default_factory=list)
    length: int | None = None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [Picture.open(io.BytesIO(content)).size for content in self.files.values()]


@dataclass
class Job:
    number: int
    task: Task
    first: int
    last: int
    state: str = "new"
    assignee: dict | None = None
    updated: datetime = NOON


class FakeCvat:
    """A server with one task, of ``frames``, images by name, and ``labels``.

    ``sent`` is what was annotated, ``delivered`` what webhooks sent: address, body and headers.
    ``is_away`` lets it answer everything with 503, ``says`` with these bytes. ``import_state`` is
    how far it is with the images of a task.
    """

    def __init__(self, frames, labels):
        self.url, self.sent, self.delivered, self.is_away = "", [], [], False
        self._away_at: tuple[str, int] | None = None
        self._refusal, self.says = 503, None
        self.import_state = "finished"
        self.tasks: dict[int, Task] = {}
        self.jobs: dict[int, Job] = {}
        self.projects: dict[int, str] = {}
        self.webhooks: dict[int, dict] = {}
        self.labels: list[dict] = []
        self._last, self._moment = 1000, NOON
        files = {name: _png(image) for name, image in frames.items()}
        self.tasks[TASK] = Task(TASK, "pets", per_job=len(frames), files=files)
        self._cut(self.tasks[TASK])
        for place, name in enumerate(labels):
            self._add_label(name, "any", FIRST_LABEL + place, task_id=TASK)

    # What tests do.

    def move_to_project(self, task, name):
        """Move a task with its labels into a new project; returns that."""
        number = self._number()
        self.projects[number], self.tasks[task].project = name, number
        for label in self.labels:
            if label["task_id"] == task:
                label["task_id"], label["project_id"] = None, number
        return number

    def add_task(self, name, project, frames, length=None):
        """Another task, of a video where it is longer than its frames."""
        number = self._number()
        files = {name: _png(image) for name, image in frames.items()}
        self.tasks[number] = Task(number, name, project, len(files), files, length=length)
        self._cut(self.tasks[number])

    def add_frame(self, task, name, image):
        """A frame that came later, at the end of the last job."""
        self.tasks[task].files[name] = _png(image)
        self.jobs[self.tasks[task].jobs[-1]].last += 1

    def draw(self, task, frame, label_map, superpixels, classes, labels):
        """Draw a label map into a frame, as somebody who came before did."""
        for shape in shapes_of(label_map, superpixels, frame, classes, labels):
            self._add(self.tasks[task], None, self.tasks[task].shapes, "shapes", shape)

    def away_at(self, where, after=0, status=503):
        """Be away for requests like "GET /jobs/{}", all but the first ``after``; None: no more."""
        self._away_at, self._refusal = where and (where.replace("{}", r"\d+"), after), status

    def _goes_away(self, request):
        if self._away_at is None or not re.fullmatch(self._away_at[0], request):
            return False
        where, left = self._away_at
        self._away_at = where, left - 1
        return left <= 0

    @property
    def questions_project(self):
        """The last project that was made."""
        return max(self.projects)

    def add_label(self, name, project):
        """A tag that somebody adds to a project."""
        self._add_label(name, "tag", self._number(), project_id=project)

    def questions(self):
        """The tasks of projects with questions, the oldest first."""
        return [task for task in self.tasks.values() if task.number != TASK and task.jobs]

    # What it answers. A request is a method, a path without /api, a query, and a body.

    def answer(self, method, path, query, body, headers):
        """The status and the content of an answer, JSON or bytes."""
        if path not in ("/server/about", "/auth/login") and not _is_signed_in(headers):
            return 401, {"detail": "sign in"}
        if self.says is not None:
            return 200, self.says
        if self.is_away or self._goes_away(f"{method} {path}"):
            return self._refusal, {"detail": "away"}
        for (known, pattern), act in self._routes().items():
            found = re.fullmatch(pattern, path)
            if known == method and found:
                try:
                    return act(*(int(part) for part in found.groups()), query, body, headers)
                except _Missing:
                    break
                except Exception as error:
                    return 400, {"detail": str(error)}
        return 404, {"detail": "not found"}

    def _routes(self):
        return {
            ("GET", "/server/about"): self._about,
            ("POST", "/auth/login"): self._sign_in,
            ("GET", r"/projects/(\d+)"): lambda n, *_: self._ok(
                models.ProjectRead, self._project(n)
            ),
            ("POST", "/projects"): self._create_project,
            ("GET", "/tasks"): self._list_tasks,
            ("POST", "/tasks"): self._create_task,
            ("GET", r"/tasks/(\d+)"): lambda n, *_: self._ok(models.TaskRead, self._task(n)),
            ("DELETE", r"/tasks/(\d+)"): self._delete_task,
            ("POST", r"/tasks/(\d+)/data"): self._take_data,
            ("GET", r"/tasks/(\d+)/data"): self._data,
            ("GET", r"/tasks/(\d+)/data/meta"): self._meta,
            ("GET", r"/tasks/(\d+)/annotations"): lambda n, *_: self._annotations(self._of(n)),
            ("PATCH", r"/tasks/(\d+)/annotations"): lambda n, *rest: self._annotate(
                self._of(n), None, *rest
            ),
            ("PUT", r"/tasks/(\d+)/annotations"): lambda n, *rest: self._replace(
                self._of(n), *rest
            ),
            ("GET", "/jobs"): self._list_jobs,
            ("GET", r"/jobs/(\d+)"): lambda n, *_: self._ok(models.JobRead, self._job(n)),
            ("PATCH", r"/jobs/(\d+)"): self._change_job,
            ("GET", r"/jobs/(\d+)/annotations"): lambda n, *_: self._annotations(
                self._job_of(n).task, self._job_of(n)
            ),
            ("PATCH", r"/jobs/(\d+)/annotations"): lambda n, *rest: self._annotate(
                self._job_of(n).task, self._job_of(n), *rest
            ),
            ("GET", "/labels"): self._list_labels,
            ("GET", r"/requests/r(\d+)"): self._request,
            ("GET", "/webhooks"): self._list_webhooks,
            ("POST", "/webhooks"): self._create_webhook,
            ("PATCH", r"/webhooks/(\d+)"): self._change_webhook,
        }

    def _about(self, *_):
        return self._ok(
            models.About,
            {
                "name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "http://cvat/l",
                "subtitle": "",
            },
        )  # fmt: skip

    def _sign_in(self, query, body, headers):
        asked = checked(body, models.LoginSerializerExRequest)
        known = (asked.username, asked.password) == ("anna", PASSWORD)
        return (200, {"key": "k"}) if known else (400, {"detail": "wrong password"})

    # Projects and labels.

    def _create_project(self, query, body, headers):
        asked = checked(body, models.ProjectWriteRequest)
        number = self._number()
        self.projects[number] = asked.name
        for label in body["labels"]:
            checked(label, models.PatchedLabelRequest)
            self._add_label(label["name"], label["type"], self._number(), project_id=number)
        return self._ok(models.ProjectRead, self._project(number), 201)

    def _project(self, number):
        if number not in self.projects:
            raise _Missing
        return {
            "tasks": {"count": 1, "url": f"{self.url}/api/tasks"},
            "labels": {"url": f"{self.url}/api/labels?project_id={number}"},
            "url": f"{self.url}/api/projects/{number}", "id": number,
            "name": self.projects[number], "owner": ANNA, "assignee": None, "guide_id": None,
            "bug_tracker": "", "task_subsets": [], "created_date": _at(NOON),
            "updated_date": _at(NOON), "status": "annotation", "dimension": "2d",
            "organization": None, "organization_id": None, "target_storage": None,
            "source_storage": None, "assignee_updated_date": None,
        }  # fmt: skip

    def _add_label(self, name, kind, number, *, task_id=None, project_id=None):
        self.labels.append(
            {"id": number, "name": name, "color": "#aabbcc", "attributes": [], "type": kind,
             "sublabels": [], "has_parent": False, "task_id": task_id, "project_id": project_id,
             "parent_id": None}
        )  # fmt: skip

    def _list_labels(self, query, body, headers):
        if "task_id" in query:
            task = self._of(int(query["task_id"]))
            of = ("task_id", task.number) if task.project is None else ("project_id", task.project)
        else:
            of = ("project_id", int(query["project_id"]))
        found = [
            {name: value for name, value in label.items() if value is not None}
            for label in self.labels
            if label[of[0]] == of[1]
        ]
        return self._listed(
            models.PaginatedLabelList, [{**one, "parent_id": None} for one in found]
        )

    # Tasks and their images.

    def _of(self, number) -> Task:
        if number not in self.tasks:
            raise _Missing
        return self.tasks[number]

    def _create_task(self, query, body, headers):
        asked = checked(body, models.TaskWriteRequest)
        number = self._number()
        self.tasks[number] = Task(number, asked.name, asked.project_id, asked.segment_size)
        return self._ok(models.TaskRead, self._task(number), 201)

    def _list_tasks(self, query, body, headers):
        mine = [
            self._task(number)
            for number, task in self.tasks.items()
            if "project_id" not in query or task.project == int(query["project_id"])
        ]
        return self._listed(models.PaginatedTaskReadList, mine)

    def _task(self, number):
        task = self._of(number)
        return {
            "url": f"{self.url}/api/tasks/{number}", "id": number, "name": task.name,
            "project_id": task.project, "mode": "annotation", "owner": ANNA, "assignee": None,
            "bug_tracker": "", "created_date": _at(NOON), "updated_date": _at(NOON), "overlap": 0,
            "segment_size": task.per_job, "status": "annotation", "subset": "",
            "size": len(task.files) if task.jobs else 0, "data_chunk_size": len(task.files),
            "data_compressed_chunk_type": "imageset", "data_original_chunk_type": "imageset",
            "dimension": "2d", "organization": None, "target_storage": None,
            "source_storage": None, "guide_id": None, "assignee_updated_date": None,
            "data_cloud_storage_id": None, "data": 3,
            "jobs": {"count": len(task.jobs), "completed": 0, "validation": 0,
                     "url": f"{self.url}/api/jobs"},
            "labels": {"url": f"{self.url}/api/labels?task_id={number}"}, "media_type": "image",
        }  # fmt: skip

    def _delete_task(self, number, query, body, headers):
        for job in self._of(number).jobs:
            del self.jobs[job]
        del self.tasks[number]
        return 204, b""

    def _take_data(self, number, query, body, headers):
        """The upload in three steps: begin, the files, and the end with the options."""
        task = self._of(number)
        if "Upload-Multiple" in headers:
            boundary = headers["Content-Type"].partition("boundary=")[2].encode()
            for part in body.split(b"--" + boundary):
                about, _, content = part.partition(b"\r\n\r\n")
                if name := re.search(rb'filename="([^"]*)"', about):
                    task.files[PurePath(name[1].decode()).name] = content.removesuffix(b"\r\n")
            return 200, {}
        if "Upload-Finish" not in headers:
            return 202, {}
        task.files = dict(sorted(task.files.items()))
        self._cut(task)
        return self._ok(models.RqId, {"rq_id": f"r{number}"}, 202)

    def _request(self, number, query, body, headers):
        return self._ok(
            models.Request,
            {
                "status": self.import_state, "id": f"r{number}",
                "operation": {"type": "create:task", "target": "task", "task_id": number},
                "created_date": _at(NOON), "message": "", "owner": {"id": 1, "username": "anna"},
            },
        )  # fmt: skip

    def _cut(self, task):
        """Cut the frames of a task into jobs."""
        for first in range(0, len(task.files), task.per_job):
            number = self._number()
            last = min(first + task.per_job, len(task.files)) - 1
            self.jobs[number] = Job(number, task, first, last)
            task.jobs.append(number)

    def _meta(self, number, query, body, headers):
        task = self._of(number)
        frames = [
            {"width": width, "height": height, "name": name, "related_files": 0}
            for name, (width, height) in zip(task.files, task.sizes, strict=True)
        ]
        return self._ok(
            models.DataMetaRead,
            {
                "chunk_size": len(frames), "size": task.length or len(frames), "image_quality": 70,
                "start_frame": 0, "stop_frame": len(frames) - 1, "frame_filter": "",
                "frames": frames, "deleted_frames": [], "included_frames": None,
                "chunks_updated_date": _at(NOON), "cloud_storage_id": None, "storage": "local",
            },
        )  # fmt: skip

    def _data(self, number, query, body, headers):
        """A frame's file, or all of them as one archive."""
        files = list(self._of(number).files.values())
        if query["type"] == "frame":
            return 200, files[int(query["number"])]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for place, file in enumerate(files):
                archive.writestr(f"{place:06}.png", file)
        return 200, content.getvalue()

    # Annotations.

    def _annotations(self, task, job=None):
        first, last = (0, len(task.files)) if job is None else (job.first, job.last)
        here = [
            [item for item in kind if first <= item["frame"] <= last]
            for kind in (task.tags, task.shapes)
        ]
        found = {"version": 0, "tags": here[0], "shapes": here[1], "tracks": []}
        return self._ok(models.LabeledData, found)

    def _annotate(self, task, job, query, body, headers):
        asked = checked(body, models.PatchedLabeledDataRequest)
        self.sent.append(("PATCH", asked))
        for kind, there in (("tags", task.tags), ("shapes", task.shapes)):
            for item in body.get(kind, ()):
                if query["action"] == "delete":
                    there[:] = [one for one in there if one["id"] != item["id"]]
                else:
                    self._add(task, job, there, kind, item)
        self._touch(*([job] if job else [self.jobs[number] for number in task.jobs]))
        return self._annotations(task, job)

    def _replace(self, task, query, body, headers):
        self.sent.append(("PUT", checked(body, models.LabeledDataRequest)))
        task.tags, task.shapes = [], []
        for kind, there in (("tags", task.tags), ("shapes", task.shapes)):
            for item in body.get(kind, ()):
                self._add(task, None, there, kind, item)
        return self._annotations(task)

    def _add(self, task, job, there, kind, item):
        known = [label["id"] for label in self.labels]
        first, last = (0, len(task.files) - 1) if job is None else (job.first, job.last)
        if item["label_id"] not in known or not first <= item["frame"] <= last:
            raise ValueError(f"there is no such label or frame: {item}")
        made = {"group": 0, "attributes": [], "source": "manual", **item, "id": self._number()}
        if kind == "shapes":
            made = {"occluded": False, "outside": False, "z_order": 0, "rotation": 0.0, **made}
        there.append(made)

    # Jobs and webhooks.

    def _job_of(self, number) -> Job:
        if number not in self.jobs:
            raise _Missing
        return self.jobs[number]

    def _job(self, number):
        job = self._job_of(number)
        return {
            "issues": {"count": 0, "url": f"{self.url}/api/issues"},
            "labels": {"url": f"{self.url}/api/labels?job_id={number}"},
            "url": f"{self.url}/api/jobs/{number}", "id": number, "task_id": job.task.number,
            "project_id": job.task.project, "assignee": job.assignee, "guide_id": None,
            "dimension": "2d", "mode": "annotation", "media_type": "image", "bug_tracker": None,
            "status": "annotation", "stage": "annotation", "state": job.state,
            "frame_count": job.last - job.first + 1, "start_frame": job.first,
            "stop_frame": job.last, "data_chunk_size": 10,
            "data_compressed_chunk_type": "imageset", "data_original_chunk_type": "imageset",
            "created_date": _at(NOON), "updated_date": _at(job.updated), "type": "annotation",
            "organization": None, "target_storage": None, "source_storage": None,
            "assignee_updated_date": None, "parent_job_id": None, "replicas_count": 0,
        }  # fmt: skip

    def _list_jobs(self, query, body, headers):
        task = int(query["task_id"])
        mine = [self._job(number) for number, job in self.jobs.items() if job.task.number == task]
        return self._listed(models.PaginatedJobReadList, mine)

    def _change_job(self, number, query, body, headers):
        checked(body, models.PatchedJobWriteRequest)
        job = self._job_of(number)
        before = {"state": job.state}
        job.state = body.get("state", job.state)
        if "assignee" in body:
            job.assignee = ANNA
        self._touch(job)
        for hook in self.webhooks.values():
            if hook["project_id"] == job.task.project:
                self._deliver(hook, {"event": "update:job", "job": self._job(number),
                                     "before_update": before})  # fmt: skip
        return self._ok(models.JobRead, self._job(number))

    def _deliver(self, hook, payload):
        body = json.dumps({**payload, "webhook_id": hook["id"], "sender": ANNA}).encode()
        headers = {"Content-Type": "application/json", HEADER: sign(body, hook["secret"])}
        self.delivered.append((hook["target_url"], body, headers))

    def _touch(self, *jobs):
        self._moment += timedelta(seconds=1)
        for job in jobs:
            job.updated = self._moment

    def _list_webhooks(self, query, body, headers):
        mine = [
            self._webhook(hook)
            for hook in self.webhooks.values()
            if hook["project_id"] == int(query["project_id"])
        ]
        return self._listed(models.PaginatedWebhookReadList, mine)

    def _create_webhook(self, query, body, headers):
        checked(body, models.WebhookWriteRequest)
        number = self._number()
        self.webhooks[number] = {**body, "id": number}
        return self._ok(models.WebhookRead, self._webhook(self.webhooks[number]), 201)

    def _change_webhook(self, number, query, body, headers):
        checked(body, models.PatchedWebhookWriteRequest)
        self.webhooks[number].update(body)
        return self._ok(models.WebhookRead, self._webhook(self.webhooks[number]))

    def _webhook(self, hook):
        return {
            "id": hook["id"], "url": f"{self.url}/api/webhooks/{hook['id']}",
            "target_url": hook["target_url"], "type": hook["type"], "description": "",
            "content_type": hook["content_type"], "is_active": True, "enable_ssl": True,
            "created_date": _at(NOON), "updated_date": _at(NOON), "owner": ANNA,
            "project_id": hook["project_id"], "organization": None, "events": hook["events"],
        }  # fmt: skip

    # What all of them share.

    def _number(self):
        self._last += 1
        return self._last

    def _ok(self, kind, content, status=200):
        checked(content, kind)
        return status, content

    def _listed(self, kind, items):
        page = {"count": len(items), "next": None, "previous": None, "results": items}
        return self._ok(kind, page)


class _Missing(Exception):
    """There is nothing of this number."""


def _is_signed_in(headers):
    cookies = headers.get("Cookie", "")
    return headers.get("Authorization") == f"Bearer {TOKEN}" or "sessionid=s" in cookies


def _png(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _at(moment):
    return moment.isoformat().replace("+00:00", "Z")


def checked(value, kind):
    """A value as a model of the schema; raises where it does not fit, or has a field too many."""
    extra = set(value) - set(kind.attribute_map.values())
    if extra:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(extra))}")
    return validate_and_convert_types(value, (kind,), ["value"], True, True, Configuration())


@contextmanager
def serve(cvat):
    """Let a CVAT answer on this machine."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            address = urlsplit(self.path)
            path = address.path.rstrip("/").removeprefix("/api")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if body and self.headers["Content-Type"].partition(";")[0].endswith("json"):
                body = json.loads(body)
            query = dict(parse_qsl(address.query))
            status, content = cvat.answer(self.command, path, query, body, self.headers)
            kind = "application/octet-stream"
            if not isinstance(content, bytes):
                kind, content = "application/vnd.cvat+json", json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if path == "/auth/login" and status == 200:
                for cookie in ("sessionid=s", "csrftoken=c"):
                    self.send_header("Set-Cookie", f"{cookie}; Path=/")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cvat.url = f"http://127.0.0.1:{server.server_port}"
        yield cvat
        server.shutdown()
