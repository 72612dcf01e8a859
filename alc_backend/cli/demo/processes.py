"""Label Studio and the backend as child processes of the demonstration."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import httpx

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.errors import ServiceError
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings

EMAIL = "demo@example.com"
"""The user of the demonstration's Label Studio."""

LABEL_STUDIO_LIMIT_S = 600
BACKEND_LIMIT_S = 60

BACKEND_GRACE_S = 30.0
"""How long the backend may take to stop: it ends its requests, its threads, a worker and Redis."""


def start_label_studio(
    processes: Processes, options: DemoOptions, password: str, *, restart: bool = False
) -> None:
    """Start the demonstration's own Label Studio on this machine; it takes a while to answer."""
    _take_migrated(options)
    command = [
        label_studio_command(options.label_studio),
        "start",
        "--no-browser",
        "--internal-host", "127.0.0.1",
        "--port", str(options.port),
        "--data-dir", str(options.data_dir.absolute() / "label-studio"),
    ]  # fmt: skip
    environment = {
        "LABEL_STUDIO_USERNAME": EMAIL,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # The backend listens on the loopback address, which Label Studio refuses by default.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    processes.start("label-studio", command, environment=environment, restart=restart)


def wait_for_label_studio(processes: Processes, options: DemoOptions) -> None:
    """Wait until the demonstration's Label Studio answers; ServiceError when it never does."""
    url = f"http://127.0.0.1:{options.port}/health"
    processes.wait_for(lambda: _is_up(url), "Label Studio", LABEL_STUDIO_LIMIT_S)


def start_backend(processes: Processes, settings: Settings, *, restart: bool = False) -> None:
    """Start `alc serve` with these settings and wait until it answers."""
    processes.start(
        "backend",
        [sys.executable, "-m", "alc_backend.cli", "serve"],
        environment=settings.environment(),
        restart=restart,
        grace_s=BACKEND_GRACE_S,
    )
    url = f"http://{settings.host}:{settings.port}/health"
    processes.wait_for(lambda: _is_up(url), "the backend", BACKEND_LIMIT_S)


def migrated(program: Path) -> Path:
    """Where the data of this Label Studio after its migrations are kept, beside the program.

    `make install` makes it, as the first start would take most of a minute for it.
    """
    installed = program.parents[1]
    found = sorted(installed.glob("lib/python*/site-packages/label_studio-*.dist-info"))
    return installed / ".migrated" / (found[0].stem if found else "unknown")


def _take_migrated(options: DemoOptions) -> None:
    """Give a demonstration that was never started the migrated data, where they are kept."""
    kept = migrated(Path(label_studio_command(options.label_studio)))
    folder = options.data_dir.absolute() / "label-studio"
    if folder.exists() or not kept.is_dir():
        return
    part = folder.with_name("label-studio.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(kept, part, ignore=shutil.ignore_patterns(".env"))  # its secrets
    part.rename(folder)


def label_studio_command(given: str | None) -> str:
    """The label-studio program: as given, else that of the environment beside ours or on the path.

    Raises ServiceError when there is none.
    """
    beside = Path(sys.prefix).parent / ".venv-label-studio" / "bin" / "label-studio"
    candidates = [given] if given else [str(beside), "label-studio"]
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    raise ServiceError(
        "Label Studio is not installed; run `make install`, or install it into an environment of "
        "its own and give --label-studio PATH"
    )


def refuse_used_port(port: int) -> None:
    """Raise ServiceError when something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"port {port} is in use; stop what listens there, or choose --port and "
                "--backend-port"
            ) from error


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
