"""A CVAT of one task, as its published API has it.

There is no CVAT to be had here. What this server answers is read by cvat-sdk's own client, whose
models are made from CVAT's OpenAPI schema and refuse what does not fit; what it is sent is read by
the same models.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cvat_sdk.api_client import models
from cvat_sdk.api_client.configuration import Configuration
from cvat_sdk.api_client.model_utils import validate_and_convert_types

TASK = 7
MOMENT = "2026-01-01T12:00:00.000000Z"
USER = {"url": "http://cvat/api/users/1", "id": 1, "username": "anna"}


class FakeCvat:
    """A task with ``frames``, images by name, and ``labels``; ``sent`` is what was annotated."""

    def __init__(self, frames, labels):
        self.frames, self.labels = frames, labels
        self.sent = []
        self.url = ""

    def answer(self, path):
        """What is at a path, checked by the schema; None where there is nothing."""
        answers = {
            "/api/server/about": (models.About, self._about),
            f"/api/tasks/{TASK}": (models.TaskRead, self._task),
            f"/api/tasks/{TASK}/data/meta": (models.DataMetaRead, self._meta),
            "/api/labels": (models.PaginatedLabelList, self._labels),
        }
        if path not in answers:
            return None
        kind, make = answers[path]
        made = make()
        checked(made, kind)
        return made

    def _about(self):
        return {
            "name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "http://cvat/l",
            "subtitle": "",
        }  # fmt: skip

    def _task(self):
        return {
            "url": f"{self.url}/api/tasks/{TASK}", "id": TASK, "name": "pets", "project_id": None,
            "mode": "annotation", "owner": USER, "assignee": None, "bug_tracker": "",
            "created_date": MOMENT, "updated_date": MOMENT, "overlap": 0,
            "segment_size": len(self.frames), "status": "annotation", "subset": "",
            "size": len(self.frames), "data_chunk_size": len(self.frames),
            "data_compressed_chunk_type": "imageset", "data_original_chunk_type": "imageset",
            "dimension": "2d", "organization": None, "target_storage": None,
            "source_storage": None, "guide_id": None, "assignee_updated_date": None,
            "data_cloud_storage_id": None, "data": 3,
            "jobs": {"count": 1, "completed": 0, "validation": 0, "url": f"{self.url}/api/jobs"},
            "labels": {"url": f"{self.url}/api/labels?task_id={TASK}"}, "media_type": "image",
        }  # fmt: skip

    def _labels(self):
        listed = [
            {"id": 100 + number, "name": name, "color": "#aabbcc", "attributes": [], "type": "any",
             "sublabels": [], "has_parent": False, "task_id": TASK, "parent_id": None}
            for number, name in enumerate(self.labels)
        ]  # fmt: skip
        return {"count": len(listed), "next": None, "previous": None, "results": listed}

    def _meta(self):
        return {
            "chunk_size": len(self.frames), "size": len(self.frames), "image_quality": 70,
            "start_frame": 0, "stop_frame": len(self.frames) - 1, "frame_filter": "",
            "frames": [
                {"width": image.width, "height": image.height, "name": name, "related_files": 0}
                for name, image in self.frames.items()
            ],
            "deleted_frames": [], "included_frames": None, "chunks_updated_date": MOMENT,
            "cloud_storage_id": None, "storage": "local",
        }  # fmt: skip

    def chunk(self):
        """The images of the task as one archive, as CVAT sends them."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for number, image in enumerate(self.frames.values()):
                frame = io.BytesIO()
                image.save(frame, "PNG")
                archive.writestr(f"{number:06}.png", frame.getvalue())
        return content.getvalue()

    def take(self, method, body):
        """Annotations that were sent; TypeError or ValueError where the schema has no such."""
        kind = models.LabeledDataRequest if method == "PUT" else models.PatchedLabeledDataRequest
        self.sent.append((method, checked(body, kind)))


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
            path = urlsplit(self.path).path.rstrip("/")
            if path == f"/api/tasks/{TASK}/data":
                self._send(200, cvat.chunk(), "application/zip")
                return
            found = cvat.answer(path)
            if found is None:
                self._send(404, b'{"detail": "not found"}')
            else:
                self._send(200, json.dumps(found).encode())

        def do_PATCH(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                cvat.take(self.command, body)
            except Exception as error:
                self._send(400, json.dumps({"detail": str(error)}).encode())
            else:
                answer = {"version": 0, "tags": [], "shapes": [], "tracks": []}
                self._send(200, json.dumps(answer).encode())

        do_PUT = do_PATCH

        def _send(self, status, content, kind="application/vnd.cvat+json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cvat.url = f"http://127.0.0.1:{server.server_port}"
        yield cvat
        server.shutdown()
