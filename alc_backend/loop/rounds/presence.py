"""What a machine says of itself to those with which it is to train, and whether they fit together.

No network. Used by ``meeting`` and ``nodes``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from alc_backend.common.version import __version__
from alc_backend.errors import SettingsError
from alc_backend.loop.rounds.machines import MOST, Machines


@dataclass(frozen=True)
class Presence:
    """What a machine says of itself: what must be the same on all of them, and its processes.

    ``name`` is its host's and that of the worker, unlike any other's; ``backend`` what moves the
    numbers.
    """

    name: str
    nodes: int
    processes: int
    alc: str
    torch: str
    backend: str

    @property
    def host(self) -> str:
        """The name of the host, for people."""
        return self.name.partition("/")[0]

    def as_text(self) -> str:
        """What :meth:`read` reads, as ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, content: bytes) -> Presence:
        """Read what :meth:`as_text` gave, by another version perhaps; what it lacks is "?" or 1.

        Raises SettingsError for numbers that cannot be.
        """
        found = words_in(content)
        name = str(found.get("name", "?"))
        return cls(
            name,
            number_in(found.get("nodes", 1), name, "nodes"),
            number_in(found.get("processes", 1), name, "processes"),
            *(str(found.get(name, "?")) for name in ("alc", "torch", "backend")),
        )

    def require_like(self, other: Presence, node: int) -> None:
        """Raise SettingsError where machine ``node``, ``other``, cannot train with this one."""
        for mine, its, what, remedy in (
            (self.alc, other.alc, "alc-backend", "install the same version on all machines"),
            (self.torch, other.torch, "PyTorch", "install the same version on all machines"),
            (
                self.backend,
                other.backend,
                "the backend",
                "train on machines that all have GPUs (nccl), or none (gloo)",
            ),
            (self.nodes, other.nodes, "--nodes", "give all machines the same number"),
        ):
            if mine != its:
                raise SettingsError(
                    f"machine {node} ({other.host}) has {what} {its}, this one {mine}: {remedy}, "
                    "and start the round again"
                )


def backend() -> str:
    """What moves the numbers between the processes: "nccl" between GPUs, else "gloo"."""
    import torch

    return "nccl" if torch.cuda.is_available() else "gloo"


def presence(name: str, machines: Machines, processes: int) -> Presence:
    """What this machine, whose worker has a ``name``, says of itself."""
    import torch

    return Presence(name, machines.nodes, processes, __version__, torch.__version__, backend())


def words_in(content: bytes) -> dict[str, Any]:
    """The JSON object in an entry; empty where there is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def number_in(found: object, whose: str, what: str) -> int:
    """A number of machines or processes, as ``whose`` entry has it; SettingsError for others."""
    if type(found) is not int or not 1 <= found <= MOST:
        raise SettingsError(junk(whose, what, found))
    return found


def junk(whose: str, what: str, found: object) -> str:
    """What to do about an entry that no worker writes."""
    return (
        f"what {whose[:100]} says of its {what} cannot be ({str(found)[:100]!r}): give it from 1 "
        f"to {MOST} processes (ALC_TRAIN_PROCESSES), install the same version on all machines, and "
        "see that nobody else reaches the place where they meet (--meeting)"
    )
