"""What one client can do to the service: its peak memory, and how long /health takes meanwhile.

``python -m benchmarks.attacks [FILE]`` starts the service in a process of its own, with three
images of 64 megapixels, runs each attack against it, prints a table and writes it to FILE as JSON.
Memory is that of the service's process, without Redis and workers (Linux only).
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image as Picture
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from alc_backend.service.web.run import server_of
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Image
from tests.annotations import asked_project
from tests.conftest import write_dataset

SECRET = "a-secret-of-the-benchmark"
MIB = 2**20
HEAD = b"POST /webhook HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
PASSWORD = f"Authorization: Bearer {SECRET}\r\n".encode()


def serve(settings: Settings) -> None:
    """Run the service; the target of its process."""
    server_of(settings).run()


@contextmanager
def service(folder: Path) -> Iterator[tuple[httpx.Client, int, list[int]]]:
    """The running service: a client with the password, its process id, and the images' ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(data_dir=folder / "data", port=port, secret=SecretStr(SECRET))
    store = Store(settings)
    project = asked_project(store, write_dataset(folder / "dataset"))
    Picture.new("RGB", (8192, 8192), "red").save(folder / "large.png", compress_level=1)
    with store.reading() as session:
        images = session.scalars(select(Image)).all()
    for image in images:
        store.files(project).keep_image(image.id, image.suffix, folder / "large.png")
    store.close()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,))
    process.start()
    headers = {"Authorization": f"Bearer {SECRET}"}
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300
        ) as client:
            _wait_for(client)
            assert process.pid is not None
            yield client, process.pid, [image.id for image in images]
    finally:
        process.terminate()
        process.join()


def _wait_for(client: httpx.Client) -> None:
    for _ in range(600):
        try:
            client.get("/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the service did not start")


def peak_mib(pid: int) -> float:
    """The most memory that a process has had so far, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def watch(port: int, over: threading.Event, slowest: list[float]) -> None:
    """Ask for /health, each time by a new connection, and note the longest answer."""
    while not over.wait(0.05):
        began = time.perf_counter()
        httpx.get(f"http://127.0.0.1:{port}/health", timeout=300)
        slowest[0] = max(slowest[0], time.perf_counter() - began)


def attacks(client: httpx.Client, images: list[int]) -> dict[str, Callable[[], Any]]:
    """What is done to the service, by name; each gives the statuses that were answered."""
    port = client.base_url.port

    def post(content: Any, path: str = "/webhook", kind: str = "application/json") -> int:
        return client.post(path, content=content, headers={"Content-Type": kind}).status_code

    def at_once(count: int, do: Callable[[int], int]) -> list[int]:
        with ThreadPoolExecutor(count) as pool:
            return sorted({*pool.map(do, range(count))})

    def made_up(number: int) -> int:
        for method in range(499):
            client.request(f"M{number}X{method}", "/health")
        return client.request(f"M{number}", "/health").status_code

    def chunks(password: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(HEAD + password + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                raw.sendall(b"1\r\n \r\n" * 10_000)
            raw.sendall(b"0\r\n\r\n")
            return raw.recv(100)[9:12]

    def idle() -> int:
        opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(800)]
        time.sleep(2)
        for each in opened:
            each.close()
        return len(opened)

    lists = b"[" + b"[]," * 290_000 + b"0]"
    keys = b"{" + b",".join(b'"%x":0' % n for n in range(390_000)) + b"}"
    longest = b'["' + b"x" * (32 * MIB - 4) + b'"]'
    form = b"a=b&" * 2**14
    return {
        "nothing": lambda: time.sleep(2),
        "2,000 made-up methods": lambda: at_once(4, made_up),
        "60 MiB of form in chunks": lambda: post(
            (form for _ in range(960)), "/projects/1/start", "application/x-www-form-urlencoded"
        ),
        "8 × 32 MiB of one string": lambda: at_once(8, lambda _: post(longest)),
        "4 × 290,000 lists": lambda: at_once(4, lambda _: post(lists)),
        "4 × 390,000 different keys": lambda: at_once(4, lambda _: post(keys)),
        "16 MiB of lists": lambda: post(b"[" + b"[]," * 5_500_000 + b"0]"),
        "200,000 chunks of one byte": lambda: chunks(PASSWORD),
        "the same, no password": lambda: chunks(b""),
        "800 idle connections": idle,
        "six thumbnails of 64 megapixels": lambda: at_once(
            6, lambda n: client.get(f"/images/{images[n % 3]}/image").status_code
        ),
    }


def main() -> None:
    """Run every attack, print, and write FILE as JSON."""
    table = Table("attack", "answered", "seconds", "/health at most, s", "peak so far, MiB")
    rows = []
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as (client, pid, images):
        for name, attack in attacks(client, images).items():
            over, slowest = threading.Event(), [0.0]
            watcher = threading.Thread(target=watch, args=(client.base_url.port, over, slowest))
            watcher.start()
            began = time.perf_counter()
            try:
                answered = str(attack())
            except httpx.TransportError as error:
                answered = type(error).__name__
            took = time.perf_counter() - began
            over.set()
            watcher.join()
            rows.append([name, answered, round(took, 1), round(slowest[0], 2), peak_mib(pid)])
            table.add_row(*map(str, rows[-1][:4]), f"{rows[-1][4]:.0f}")
    Console(width=120).print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
