"""Label Studio's addresses: as this backend reaches it, as browsers do, and what is below them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit


@dataclass(frozen=True)
class Addresses:
    """Where Label Studio is, without a slash at the end: ``own`` for us, ``public`` for browsers.

    Either may have a path, behind which a proxy finds it; tasks name images by the public one.
    """

    own: str
    public: str

    def upload(self, name: str) -> str:
        """The address of an upload, by its name in Label Studio, as tasks have it."""
        return f"{urlsplit(self.public).path}/data/{name}"

    def path(self, address: str) -> str | None:
        """The path, below Label Studio's own, of an address in it; None for one elsewhere.

        Raises ValueError for what is no address.
        """
        parts = urlsplit(address)
        if ".." in unquote(parts.path).split("/"):  # it could lead to another program of the host
            return None
        own, public = urlsplit(self.own), urlsplit(self.public)
        if _is_at(parts, own):
            below = _below(parts.path, own.path)
            if below is not None and own.path != public.path:
                below = _below(below, public.path) or below  # as Label Studio itself sends on
        elif _is_at(parts, public):
            below = _below(parts.path, public.path)
        elif parts.scheme or parts.netloc or not parts.path.startswith("/"):
            return None
        else:  # in a task of a Label Studio that was behind no path once, it may be the whole path
            below = _below(parts.path, public.path) or _below(parts.path, own.path) or parts.path
        return None if below is None else parts._replace(scheme="", netloc="", path=below).geturl()


def _is_at(parts: SplitResult, base: SplitResult) -> bool:
    """Whether an address is of a host, given by its base."""
    return parts.scheme in ("http", "https") and parts.netloc == base.netloc


def _below(path: str, base: str) -> str | None:
    """What follows a base in a path; None where the path does not begin with it."""
    return (path.removeprefix(base) or "/") if f"{path}/".startswith(f"{base}/") else None


def base_of(location: str, path: str) -> str | None:
    """The address below which the path of Label Studio's is what ``location`` is.

    None when that cannot be told.
    """
    base, found, _ = location.partition("?")[0].rstrip("/").rpartition(path.rstrip("/"))
    return base if found and base.startswith(("http://", "https://")) else None
