"""Object stores for tests: a real S3 server, and fsspec's reference in place of the others."""

from __future__ import annotations

import httpx
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from moto.server import ThreadedMotoServer

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "s3cr3t/pw"


class S3Server:
    """An S3 server on this machine, as far as a worker can tell on any; starts at once."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.address = f"http://{host}:{port}"

    def environment(self) -> dict[str, str]:
        """What a client has in its environment to reach it; it does not wait long."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def make_bucket(self, name: str) -> str:
        """The address of a folder in a new bucket."""
        httpx.put(f"{self.address}/{name}").raise_for_status()
        return f"s3://{name}/shared"

    def refuse_unknown_keys(self, refuse: bool) -> None:
        """From now on, refuse every key (none is known to it), or let all in."""
        allowed = "0" if refuse else "inf"
        httpx.post(f"{self.address}/moto-api/reset-auth", content=allowed).raise_for_status()

    def stop(self) -> None:
        """End it; what was in its buckets stays with this process."""
        self._server.stop()


class MemoryBucket(MemoryFileSystem):
    """fsspec's reference implementation of its own contract, in place of gcsfs or adlfs."""

    protocol = ("gs", "az")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).partition("://")[2] or str(path))


def replace_client(monkeypatch, scheme: str, kind: type[MemoryFileSystem]) -> None:
    """Let fsspec answer addresses of this scheme by ``kind`` for one test."""
    monkeypatch.setitem(_registry, scheme, kind)


def forget_client(monkeypatch, scheme: str) -> None:
    """Let fsspec look for the scheme's package anew."""
    monkeypatch.delitem(_registry, scheme, raising=False)
