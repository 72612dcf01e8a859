from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alc_backend.common.files import write_atomically


def test_threads_that_write_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file"
    both = threading.Barrier(2)

    def write(part: Path, content: bytes) -> None:
        part.write_bytes(content)
        both.wait(30)

    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(write_atomically, path, lambda part, byte=byte: write(part, byte * 9))
            for byte in (b"a", b"b")
        ]:
            done.result()
    assert path.read_bytes() in (b"a" * 9, b"b" * 9)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
