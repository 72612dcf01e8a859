"""One bomb, read in a process of its own: what it says, how long it takes, what it takes up."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import struct
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from alc_backend.datasets import rle
from alc_backend.datasets.images import read_ids, read_image, read_mask
from alc_backend.errors import AlcError
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.images import fetch
from alc_backend.labelstudio.regions import painted, read_regions
from alc_backend.loop.annotations import mask_edits
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.exports.archive import Manifest, add_member, table_member, write_manifest
from alc_backend.loop.exports.restore import restore_backup
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import Base, Project
from alc_backend.store.storage import Storage
from tests.annotations import annotation, asked_project, image_of, region
from tests.conftest import write_dataset
from tests.fake_label_studio import FakeLabelStudio


def png(width: int, height: int) -> bytes:
    """A PNG of one colour that is a thousandth of its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(min(height, 100)))
    rows += packer.flush()
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def read_png(folder: Path) -> None:
    (folder / "a.png").write_bytes(png(60_000, 60_000))
    read_image(folder / "a.png")


def read_large(folder: Path) -> None:
    """Images of the largest size that is taken: 64 Mpx of one colour in some kilobytes."""
    for mode in ("RGB", "L"):
        Image.new(mode, (8192, 8192), 1).save(folder / f"{mode}.png", compress_level=1)
        for read in (read_image, read_ids) if mode == "RGB" else (read_image, read_mask):
            read(folder / f"{mode}.png")
    (folder / "a.png").write_bytes(png(8193, 8192))
    read_image(folder / "a.png")


def read_gif(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(200))
    read_mask(folder / "a.png")


def npz(folder: Path, content: bytes) -> None:
    files = ProjectFiles(Storage(str(folder), folder / "cache"), 1, folder / "work")
    path = folder / "projects/1/superpixels/1.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    files.read_superpixels(1)


def read_npz(folder: Path) -> None:
    """An array that claims 80 GB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (100_000, 100_000)}
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("superpixels.npy", header.getvalue() + bytes(800))
    npz(folder, content.getvalue())


def read_zip(folder: Path) -> None:
    """A zip of zeros: 4 GB in 4 MB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i4", "fortran_order": False, "shape": (32_000, 32_000)}
    )
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("superpixels.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(header.getvalue())
        for _ in range(400):
            entry.write(bytes(2**20))
    npz(folder, content.getvalue())


def read_laughs(folder: Path) -> None:
    """A billion laughs."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    read_dataset_config(f'<!DOCTYPE V [<!ENTITY l0 "lol">{entities}]><View>&l11;</View>')


def read_rle(folder: Path) -> None:
    """Brush regions of a few bytes that claim a billion pixels, and of very many bytes."""
    refused = 0
    for side, lengths in (
        (30_000, [*(4 * 30_000**2 % 2**32).to_bytes(4, "big"), *range(20)]),
        (14_000, [*(4 * 14_000**2).to_bytes(4, "big"), *range(20)]),
        (100, [*(4 * 100**2).to_bytes(4, "big"), *[77] * 5_000_000]),
        (100, 10**10),
    ):
        value = {"rle": lengths, "brushlabels": ["a"]}
        size = {"original_width": side, "original_height": side}
        try:
            read_regions([{"type": "brushlabels", **size, "value": value}], ["a"], (100, 100))
        except ValueError:
            refused += 1
    if refused == 4:
        raise ValueError("all four were refused")


def read_drawn(kind: str, value: dict[str, object]) -> None:
    """A region of another shape than a brush, on the largest image."""
    item = {"type": f"{kind}labels", "value": {**value, f"{kind}labels": ["a"]}}
    size = {"original_width": 8192, "original_height": 8192}
    read_regions([{**item, **size}], ["a"], (8192, 8192))


def read_polygon(folder: Path) -> None:
    """A polygon of 300 000 lines, each from top to bottom."""
    read_drawn(
        "polygon", {"points": [[place / 3000, 100 * (place % 2)] for place in range(300_000)]}
    )


def read_bitmask(folder: Path) -> None:
    """A PNG of 150 kB in which every second pixel of the largest image is opaque."""
    stripes = Image.new("1", (8192, 8192))
    stripes.paste(1, (0, 0, 1, 8192))
    for width in (2**power for power in range(1, 13)):
        stripes.paste(stripes.crop((0, 0, width, 8192)), (width, 0))
    content = io.BytesIO()
    stripes.save(content, format="PNG", transparency=0)
    encoded = base64.b64encode(content.getvalue()).decode()
    read_drawn("bitmask", {"imageDataURL": f"data:image/png;base64,{encoded}"})


def read_coco(folder: Path) -> None:
    rle.decode({"size": [100_000, 100_000], "counts": [10**10]}, (20, 20))


def from_server(head: bytes, body: bytes, times: int) -> None:
    """Fetch an image from a server that sends ``body`` so many times."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.0 200 OK\r\n" + head + b"\r\n")
                for _ in range(times):
                    self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}", "token") as client:
            try:
                with tempfile.TemporaryFile() as target:
                    fetch(client, "/data/1.png", target)
            finally:
                server.shutdown()


def read_compressed(folder: Path) -> None:
    """Label Studio sends 2 GB, compressed twice."""
    inner = gzip.compress(bytes(2**20)) * 2000
    from_server(b"Content-Encoding: gzip, gzip\r\n", gzip.compress(inner), 1)


def read_endless(folder: Path) -> None:
    """Label Studio sends 4 GB as they are."""
    from_server(b"", bytes(2**20), 4096)


def read_claims(folder: Path) -> None:
    """A region of 8192×8192 pixels, which would be right, for an image of 20×20."""
    side = 8192
    bits = f"{4 * side * side:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += ("111" + f"{65535:016b}" + f"{255:08b}") * (4 * side * side // 65536)
    rle = [int(bits[bit : bit + 8].ljust(8, "0"), 2) for bit in range(0, len(bits), 8)]
    size = {"original_width": side, "original_height": side}
    value = {"rle": rle, "brushlabels": ["a"]}
    painted([{"type": "brushlabels", **size, "value": value}], ["a"], (20, 20))


def read_edits(folder: Path) -> None:
    """An annotation of 350 regions, each all over an image of 6 megapixels; and one of too many."""
    write_dataset(folder / "dataset", ["a"], 2000, 3000)
    with closing(Store(Settings(data_dir=folder / "data", _env_file=None))) as store:
        project_id = asked_project(store, folder / "dataset")
        with store.reading() as session:
            project = session.get_one(Project, project_id)
        everywhere = region("dog", slice(None), slice(None), shape=(2000, 3000))

        def save(number: int, count: int) -> Outcome:
            given = annotation(number, image_of(store, "a").dataset_task, [everywhere] * count)
            return mask_edits.record(store, FakeLabelStudio().client, project, parse(given))

        if save(1, 350) == Outcome.RECORDED:
            save(2, 20_000)


def restore_ledger(folder: Path, packed: bytes) -> None:
    """Restore a backup with this ledger, packed."""
    members = {table_member(table): gzip.compress(b"") for table in Base.metadata.tables}
    members[table_member("ledger")] = packed
    with tarfile.open(folder / "alc.tar", "w") as archive:
        digests = {n: add_member(archive, n, io.BytesIO(c)) for n, c in members.items()}
        write_manifest(archive, Manifest("0001", digests), {})
    restore_backup(Settings(data_dir=folder / "data", _env_file=None), folder / "alc.tar")


def read_row(folder: Path) -> None:
    """A backup with a row of 2 GB in 2 MB."""
    restore_ledger(folder, gzip.compress(b" " * 2**20) * 2000)


def read_rows(folder: Path) -> None:
    """A backup with rows of 2 GB in 8 MB."""
    rows = b'{"changes":[' + b"[]," * 10_000 + b"[]]}\n"
    restore_ledger(folder, gzip.compress(rows * 40) * 1650)


def peak_kib() -> int:
    """The most memory of this process; what `getrusage` tells may be its parent's."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def main() -> None:
    """Read the bomb that the command line names."""
    name, folder = sys.argv[1:]
    before = peak_kib()
    began = time.process_time()
    refused = ""
    try:
        globals()[f"read_{name}"](Path(folder))
    except (AlcError, ValueError) as error:
        refused = str(error)
    after = peak_kib()
    told = {
        "refused": refused,
        "seconds": time.process_time() - began,
        "grown_mb": (after - before) / 1024,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
