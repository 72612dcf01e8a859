"""The two projects in Label Studio: the team's dataset project, and the query project."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from alc_backend.common.credentials import Credential, Purpose
from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioError, NotFoundError, SettingsError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import dataset_config
from alc_backend.labelstudio.query import label_config
from alc_backend.labelstudio.tasks import SAMPLING
from alc_backend.labelstudio.texts import Texts

WEBHOOK_ACTIONS = [
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
]
"""What Label Studio's webhook is to report."""

LONGEST_TITLE = 50
"""Label Studio refuses longer titles of projects, in characters, and such of fewer than 3."""

QUERY_ENDINGS = (" – correction queries", " – queries")
"""What stands behind a dataset's name in the title of its query project: the first that fits."""

NO_WEBHOOK = (
    "Label Studio calls no webhook on {!r}: it wants a host name with a dot, an IP address or "
    "localhost"
)
WITH_A_DOT = (
    "set ALC_BACKEND_URL to such an address; in containers, give the service an alias such as "
    "alc.internal"
)


def dataset_title(name: str) -> str:
    """The title of the dataset project of a name: the name, where Label Studio takes it."""
    return _title(name, ("",) if len(name) > 2 else (" – dataset",))


def query_title(name: str) -> str:
    """The title of the query project of a name."""
    return _title(name, QUERY_ENDINGS)


def _title(name: str, endings: tuple[str, ...]) -> str:
    """A name with the first ending that fits, or shortened, with what tells it from others."""
    for ending in endings:
        if len(name) + len(ending) <= LONGEST_TITLE:
            return name + ending
    mark = f"… {hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:4]}{endings[-1]}"
    return name[: LONGEST_TITLE - len(mark)].rstrip() + mark


DATASET = (
    "the dataset project",
    "restore Label Studio's backup; or write the dataset with `alc export`, and make another "
    "project of that with `alc init`",
)
QUERIES = (
    "the query project",
    "`alc init`, run again as before, makes another one, and `alc round start` fills it; answers "
    "that were given stay",
)
"""What a project is for, and what to do when it was deleted."""


def check_there(client: Client, number: int, role: tuple[str, str]) -> Json:
    """A project as Label Studio has it.

    Raises NotFoundError, with the remedy for its ``role`` (DATASET or QUERIES), when it is gone.
    """
    found: Json | None = client.get_or_none(f"/api/projects/{number}")
    if found is None:
        what, remedy = role
        raise NotFoundError(
            f"Label Studio no longer has project {number}, {what}, or the token's user may not see "
            "it. Check LABEL_STUDIO_URL and whose token it is; if the project was deleted: "
            f"{remedy}"
        )
    return found


def create_dataset_project(
    client: Client, name: str, classes: list[str], shape: str = "brush"
) -> int:
    """Create the dataset project of a name; returns its id.

    ``shape`` is what its masks are shown as: brush, bitmask or polygon.
    """
    body = {"title": dataset_title(name), "label_config": dataset_config(classes, shape)}
    return int(client.post("/api/projects/", body)["id"])


def create_query_project(
    client: Client, name: str, overlap: int, classes: int, wording: Texts
) -> int:
    """Create the query project of a name; returns its id.

    Label Studio hands out the best query first; skipped ones come back last. Each query is put to
    ``overlap`` annotators and offers so many ``classes``.
    """
    more = {"skip_queue": "REQUEUE_FOR_ME"}
    return _create_queries(client, query_title(name), overlap, classes, wording, more)


def create_study_project(
    client: Client, name: str, design: str, people: int, classes: int, wording: Texts
) -> int:
    """Create the project of one group of a user study; returns its id.

    Each question is put to so many ``people``, offers so many ``classes``, and cannot be skipped.
    """
    title = _title(name, (f" – study, {design}",))
    more = {"show_skip_button": False, "show_instruction": False}
    return _create_queries(client, title, people, classes, wording, more)


def _create_queries(
    client: Client, title: str, overlap: int, classes: int, wording: Texts, more: Json
) -> int:
    body = {
        "title": title,
        "label_config": label_config(classes, wording),
        "sampling": SAMPLING,
        "show_collab_predictions": True,
        "enable_empty_annotation": False,
        "maximum_annotations": overlap,
        **more,
    }
    project = int(client.post("/api/projects/", body)["id"])
    order_default_tab(client, project)
    return project


def set_keys(client: Client) -> None:
    """Let Enter submit and Space skip, for the token's user.

    Then one key accepts, two correct and one skips; by default it is Ctrl+Enter and Ctrl+Space.
    Nobody can set another user's keys.
    """
    keys = {"submit": "enter", "skip": "space"}
    client.patch(
        "/api/current-user/hotkeys/",
        {"custom_hotkeys": {f"annotation:annotation:{n}": {"key": k} for n, k in keys.items()}},
    )


def order_default_tab(client: Client, project: int) -> None:
    """Let the Data Manager list the best query first; labeling started there follows its order."""
    data: Json = {
        "title": "Queue",
        "type": "list",
        "target": "tasks",
        "ordering": ["tasks:predictions_score"],
        "filters": {"conjunction": "and", "items": []},
    }
    views = client.get("/api/dm/views/", project=project)
    if views:
        view = views[0]
        client.patch(
            f"/api/dm/views/{view['id']}/",
            {"project": project, "data": {**view["data"], "ordering": data["ordering"]}},
        )
    else:
        client.post("/api/dm/views/", {"project": project, "data": data})


def refused_host(backend: str) -> str | None:
    """The host of a backend's address, when Label Studio accepts no webhook there; None otherwise.

    It wants a host name with a dot, an IP address, or localhost. Without that it connects a backend
    silently without a webhook, and no answer arrives.
    """
    host = urlsplit(backend).hostname or ""
    return None if host == "localhost" or {".", ":"} & set(host) else host


def connect_backend(client: Client, project: int, backend: str, secret: str) -> None:
    """Connect this backend to a project, with a webhook; safe to repeat.

    Both get a password of their own, derived from ``secret`` for this project: every member of
    Label Studio can find out what they have. Raises LabelStudioError with the usual causes when
    Label Studio cannot reach the backend, SettingsError for an address that its webhooks would not
    call.
    """
    if (host := refused_host(backend)) is not None:
        raise SettingsError(f"{NO_WEBHOOK.format(host)}; {WITH_A_DOT}")
    body = {
        "project": project,
        "url": backend,
        "title": "Active Label Correction",
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": "alc",
        "basic_auth_pass": Credential(Purpose.BACKEND, project).password(secret),
        "is_interactive": False,
    }
    connected = backends_at(client, project, backend)
    try:
        for entry in connected:
            client.patch(f"/api/ml/{entry['id']}", body)
        if not connected:
            client.post("/api/ml", body)
    except LabelStudioError as error:
        raise LabelStudioError(
            f"Label Studio cannot use the backend at {backend} ({error}). Is `alc serve` running, "
            "and can Label Studio's machine reach it (ALC_BACKEND_URL)? For a private address "
            "Label Studio must be started with ML_BLOCK_LOCAL_IP=false and "
            "SSRF_PROTECTION_ENABLED=false",
            error.status,
        ) from error
    hook = _webhook(project, backend, secret)
    hooks = webhooks_at(client, project, backend)
    for found in hooks:
        client.patch(f"/api/webhooks/{found['id']}/", hook)
    if not hooks:  # somebody has deleted the one that Label Studio makes with a backend
        client.post("/api/webhooks/", {"project": project, **hook})


def backends_at(client: Client, project: int, backend: str) -> list[Json]:
    """What Label Studio has connected to a project at an address."""
    listed: list[Json] = client.get("/api/ml", project=project)
    return [entry for entry in listed if entry["url"].rstrip("/") == backend]


def webhooks_at(client: Client, project: int, backend: str) -> list[Json]:
    """A project's webhooks to a backend."""
    listed = client.get("/api/webhooks/", project=project)
    wanted = (webhook_url(backend), project)
    return [hook for hook in listed if (hook["url"], hook["project"]) == wanted]


def webhook_url(backend: str) -> str:
    """The address at which a backend takes Label Studio's reports."""
    return f"{backend}/webhook"


def webhook_faults(hook: Json, backend: str, secret: str) -> list[str]:
    """Why a webhook is not as it must be: ends of sentences about it, if there are any.

    It may keep answers from arriving, or show ``secret`` to every member of Label Studio.
    """
    wanted = _webhook(hook["project"], backend, secret)
    faults = {
        "is_active": "is switched off",
        "send_payload": "sends no payload",
        "headers": "shows ALC_SECRET itself to every member of Label Studio"
        if shows_secret(hook, secret)
        else "lacks the header with the password, or has another password",
    }
    found = [fault for name, fault in faults.items() if hook[name] != wanted[name]]
    missing = sorted(set(WEBHOOK_ACTIONS) - set(hook["actions"]))
    if missing and not hook["send_for_all_actions"]:
        found.append(f"does not report {', '.join(missing)}")
    return found


def shows_secret(hook: Json, secret: str) -> bool:
    """Whether a webhook's headers hold the secret itself."""
    return any(secret in str(value) for value in (hook["headers"] or {}).values())


def _webhook(project: int, backend: str, secret: str) -> Json:
    password = Credential(Purpose.WEBHOOK, project).password(secret)
    return {
        "url": webhook_url(backend),
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": WEBHOOK_ACTIONS,
        "headers": {"Authorization": f"Bearer {password}"},
    }
