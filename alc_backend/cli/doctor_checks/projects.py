"""Checks of each project in Label Studio: backend, webhook, queue, label configs, images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from alc_backend.cli.doctor_checks import connections, model_files
from alc_backend.cli.doctor_checks.finding import Check, Result, ok, problem, skipped, warning
from alc_backend.common.types import Json
from alc_backend.errors import DatasetError, LabelStudioError, SettingsError
from alc_backend.labelstudio import images, label_configs, model_version, projects
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import (
    MAIN_TAGS,
    DatasetTags,
    read_dataset_config,
)
from alc_backend.labelstudio.query import label_config
from alc_backend.labelstudio.tasks import SAMPLING, switch
from alc_backend.labelstudio.texts import texts
from alc_backend.loop.overview import overview
from alc_backend.loop.projects import classes
from alc_backend.settings import Settings
from alc_backend.store import upkeep
from alc_backend.store.database import Store
from alc_backend.store.models import TRAIN, Image, Project, Round, utc_now
from alc_backend.store.round_states import RoundState

CONNECT_AGAIN = "run `alc doctor --fix`, or `alc init` again"
ROTATE = "make a new secret: `alc secret rotate`"
EXPOSED = f"run `alc doctor --fix`, then {ROTATE}"
BEST_FIRST = ["tasks:predictions_score"]
SILENT_ROUNDS = 3
"""How many pauses of reconciling may pass without one before that is a problem."""


class ProjectChecks:
    """Checks of one project, of its images, and of the work on it."""

    def __init__(self, store: Store, client: Client, project: Project) -> None:
        self._store, self._client, self._project = store, client, project

    def checks(self) -> Iterator[Check]:
        """The checks; what is set in Label Studio can be repaired, but for the dataset's config."""
        project = self._project
        numbers = {"dataset": project.dataset_project, "query": project.query_project}
        yield self._check("projects", lambda: self._existence(numbers))
        readable = {
            kind: number for kind, number in numbers.items() if number and self._is_readable(number)
        }
        for kind, number in readable.items():
            yield self._check(
                f"backend of the {kind} project",
                lambda number=number: self._backend(number),
                lambda number=number: self._connect(number),
            )
            yield self._check(
                f"webhook of the {kind} project",
                lambda number=number: self._webhook(number),
                lambda number=number: self._connect(number),
            )
        if "query" in readable:
            yield self._check("order of the queue", self._sampling, self._set_sampling)
            yield self._check("model version", self._version, self._set_version)
            yield self._check("tab of the queue", self._tab, self._set_tab)
            yield self._check(
                "label config of the query project", self._query_config, self._set_query_config
            )
        if "dataset" in readable:
            yield self._check("label config of the dataset project", self._dataset_config)
            yield self._check("images", self._images)
        yield self._check("standing state", self._standing, self._rebuild)
        yield self._check("weights", lambda: model_files.check(project.warm_start, self._settings))
        yield self._check("last reconciling", self._reconciled)
        yield self._check("work", self._work)

    def _check(self, name: str, look: Any, repair: Any = None) -> Check:
        return Check(name, look, repair, self._project.name)

    @property
    def _settings(self) -> Settings:
        return self._store.settings

    def _config(self, number: int | None) -> Json:
        found: Json = self._client.get(f"/api/projects/{number}")
        return found

    def _exists(self, number: int) -> bool:
        return self._client.exists(f"/api/projects/{number}")

    def _is_readable(self, number: int) -> bool:
        """Whether a project can be looked at; where not, the check "projects" has said why."""
        try:
            return self._exists(number)
        except LabelStudioError:
            return False

    def _existence(self, numbers: dict[str, int | None]) -> Result:
        missing = [kind for kind, number in numbers.items() if number is None]
        gone = [kind for kind, number in numbers.items() if number and not self._exists(number)]
        if gone:
            return problem(
                f"the {' and the '.join(gone)} project is gone from Label Studio, or the token's "
                "user may not see it",
                "check LABEL_STUDIO_URL and whose token it is; if it was deleted, "
                + (projects.QUERIES if gone == ["query"] else projects.DATASET)[1],
            )
        if missing:
            return problem(
                f"there is no {' and no '.join(missing)} project in Label Studio yet",
                "run `alc init` again: it was interrupted",
            )
        return ok(f"dataset {numbers['dataset']}, queries {numbers['query']}")

    def _backend(self, number: int) -> Result:
        """Whether Label Studio reaches the backend with the address and password that it keeps."""
        backend = self._settings.backend
        found = projects.backends_at(self._client, number, backend)
        if not found:
            return problem(f"{backend} is not connected to project {number}", CONNECT_AGAIN)
        for each in found:
            entry = self._client.get(f"/api/ml/{each['id']}")  # Label Studio calls /health, /setup
            if connections.sent_the_secret(self._settings, number):
                return problem(
                    f"the connection of project {number} holds ALC_SECRET itself, which every "
                    "user of Label Studio can obtain",
                    EXPOSED,
                )
        if entry["state"] in ("CO", "TR", "PR"):
            return ok(f"Label Studio reaches {backend}")
        if entry["state"] == "DI":
            return problem(
                f"Label Studio does not reach the backend at {backend}",
                "is `alc serve` running, and can Label Studio's machine reach ALC_BACKEND_URL? "
                "Predictions and webhooks fail silently until then; answers are collected later",
            )
        said = str(entry.get("error_message") or "no reason was given")
        if "401" in said or "403" in said:
            said = "its password for the backend is not the one made of ALC_SECRET for it"
        return problem(f"Label Studio cannot use the backend: {said}", CONNECT_AGAIN)

    def _connect(self, number: int) -> None:
        projects.connect_backend(self._client, number, self._settings.backend, self._secret())

    def _secret(self) -> str:
        if self._settings.secret is None:
            raise SettingsError("ALC_SECRET is not set")
        return self._settings.secret.get_secret_value()

    def _webhook(self, number: int) -> Result:
        url = projects.webhook_url(self._settings.backend)
        found = projects.webhooks_at(self._client, number, self._settings.backend)
        foreign = [
            hook["url"]
            for hook in self._client.get("/api/webhooks/", project=number)
            if hook not in found and projects.shows_secret(hook, self._secret())
        ]
        if foreign:
            return problem(
                f"the webhook to {foreign[0]} shows ALC_SECRET to every user of Label Studio",
                f"remove it under Settings → Webhooks, then {ROTATE}",
            )
        if not found:
            return problem(
                f"project {number} has no webhook to {url}: answers arrive only by reconciling",
                CONNECT_AGAIN,
            )
        wrong = [
            reason
            for hook in found
            for reason in projects.webhook_faults(hook, self._settings.backend, self._secret())
        ]
        if wrong:
            shown = any(projects.shows_secret(hook, self._secret()) for hook in found)
            return problem(
                f"the webhook of project {number} {', and '.join(wrong)}",
                EXPOSED if shown else CONNECT_AGAIN,
            )
        return ok(url)

    def _sampling(self) -> Result:
        found = self._config(self._project.query_project)["sampling"]
        if found != SAMPLING:
            return problem(
                f"the query project serves tasks by {found!r}, not the best question first",
                f"`alc doctor --fix` sets it to {SAMPLING!r}",
            )
        return ok(SAMPLING)

    def _set_sampling(self) -> None:
        self._client.patch(f"/api/projects/{self._project.query_project}", {"sampling": SAMPLING})

    def _expected_version(self) -> str | None:
        """The model version of the queue; None before the first, or while one is published."""
        with self._store.reading() as session:
            number = session.scalar(
                select(func.max(Round.number)).where(
                    Round.project_id == self._project.id,
                    Round.state.in_((RoundState.OPEN, RoundState.CLOSED)),
                )
            )
            publishing = session.scalar(
                select(Round.id).where(
                    Round.project_id == self._project.id, Round.state == RoundState.PUBLISHING
                )
            )
        return None if number is None or publishing else model_version.of_round(number)

    def _version(self) -> Result:
        expected = self._expected_version()
        if expected is None:
            return skipped("no round is open yet, or one is being published")
        found = self._config(self._project.query_project)["model_version"]
        if found != expected:
            return problem(
                f"the query project follows predictions of {found!r}, not of {expected!r}: the "
                "order is another, or random",
                "`alc doctor --fix` sets it back",
            )
        return ok(expected)

    def _set_version(self) -> None:
        expected = self._expected_version()
        if expected is not None and self._project.query_project is not None:
            switch(self._client, self._project.query_project, expected)

    def _tab(self) -> Result:
        views = self._client.get("/api/dm/views/", project=self._project.query_project)
        ordering = views[0]["data"].get("ordering") if views else None
        if ordering != BEST_FIRST:
            return problem(
                "the first tab of the query project is ordered by "
                f"{', '.join(ordering or ['nothing'])}",
                "`alc doctor --fix` orders it by prediction score, best question first",
            )
        return ok("best question first")

    def _set_tab(self) -> None:
        assert self._project.query_project is not None
        projects.order_default_tab(self._client, self._project.query_project)

    def _template(self) -> str:
        return label_config(len(self._project.classes), texts(self._settings.language))

    def _query_config(self) -> Result:
        there = _controls(self._config(self._project.query_project)["label_config"])
        missing = sorted(str(name) for _, name, *_ in _controls(self._template()) - there)
        if missing:
            return problem(
                f"the label config of the query project has no {', '.join(missing)} as queries "
                "need it",
                "`alc doctor --fix` restores it",
            )
        return ok("has everything that queries show")

    def _set_query_config(self) -> None:
        self._client.patch(
            f"/api/projects/{self._project.query_project}", {"label_config": self._template()}
        )

    def _dataset_config(self) -> Result:
        project = self._project
        remedy = "restore it in Settings → Labeling Interface"
        try:
            tags = read_dataset_config(self._config(project.dataset_project)["label_config"])
        except LabelStudioError as error:
            return problem(str(error), remedy)
        try:
            classes.refuse_missing(project, tags)
        except DatasetError as error:
            return problem(str(error), remedy)
        if new := classes.new_labels(project, tags):
            return problem(
                f"it has labels that are no classes of the project: {', '.join(new)}; masks that "
                "have one are refused",
                "`alc init`, run again, or `alc classes add` makes classes of them",
            )
        if (tags.brush_name, tags.image_name) != (project.brush_name, project.image_name):
            return problem(
                f"its tags are called {tags.brush_name} and {tags.image_name}, and were "
                f"{project.brush_name} and {project.image_name}",
                remedy,
            )
        return self._shown(tags)

    def _shown(self, tags: DatasetTags) -> Result:
        """Whether masks can be shown as ALC_REGIONS says."""
        wanted = self._settings.regions
        tag = tags.shown_with(wanted)
        if tag is None or tag.shape != wanted:
            instead = "not shown" if tag is None else f"shown as {tag.shape} regions"
            return warning(
                f"masks are {instead}: ALC_REGIONS is {wanted}, and there is no "
                f"<{MAIN_TAGS[wanted]}> with the classes",
                "add the tag in Settings → Labeling Interface, with a <Label> for each class, or "
                "set ALC_REGIONS to what there is",
            )
        return ok(f"{len(tags.classes)} classes, masks shown as {wanted} regions")

    def _images(self) -> Result:
        with self._store.reading() as session:
            image = session.scalars(
                select(Image)
                .where(
                    Image.project_id == self._project.id,
                    Image.split == TRAIN,
                    Image.url.is_not(None),
                    Image.removed.is_(None),
                )
                .order_by(Image.id.desc())
                .limit(1)
            ).first()
        if image is None or image.url is None:
            return skipped("there is none yet")
        try:
            with tempfile.TemporaryFile() as content:
                images.fetch(self._client, image.url, content, self._settings.trusted_hosts)
                size = content.tell()
        except LabelStudioError as error:
            return problem(
                f"{image.key}: {error}",
                "labelers do not see it either: check the storage in the project's settings, or "
                "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
            )
        return ok(f"{image.key} can be read ({size // 1024} kB)")

    def _standing(self) -> Result:
        """Whether what is kept beside the ledger is what the ledger says."""
        with self._store.reading() as session:
            found = upkeep.differences(session, self._project.id)
        if found:
            return problem(
                f"what is kept beside the ledger is not what the ledger says: {'; '.join(found)}",
                "`alc doctor --fix` makes it anew from the ledger; please report what led to it",
            )
        return ok("what is kept beside the ledger is what the ledger says")

    def _rebuild(self) -> None:
        with self._store.session() as session:
            upkeep.rebuild(session, self._project.id)

    def _reconciled(self) -> Result:
        with self._store.reading() as session:
            at = session.get_one(Project, self._project.id).reconciled_at
        if at is None:
            return skipped("not yet")
        pause = timedelta(seconds=self._settings.reconcile_every_s)
        ago = utc_now() - at
        if ago > SILENT_ROUNDS * pause:
            return problem(
                f"lost answers were last looked for {ago.total_seconds() / 60:.0f} minutes ago",
                "is `alc serve` running? `alc reconcile` does it now, and says what prevents it",
            )
        return ok(f"{ago.total_seconds():.0f} s ago")

    def _work(self) -> Result:
        view = overview(self._store, self._project.id)
        if view.problems:
            return warning(" ".join(view.problems), "the project's page and the logs say more")
        state = view.round.state if view.round else "no round yet"
        return ok(f"{state}; {view.queue} questions open")


def _controls(config: str) -> set[tuple[str, str | None, str | None, str | None]]:
    """The named tags of a label config, as (tag, name, toName, value); none if it is unreadable."""
    try:
        root = label_configs.parse(config)
    except ValueError:
        return set()
    return {
        (tag.tag, tag.get("name"), tag.get("toName"), tag.get("value"))
        for tag in root.iter()
        if tag.get("name")
    }
