"""Which machines train a round together, and how many processes each of them starts.

Pure values; no network. Made by ``alc worker``, used by ``meeting`` and ``nodes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from alc_backend.errors import SettingsError

MOST = 1024
"""The most machines that train together, and the most processes of one of them."""

_HOW = (
    "give --meeting HOST:PORT, where HOST is the address of node 0 in your private network and "
    "PORT a port that is free there, the same for all nodes"
)


@dataclass(frozen=True)
class Machines:
    """The machines that train a round together, and which of them this one is.

    ``node`` is its number among ``nodes``, from 0; they meet at ``port`` of ``host``, an address
    of node 0.
    """

    nodes: int = 1
    node: int = 0
    host: str = ""
    port: int = 0

    @classmethod
    def of_options(cls, nodes: int, node: int, meeting: str | None) -> Machines:
        """The machines that the options of ``alc worker`` name; SettingsError for wrong ones."""
        if not 1 <= nodes <= MOST:
            raise SettingsError(
                f"--nodes {nodes} is no number of machines: give one from 1 to {MOST}"
            )
        if not 0 <= node < nodes:
            raise SettingsError(
                f"--node {node} is none of --nodes {nodes}: machines are numbered from 0 to "
                f"{nodes - 1}"
            )
        if nodes == 1:
            if meeting is not None:
                raise SettingsError(
                    f"--meeting {meeting} is for several machines: give their number, too, by "
                    "--nodes"
                )
            return cls()
        if meeting is None:
            raise SettingsError(f"--nodes {nodes} needs a place to meet: {_HOW}")
        host, port = _address(meeting)
        return cls(nodes, node, host, port)

    @property
    def meeting(self) -> str:
        """HOST:PORT, as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(meeting: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT; SettingsError for anything else."""
    try:
        parts = urlsplit(f"//{meeting}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.netloc != meeting or "@" in meeting or not meeting.isascii():
        raise SettingsError(f"--meeting {meeting!r} is not HOST:PORT: {_HOW}")
    if host in ("0.0.0.0", "::"):  # noqa: S104  # refused, not listened on
        raise SettingsError(f"--meeting {meeting!r} names no machine: {_HOW}")
    return host, port


def share_out(wanted: Sequence[int], batch_size: int) -> list[int]:
    """How many processes each machine starts, of as many as it ``wanted``, in the same order.

    Fewer where a batch has not two images for each, which batch normalization needs; those with
    most give up first. Raises SettingsError when not even one for each machine is possible.
    """
    most = batch_size // 2
    if len(wanted) > most:
        raise SettingsError(
            f"{len(wanted)} machines cannot share batches of {batch_size} images: each needs two "
            f"of them or more; set ALC_BATCH_SIZE to {2 * len(wanted)} or more and start another "
            f"round, or use {most} machines (--nodes)"
        )
    shares = [min(processes, most) for processes in wanted]
    while sum(shares) > most:
        shares[shares.index(max(shares))] -= 1
    return shares
