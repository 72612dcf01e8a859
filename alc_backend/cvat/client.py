"""CVAT as this backend calls it, by cvat-sdk.

Every method raises CvatAwayError while CVAT does not answer or is overloaded, and CvatError for
what it refuses. Labels, tags and shapes are told as plain values: nothing of cvat-sdk's leaves this
module.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_backend.common.types import Json
from alc_backend.cvat.signing_in import TIMEOUT_S, check_address, credentials_of, sign_in
from alc_backend.errors import CvatAwayError, CvatError, SettingsError
from alc_backend.settings import Settings

if TYPE_CHECKING:
    from cvat_sdk import Client

log = logging.getLogger(__name__)

MADE_IN_S = 3600.0
"""How long CVAT may take to make a task of images that it has received."""

CHECK_EVERY_S = 1.0
"""How often CVAT is asked whether it is done with the images of a task."""

QUALITY = 90
"""JPEG quality of what CVAT shows of a task's images."""

COMPLETED = "completed"
"""The state of a job that its annotator has finished."""

UPDATE_JOB = "update:job"
"""The event of a job that changed."""

_AWAY = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


_MISUNDERSTOOD = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What cvat-sdk raises, too, where an answer is not what it expects."""


@dataclass(frozen=True)
class Frame:
    """A frame of a task: its ``number`` from 0, its file's name, and its size in pixels."""

    number: int
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Job:
    """A job: its frames ``first`` to ``last``, ``state``, who has it, and when it last changed.

    ``annotator`` is the name of its user, None while nobody has it.
    """

    number: int
    first: int
    last: int
    state: str
    annotator: str | None
    updated_at: datetime


@dataclass(frozen=True)
class Tag:
    """A tag of a frame; the numbers of tags grow as they are made."""

    number: int
    frame: int
    label: int


class Cvat:
    """A CVAT server; a context manager, which one thread uses.

    ``before_change`` is called before everything that changes something there.
    """

    def __init__(self, client: Client) -> None:
        self._client, self._api = client, client.api_client
        self.before_change: Callable[[], object] = lambda: None

    @classmethod
    def from_settings(cls, settings: Settings) -> Cvat:
        """The server that the settings name, signed in.

        Raises SettingsError where they name none, or cvat-sdk is not installed.
        """
        url = settings.cvat_url
        if url is None:
            raise SettingsError("CVAT_URL is not set; give the address of CVAT")
        try:
            from cvat_sdk import Client
        except ImportError as error:
            raise SettingsError(
                f"cvat-sdk cannot be used ({error}); run `pip install 'alc-backend[cvat]'` with "
                "Python 3.11 or later"
            ) from error
        check_address(url)
        credentials = credentials_of(settings)
        with _errors(f"{url}: signing in"):
            client = Client(url, logger=log, check_server_version=False)
            sign_in(client, credentials)
        return cls(client)

    def __enter__(self) -> Cvat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session of a user who signed in with a password, and close the connections."""
        if "sessionid" in self._api.cookies:
            try:
                with _errors("signing out"):
                    self._api.auth_api.create_logout(_request_timeout=TIMEOUT_S)
            except CvatError as error:
                log.warning("%s", error)
        self._api.close()

    def tasks_of(self, project: int) -> list[tuple[int, str]]:
        """The tasks of a project: the id and the name of each, the oldest first."""
        with _errors(f"project {project}"):
            self._api.projects_api.retrieve(project, _request_timeout=TIMEOUT_S)
            listed = self._all(self._api.tasks_api.list_endpoint, project_id=project)
        return sorted((task.id, task.name) for task in listed)

    def name_of(self, source: str, number: int) -> str:
        """The name of a "task" or a "project"."""
        with _errors(f"{source} {number}"):
            api = self._api.tasks_api if source == "task" else self._api.projects_api
            return str(api.retrieve(number, _request_timeout=TIMEOUT_S)[0].name)

    def size_of(self, task: int) -> int:
        """How many frames a task has; 0 until CVAT has its images."""
        with _errors(f"task {task}"):
            return int(self._api.tasks_api.retrieve(task, _request_timeout=TIMEOUT_S)[0].size or 0)

    def labels(self, source: str, number: int) -> dict[int, str]:
        """The labels of a "task" or a "project": their names by their ids, in CVAT's order."""
        with _errors(f"the labels of {source} {number}"):
            listed = self._all(self._api.labels_api.list_endpoint, **{f"{source}_id": number})
        return {label.id: label.name for label in listed if not label.has_parent}

    def frames(self, task: int) -> list[Frame]:
        """The frames of a task of images that nobody has deleted; CvatError for a video."""
        with _errors(f"the frames of task {task}"):
            meta, _ = self._api.tasks_api.retrieve_data_meta(task, _request_timeout=TIMEOUT_S)
        if len(meta.frames) != meta.size:
            raise CvatError(f"task {task} is a video; only tasks of images can be corrected")
        deleted = set(meta.deleted_frames)
        return [
            Frame(number, frame.name, frame.width, frame.height)
            for number, frame in enumerate(meta.frames)
            if number not in deleted
        ]

    def image(self, task: int, frame: int) -> bytes:
        """The file of a frame as it was uploaded."""
        with _errors(f"frame {frame} of task {task}"):
            _, answer = self._api.tasks_api.retrieve_data(
                task, number=frame, quality="original", type="frame", _parse_response=False,
                _request_timeout=TIMEOUT_S,
            )  # fmt: skip
            with answer:
                return bytes(answer.data)

    def shapes(self, task: int) -> list[Json]:
        """The shapes of a task, with the fields of CVAT's ``LabeledShape``."""
        with _errors(f"the annotations of task {task}"):
            found, _ = self._api.tasks_api.retrieve_annotations(task, _request_timeout=TIMEOUT_S)
            return [_plain(shape) for shape in found.shapes]

    def create_shapes(self, task: int, shapes: Sequence[Json]) -> None:
        """Draw shapes into a task; each has the fields of CVAT's ``LabeledShapeRequest``."""
        self._change(task, "create", shapes=shapes)

    def delete_shapes(self, task: int, shapes: Sequence[Json]) -> None:
        """Remove shapes from a task, as :meth:`shapes` gave them."""
        self._change(task, "delete", shapes=shapes)

    def create_tags(self, task: int, tags: Sequence[tuple[int, int]]) -> None:
        """Give frames of a task tags: (frame, label) each."""
        made = [{"frame": frame, "label_id": label, "source": "auto"} for frame, label in tags]
        self._change(task, "create", tags=made)

    def tags(self, job: int) -> list[Tag]:
        """The tags of a job's frames; the frames are counted as in the task."""
        with _errors(f"the annotations of job {job}"):
            found, _ = self._api.jobs_api.retrieve_annotations(job, _request_timeout=TIMEOUT_S)
        return [Tag(tag.id, tag.frame, tag.label_id) for tag in found.tags]

    def tagged_frames(self, task: int) -> set[int]:
        """The frames of a task that have a tag."""
        with _errors(f"the annotations of task {task}"):
            found, _ = self._api.tasks_api.retrieve_annotations(task, _request_timeout=TIMEOUT_S)
        return {tag.frame for tag in found.tags}

    def jobs(self, task: int) -> list[Job]:
        """The jobs of a task in which its frames are annotated, in the order of the frames."""
        with _errors(f"the jobs of task {task}"):
            listed = self._all(self._api.jobs_api.list_endpoint, task_id=task)
        jobs = [_job(job) for job in listed if _word(job.type) == "annotation"]
        return sorted(jobs, key=lambda job: job.first)

    def job(self, number: int) -> Job:
        """A job."""
        with _errors(f"job {number}"):
            return _job(self._api.jobs_api.retrieve(number, _request_timeout=TIMEOUT_S)[0])

    def create_project(self, name: str, labels: Sequence[str]) -> int:
        """Make a project whose labels are tags; returns its id."""
        from cvat_sdk import models

        self.before_change()
        body = models.ProjectWriteRequest(
            name=name,
            labels=[models.PatchedLabelRequest(name=label, type="tag") for label in labels],
        )
        with _errors(f"making project {name!r}"):
            made, _ = self._api.projects_api.create(body, _request_timeout=TIMEOUT_S)
        return int(made.id)

    def webhooks(self, project: int) -> list[str]:
        """The addresses that webhooks of a project report changed jobs to."""
        with _errors(f"the webhooks of project {project}"):
            there = self._all(self._api.webhooks_api.list_endpoint, project_id=project)
        return [
            hook.target_url
            for hook in there
            if hook.is_active and UPDATE_JOB in map(_word, hook.events)
        ]

    def set_webhook(self, project: int, url: str, secret: str) -> None:
        """Let CVAT report changed jobs of a project to an address, signed with a secret.

        The webhook to that address is changed where there is one.
        """
        from cvat_sdk import models

        values = {
            "target_url": url, "events": [UPDATE_JOB], "secret": secret,
            "content_type": "application/json", "is_active": True, "enable_ssl": True,
        }  # fmt: skip
        self.before_change()
        with _errors(f"the webhook of project {project}"):
            api = self._api.webhooks_api
            there = self._all(api.list_endpoint, project_id=project)
            for hook in there:
                if hook.target_url == url:
                    body = models.PatchedWebhookWriteRequest(**values)
                    api.partial_update(
                        hook.id, patched_webhook_write_request=body, _request_timeout=TIMEOUT_S
                    )
                    return
            made = models.WebhookWriteRequest(type="project", project_id=project, **values)
            api.create(made, _request_timeout=TIMEOUT_S)

    def create_task(self, project: int, name: str, images: Sequence[Path], per_job: int) -> int:
        """Make a task of images in a project, ``per_job`` of them in each job; returns its id.

        The frames come in the order of the files' names. Waits until CVAT has the images.
        """
        from cvat_sdk import models
        from cvat_sdk.core.uploading import DataUploader

        self.before_change()
        with _errors(f"making task {name!r}"):
            body = models.TaskWriteRequest(
                name=name, project_id=project, segment_size=per_job, overlap=0
            )
            task, _ = self._api.tasks_api.create(body, _request_timeout=TIMEOUT_S)
            path = self._api.tasks_api.create_data_endpoint.path
            url = self._client.api_map.make_endpoint_url(path, kwsub={"id": task.id})
            answer = DataUploader(self._client).upload_files(
                url, list(images), image_quality=QUALITY, sorting_method="lexicographical"
            )
            request = json.loads(answer.data)["rq_id"]
            deadline = time.monotonic() + MADE_IN_S
            while not self._is_done(request):
                if time.monotonic() > deadline:
                    raise CvatError(
                        f"CVAT has not made the task within {MADE_IN_S / 60:.0f} minutes; see "
                        "whether its import worker runs, then start the round again"
                    )
                self.before_change()
                time.sleep(CHECK_EVERY_S)
        return int(task.id)

    def _is_done(self, request: str) -> bool:
        found, _ = self._api.requests_api.retrieve(request, _request_timeout=TIMEOUT_S)
        state = _word(found.status)
        if state == "failed":
            raise CvatError(f"CVAT cannot make a task of the images: {found.message}")
        return state == "finished"

    def delete_task(self, task: int) -> None:
        """Delete a task; nothing happens where there is none."""
        self.before_change()
        try:
            with _errors(f"task {task}"):
                self._api.tasks_api.destroy(task, _request_timeout=TIMEOUT_S)
        except CvatError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _change(self, task: int, action: str, **changes: Sequence[Json]) -> None:
        from cvat_sdk import models

        kinds = {"shapes": models.LabeledShapeRequest, "tags": models.LabeledImageRequest}
        self.before_change()
        with _errors(f"the annotations of task {task}"):
            body = models.PatchedLabeledDataRequest(
                **{name: [kinds[name](**one) for one in many] for name, many in changes.items()}
            )
            self._api.tasks_api.partial_update_annotations(
                action, task, patched_labeled_data_request=body, _request_timeout=TIMEOUT_S
            )

    def _all(self, endpoint: Any, **which: int) -> list[Any]:
        """What an endpoint lists, on all pages."""
        from cvat_sdk.core.helpers import get_paginated_collection

        return list(
            get_paginated_collection(endpoint, page_size=500, _request_timeout=TIMEOUT_S, **which)
        )


def _job(found: Any) -> Job:
    return Job(
        number=found.id,
        first=found.start_frame,
        last=found.stop_frame,
        state=_word(found.state),
        annotator=found.assignee.username if found.assignee else None,
        updated_at=found.updated_date,
    )


def _word(value: Any) -> str:
    """A word of one of CVAT's closed sets, which cvat-sdk gives as a model."""
    return str(getattr(value, "value", value))


def _plain(model: Any) -> Json:
    """A model of cvat-sdk's as JSON types."""
    found: Json = model.to_dict()
    return {name: value for name, value in found.items() if name not in ("elements", "score")}


@contextmanager
def _errors(about: str) -> Iterator[None]:
    """Tell what cvat-sdk raises as our own errors, which say what it was ``about``."""
    from cvat_sdk.api_client.exceptions import ApiException, OpenApiException
    from cvat_sdk.exceptions import CvatSdkException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except HTTPError as error:
        raise CvatAwayError(f"CVAT does not answer ({about}): {error}") from error
    except ApiException as error:
        kind = CvatAwayError if error.status in _AWAY else CvatError
        said = " ".join(str(error.body or error.reason or "").split())[:300]
        raise kind(f"CVAT answers with {error.status} ({about}): {said}", error.status) from error
    except (OpenApiException, CvatSdkException, *_MISUNDERSTOOD) as error:
        said = " ".join(str(error).split())[:300]
        raise CvatError(f"CVAT and cvat-sdk do not fit together ({about}): {said}") from error
