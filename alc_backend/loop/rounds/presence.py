"""What a machine says of itself to those with which it is to train, and whether they fit together.

No network. Used by ``meeting`` and ``nodes``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from alc_backend.common.version import __version__
from alc_backend.errors import SettingsError
from alc_backend.loop.rounds.machines import Machines


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
        """Read what :meth:`as_text` gave, by another version perhaps; what it lacks is "?"."""
        found = words_in(content)
        return cls(
            str(found.get("name", "?")),
            int(found.get("nodes", 0)),
            max(1, int(found.get("processes", 1))),
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
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
