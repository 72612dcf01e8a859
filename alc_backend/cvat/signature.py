"""The signatures by which CVAT's webhooks prove that they know their secret."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from alc_backend.common.credentials import Credential, Purpose

HEADER = "X-Signature-256"
"""The header of a signature: ``sha256=`` and the HMAC-SHA256 of the body in hexadecimal."""


def secret_of(questions: int, secret: str) -> str:
    """The secret of the webhook of a CVAT project (id), derived from ALC_SECRET."""
    return Credential(Purpose.CVAT, questions).password(secret)


def sign(body: bytes, secret: str) -> str:
    """The signature of a body under a webhook's secret, as the header has it."""
    return f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"


def is_signed(body: bytes, signature: str, secrets: Iterable[str]) -> bool:
    """Whether a signature is that of ``body`` under one of a webhook's secrets.

    The time that this takes tells nothing about the right one.
    """
    given = signature.encode()
    proven = [hmac.compare_digest(sign(body, secret).encode(), given) for secret in secrets]
    return any(proven)
