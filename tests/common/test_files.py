from __future__ import annotations

import hashlib
import io

import pytest

from alc_backend.common.files import sha256_of, sha256_of_stream, write_atomically


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_digests_are_of_the_whole_file(tmp_path, size):
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_of(tmp_path / "file") == expected
    assert sha256_of_stream(io.BytesIO(content)) == expected


def test_a_stream_is_read_from_its_position():
    stream = io.BytesIO(b"header content")
    stream.seek(7)
    assert sha256_of_stream(stream) == hashlib.sha256(b"content").hexdigest()


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda part: part.write_text("old"))

    def fail(part):
        part.write_text("ne")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_may_follow_from_what_was_written(tmp_path):
    write_atomically(tmp_path / "file", lambda part: part.write_text("x"), name=lambda: "named")
    assert [path.name for path in tmp_path.iterdir()] == ["named"]
