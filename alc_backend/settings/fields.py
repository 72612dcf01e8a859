"""Every setting, once: its type, its bounds, its default, and the sentence in the reference."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST_QUERIES = 1_000_000
"""The most queries of a round; months of work for ten people."""

MOST_AREA = 2**26
"""The largest area, in pixels, from which on superpixels may be asked about: a whole image's."""

MOST_SUPERPIXELS = 65_535
"""The most superpixels that an image is divided into."""

MOST_FOLDS = 100
"""The most networks of a round; each is a file, and cross-fitting gains nothing beyond some ten."""


MEASURED = "measured by `alc study report`, default: published"
"""What the settings of seconds say about where they come from."""


class Settings(BaseSettings):
    """The settings; a variable is named ``ALC_`` and the field's name, unless an alias is given."""

    model_config = SettingsConfigDict(env_prefix="ALC_", extra="ignore", populate_by_name=True)

    data_dir: Path = Field(Path("alc-data"), description="folder of all state on disk")
    files_url: SecretStr | None = Field(
        None,
        description="where images, label maps and networks are kept: a folder, or "
        "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER; default: the data folder",
    )
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL"),
        description="SQLAlchemy address; default: SQLite in the data folder",
    )
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL"),
        description="Redis for the jobs; default: a private one started by `alc serve`",
    )
    label_studio_url: str = Field(
        "http://127.0.0.1:8080",
        validation_alias=AliasChoices("LABEL_STUDIO_URL"),
        description="Label Studio as this backend reaches it",
    )
    label_studio_public_url: str | None = Field(
        None,
        description="Label Studio as people's browsers reach it, for links; default: "
        "LABEL_STUDIO_URL",
    )
    label_studio_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("LABEL_STUDIO_API_KEY"),
        description="personal access token of a Label Studio user",
    )
    cvat_url: str | None = Field(
        None,
        validation_alias=AliasChoices("CVAT_URL"),
        description="CVAT, for projects that are asked there",
    )
    cvat_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("CVAT_ACCESS_TOKEN", "CVAT_TOKEN"),
        description="personal access token of a CVAT user; CVAT_TOKEN is the same",
    )
    cvat_user: str | None = Field(
        None,
        validation_alias=AliasChoices("CVAT_USER"),
        description="name of a CVAT user, with CVAT_PASSWORD, where there is no token",
    )
    cvat_password: SecretStr | None = Field(
        None, validation_alias=AliasChoices("CVAT_PASSWORD"), description="that user's password"
    )
    image_hosts: str = Field(
        "",
        description="hosts, separated by commas, that images may be fetched from by http(s), "
        "beside Label Studio and its storages",
    )
    trusted_proxies: str = Field(
        "",
        description="addresses or networks, separated by commas, of proxies in front of the "
        "service, whose X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix are believed",
    )
    host: str = Field("127.0.0.1", description="address the service listens on")
    port: int = Field(9090, ge=1, le=65535, description="port the service listens on")
    backend_url: str | None = Field(
        None, description="this backend as Label Studio reaches it; default: host and port"
    )
    secret: SecretStr | None = Field(
        None, description="password of the service; needed to listen on a public address"
    )
    secret_previous: SecretStr | None = Field(
        None,
        description="the ALC_SECRET before this one, until `alc secret rotate` is done: what Label "
        "Studio was given of it still opens what it opened",
    )

    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias=AliasChoices("LOG_FORMAT"),
        description="how processes log: text for people, json (one object a line) for machines",
    )
    min_free_gb: float = Field(
        2.0,
        ge=0,
        le=1_000_000,
        description="free disk space, in GiB, below which `alc doctor` and /ready warn",
    )
    max_request_mb: int = Field(
        32, ge=1, le=64, description="longest request that the service reads, in MiB"
    )
    model_dir: Path | None = Field(
        None, description="folder of the foundation models' files; default: models in the data "
        "folder",
    )  # fmt: skip
    detector: str = Field(
        "grounding-dino-tiny",
        description="model that finds objects, for `alc init`: a name that `alc weights list` "
        "shows, or the path of a checkpoint",
    )
    segmenter: str = Field(
        "sam-vit-h",
        description="model that outlines them, for `alc init`: a name that `alc weights list` "
        "shows, or the path of a checkpoint",
    )
    box_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="score that a detected object must exceed, for `alc init`; default: 0.2 "
        "(with the preset kvasir 0.05), with OWLv2 0.1, with SAM 3 0.3",
    )

    acquisition: str = Field(
        "default",
        description="score that orders the queries: default sim simiou abc lcil cil softmin aiou "
        "entropy bvsb classbal random size",
    )
    questions: Literal["mixed", "single", "pages"] = Field(
        "mixed", description="ask singly (as the paper does), by pages of look-alikes, or both"
    )
    tiles: int = Field(12, ge=2, le=24, description="most superpixels on a page of look-alikes")
    repeats: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of pages with one tile that is known to be something else: how often "
        "annotators leave it ticked stands on the project's page",
    )
    seconds_accept: float | None = Field(
        None, gt=0, le=3600, description="seconds for accepting a label; " + MEASURED
    )
    seconds_correct: float | None = Field(
        None, gt=0, le=3600, description="seconds for naming another class; " + MEASURED
    )
    seconds_classify: float | None = Field(
        None, gt=0, le=3600, description="seconds for naming a class unaided; " + MEASURED
    )
    seconds_page: float | None = Field(
        None, gt=0, le=3600, description="seconds for a page beside its tiles'; default: published"
    )
    seconds_tile: float | None = Field(
        None, gt=0, le=3600, description="seconds for a tile of a page; " + MEASURED
    )
    relabel: Literal["off", "audited"] = Field(
        "off",
        description="whether the machine writes its own proposals into the label maps: never, or "
        "of classes whose precision people's answers to a random sample show",
    )
    relabel_precision: float = Field(
        0.97,
        ge=0.5,
        le=1,
        description="precision that a class must show for that, with 95 % confidence",
    )
    epsilon: float = Field(0.0, ge=0, le=1, description="similarity an expansion requires, eq. 12")
    round_size: int = Field(100, ge=1, le=MOST_QUERIES, description="queries of one round (B)")
    start_by_itself: bool = Field(False, description="start the next round when one is answered")
    fallen_out: Literal["keep", "remove"] = Field(
        "keep",
        description="unanswered queries that are no longer among the best: keep them at the end of "
        "the queue, or remove them",
    )
    superpixels: Literal["slic", "grounded-sam"] = Field(
        "slic",
        description="how images without masks get their first label maps, in projects that are "
        "connected by Label Studio's own form",
    )
    regions_by_class: bool = Field(
        False, description="show the masks in the dataset project as one region per class"
    )
    regions: Literal["brush", "bitmask", "polygon"] = Field(
        "brush",
        description="what masks in the dataset project are shown as, and drawn with in new ones: "
        "brush, bitmask (fluent with many regions), or polygon (simplified within a pixel)",
    )
    language: str = Field(
        "en",
        description="language of what labelers read: en, de, es, fr, or the path of a JSON file",
    )
    overlap: int = Field(1, ge=1, le=100, description="annotators per query, for `alc init`")
    reconcile_every_s: float = Field(
        300.0,
        ge=10,
        le=86_400,
        description="seconds between searches for answers whose webhooks were lost",
    )
    per_image: int | None = Field(
        None, ge=1, le=MOST_QUERIES, description="most queries of a round in one image"
    )
    gap: int = Field(
        0, ge=0, le=10_000, description="queries about other images between two about the same one"
    )
    min_area: int = Field(
        0, ge=0, le=MOST_AREA, description="smallest superpixel that is asked about, in pixels"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of every random choice")
    preset: str = Field("cpu", description="training preset")
    encoder: str | None = Field(None, description="overrides the preset's encoder")
    input_size: int | None = Field(
        None, ge=64, le=4096, description="overrides the preset's crop, in pixels"
    )
    iterations: int | None = Field(
        None, ge=1, le=10_000_000, description="overrides the preset's iterations"
    )
    batch_size: int | None = Field(
        None, ge=2, le=4096, description="overrides the preset's batch size"
    )
    base_rate: float | None = Field(
        None, gt=0, le=100, description="overrides the preset's learning rate"
    )
    encoder_weights: str | None = Field(
        None, description="the encoder's first weights: imagenet, none (random), or a file"
    )
    folds: int = Field(
        1,
        ge=1,
        le=MOST_FOLDS,
        description="networks for cross-fitting; 1 scores with the one network of the paper",
    )
    share_iterations: bool = Field(
        False, description="the networks of a round share the iterations of one training"
    )
    flip: bool = Field(False, description="predict each image mirrored too, and average")
    holdout: float = Field(
        0.1, ge=0, le=0.5,
        description="share of the answers kept from training to estimate the network's accuracy, "
        "where there are no validation images",
    )  # fmt: skip
    train_processes: int | None = Field(
        None, ge=1, le=1024, description="processes that train together; default: one for each GPU"
    )
    loader_threads: int = Field(2, ge=1, le=256, description="threads that prepare training crops")
    checkpoint_every: int = Field(
        50, ge=1, le=1_000_000, description="iterations between checkpoints"
    )
    image_cache_mb: int = Field(
        2048, ge=0, le=2**20, description="memory for decoded training images, in MiB"
    )
    job_timeout_hours: float = Field(
        48.0, gt=0, le=8760, description="longest time one job may take"
    )
    stale_after_s: float = Field(
        60.0, gt=5, le=86_400, description="seconds of silence after which a worker counts as dead"
    )
    hung_after_minutes: float = Field(
        120.0, gt=0, le=10_080,
        description="minutes without progress after which a worker ends, and another one goes on",
    )  # fmt: skip

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty value means the default, where that is None."""
        field = cls.model_fields[str(info.field_name)]
        return None if value == "" and field.default is None else value

    @field_validator(
        "secret", "secret_previous", "label_studio_api_key", "cvat_token", mode="before"
    )
    @classmethod
    def _fits_a_header(cls, value: Any) -> Any:
        """Strip the line end of a secret that was read from a file; it must fit a HTTP header."""
        if not isinstance(value, str):
            return value
        word = value.strip()
        if not all("!" <= character <= "~" for character in word):
            raise ValueError("may hold visible ASCII characters only, no blanks")
        return word

    @field_validator("trusted_proxies")
    @classmethod
    def _holds_addresses(cls, value: str) -> str:
        for word in value.split(","):
            try:
                ip_network(word.strip() or "::")
            except ValueError as error:
                raise ValueError(f"holds no addresses or networks: {error}") from None
        return value

    @field_validator("database_url", "redis_url")
    @classmethod
    def _has_one_host(cls, value: str | None) -> str | None:
        """Refuse a password that is not encoded: parts of it would be shown as the host's name."""
        rest = (value or "").partition("://")[2].partition("?")[0]
        if not rest.startswith("/") and (rest.count("@") > 1 or "/" in rest.rpartition("@")[0]):
            raise ValueError("the password in it must be percent-encoded (@ is %40, / is %2F)")
        return value

    def hidden(self) -> list[str]:
        """The secrets in these settings, which must be neither shown nor logged."""
        found = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                found.append(value.get_secret_value())
        for url in (self.database_url, self.redis_url, self.files_url and self.files):
            password = (url or "").partition("://")[2].rpartition("@")[0].partition(":")[2]
            found += [password, unquote(password)]
        return [word for word in dict.fromkeys(found) if word]

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for a child process, secrets included.

        A setting that is None becomes empty, so that no inherited variable replaces it.
        """
        variables: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            variables[variable(name)] = "" if value is None else str(value)
        return variables

    @property
    def database(self) -> str:
        """The SQLAlchemy address in force."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'alc.sqlite').absolute()}"

    @property
    def files(self) -> str:
        """The folder or address of the storage in force."""
        return self.files_url.get_secret_value() if self.files_url else str(self.data_dir)

    @property
    def trusted_hosts(self) -> list[str]:
        """The hosts of ``image_hosts``."""
        return [host.strip().lower() for host in self.image_hosts.split(",") if host.strip()]

    @property
    def proxy_networks(self) -> list[IPv4Network | IPv6Network]:
        """The addresses and networks of ``trusted_proxies``."""
        return [
            ip_network(word.strip()) for word in self.trusted_proxies.split(",") if word.strip()
        ]

    @property
    def models(self) -> Path:
        """The folder of the foundation models' files in force."""
        return self.model_dir or self.data_dir / "models"

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of questions that were set, by the fields of core's ``Pace``."""
        names = ("accept", "correct", "classify", "page", "tile")
        given = {name: getattr(self, f"seconds_{name}") for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def label_studio_links(self) -> str:
        """The address of Label Studio in links that people follow."""
        return (self.label_studio_public_url or self.label_studio_url).rstrip("/")

    @property
    def backend(self) -> str:
        """The address under which Label Studio reaches this backend."""
        return (self.backend_url or f"http://{self.host}:{self.port}").rstrip("/")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"ALC_{name.upper()}"
