"""Names and addresses by which a machine reaches itself, and nobody else reaches it."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(name: str) -> bool:
    """Whether a name or address, without a port, means the machine itself wherever it is used."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
