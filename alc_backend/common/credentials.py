"""What others are given in place of ALC_SECRET: passwords that open one thing of one project.

Label Studio gets two for each of its projects, CVAT one. Every member of Label Studio can read what
it holds (the headers of a webhook), or have it sent to an address of theirs (the password of a
backend). So it never holds ALC_SECRET itself, but words derived from it, from which it cannot be
found.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from alc_backend.common.types import TextEnum


class Purpose(TextEnum):
    """What a derived password is for."""

    WEBHOOK = "webhook"
    """Reporting what happened in a project: the header of its webhook."""

    BACKEND = "backend"
    """Label Studio's protocol for machine-learning backends: the password of the connection."""

    CVAT = "cvat"
    """Signing what CVAT reports of a project: the secret of its webhook, never sent itself."""


@dataclass(frozen=True)
class Credential:
    """A derived password without its proof: its purpose, and the project (id) there."""

    purpose: Purpose
    project: int

    def password(self, secret: str) -> str:
        """The password: purpose, project, and HMAC-SHA256 of both under ``secret``, stretched."""
        about = f"{self.purpose}.{self.project}"
        proof = hmac.digest(_key(secret), about.encode(), "sha256")
        return f"{about}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"


def recognise(password: bytes, secrets: Iterable[str]) -> Credential | None:
    """The credential that ``password`` proves under one of ``secrets``; None when it proves none.

    The time that this takes tells nothing about the right proof.
    """
    purpose, _, rest = password.partition(b".")
    project, _, _ = rest.partition(b".")
    if purpose not in _PURPOSES or not project.isdigit() or len(project) > _LONGEST_PROJECT:
        return None
    claimed = Credential(_PURPOSES[purpose], int(project))
    proven = [hmac.compare_digest(password, claimed.password(each).encode()) for each in secrets]
    return claimed if any(proven) else None


_PURPOSES = {purpose.value.encode(): purpose for purpose in Purpose}
_LONGEST_PROJECT = 10


@lru_cache(maxsize=8)
def _key(secret: str) -> bytes:
    """The key of all derived passwords, 32 bytes, made slowly (about 50 ms, 16 MiB of memory).

    Who has a derived password can try secrets against it without asking the service: the time
    that each try takes is what protects a short secret.
    """
    return hashlib.scrypt(secret.encode(), salt=b"alc-backend", n=2**14, r=8, p=1, dklen=32)
