"""Where the machines of a training meet: a small store of words that node 0 holds on a port.

PyTorch's TCPStore moves plain bytes, which are read here as JSON; nothing that comes from the
network is unpickled. It is neither signed nor encrypted, and so belongs into a private network. The
names of all entries begin with the part of the round and its claim: whoever is late for a training
finds nothing of the next one. Each entry has one writer:

========================  ========================================================================
``open``                  node 0: what it is (``presence``), from the beginning on
``node/R``                machine R: what it is; it takes part
``beat/R``                machine R: a number that grows while it takes part
``shares``                node 0: how many processes each machine starts, once all are there
``failed/R``, ``done/R``  machine R: why its share of the training broke off; that it has ended well
``ranks/…``               PyTorch: how the training processes reach each other
========================  ========================================================================

Touches a port and the network; no database, no files of the store. Called by ``nodes``, and by
``train_process`` for where the processes meet.
"""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from alc_backend.common.waiting import within
from alc_backend.errors import SettingsError, TrainingError
from alc_backend.loop.rounds.distributed import WATCH_EVERY_S, BrokenOffError, Share
from alc_backend.loop.rounds.machines import Machines
from alc_backend.loop.rounds.presence import Presence, junk, number_in, words_in

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")

CONNECT_S = 5.0
"""How long it may take to reach node 0, in seconds."""

START_S = 1800.0
"""How long training processes wait for each other to start, in seconds; PyTorch's own default."""

REASON_S = 5.0
"""How long another machine is given to say, or hear, why a training broke off, in seconds."""

POLL_S = 0.2
"""How often it is looked for words of other machines that are waited for, in seconds."""


class AwayError(Exception):
    """Node 0 does not answer, or holds no meeting for the training."""


class DisplacedError(SettingsError):
    """Another worker takes part as the same machine."""


def of_processes(place: str, training: str, world: int) -> Store:
    """Where the ``world`` processes of a training meet: ``file:PATH`` or ``tcp:HOST:PORT``.

    ``training`` is its part and claim. The file is made by the first that comes; the port is the
    one of :class:`Host`.
    """
    from torch.distributed import FileStore, PrefixStore  # type: ignore[attr-defined]

    kind, _, address = place.partition(":")
    if kind == "file":
        store: Store = FileStore(address, world)
    else:
        host, _, port = address.rpartition(":")
        store = PrefixStore(f"{training}/ranks", _connected(host, int(port)))
    store.set_timeout(timedelta(seconds=START_S))
    return store


def listen(machines: Machines) -> socket.socket:
    """A socket that listens at the place to meet, on no other address of this machine.

    Raises SettingsError where that is not possible.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            machines.host, machines.port, type=socket.SOCK_STREAM
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(machines, error) from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        found.close()
        raise _refused(machines, error) from error
    return found


def _refused(machines: Machines, error: OSError) -> SettingsError:
    remedy = "name an address of this machine, which is node 0, in your private network"
    if error.errno == errno.EADDRINUSE:
        remedy = "stop the program that uses the port, or choose another port for all nodes"
    return SettingsError(f"--meeting {machines.meeting} cannot be used ({error}): {remedy}")


class Host:
    """The meeting as node 0 holds it, for one ``training``; to be closed at its end.

    ``stale_after_s`` is the silence in seconds after which another machine counts as gone. Raises
    SettingsError where the port cannot be used.
    """

    def __init__(
        self, machines: Machines, training: str, me: Presence, stale_after_s: float
    ) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        self._machines, self._me, self._stale_after_s = machines, me, stale_after_s
        self._others = range(1, machines.nodes)
        self._beats: dict[int, tuple[int, float]] = {}
        with listen(machines) as listening:
            served = TCPStore(
                machines.host,
                machines.port,
                is_master=True,
                wait_for_workers=False,
                timeout=timedelta(seconds=CONNECT_S),
                master_listen_fd=listening.detach(),
            )
        self._store: Store | None = PrefixStore(training, served)
        self._store.set("open", me.as_text())

    def close(self) -> None:
        """Close the port."""
        self._store = None

    def present(self) -> list[Presence]:
        """What all machines that are there say of themselves, in their order, this one first.

        Raises SettingsError for one that cannot train with this one.
        """
        found = (self._present(node) for node in self._others)
        return [self._me, *(there for there in found if there is not None)]

    def begin(self, present: list[Presence], shares: list[int]) -> None:
        """Have all machines begin, each with so many processes."""
        words = {"processes": shares, "names": [there.name for there in present]}
        self._store_().set("shares", json.dumps(words))

    def check(self) -> None:
        """Raise TrainingError once another machine has failed or is silent for too long.

        That is BrokenOffError where it says that the cause may be elsewhere.
        """
        for node in self._others:
            failed = self._failed(node)
            if failed is not None:
                raise failed
            if self._silence_s(node) > self._stale_after_s:
                raise TrainingError(self._silent(node))

    def reason(self) -> str | None:
        """Why another machine broke the training off; None where no other one did.

        Waits for REASON_S at most. A machine that was killed says nothing at all.
        """
        asked = time.monotonic()
        before = {node: self._store_().add(f"beat/{node}", 0) for node in self._others}
        while time.monotonic() - asked < REASON_S:
            for failed in map(self._failed, self._others):
                if failed is not None and not isinstance(failed, BrokenOffError):
                    return str(failed)
            time.sleep(POLL_S)
        for node, beat in before.items():
            if self._failed(node) is None and self._store_().add(f"beat/{node}", 0) == beat:
                return self._silent(node)
        return None

    def await_end(self) -> None:
        """Wait until all machines know that the training has ended well, for REASON_S at most."""
        asked, ends = time.monotonic(), [f"done/{node}" for node in self._others]
        while not self._store_().check(ends) and time.monotonic() - asked < REASON_S:
            time.sleep(POLL_S)

    def _present(self, node: int) -> Presence | None:
        content = _content(self._store_(), f"node/{node}")
        if content is None or self._silence_s(node) > self._stale_after_s:
            return None
        there = Presence.read(content)
        self._me.require_like(there, node)
        return there if self._failed(node) is None else None

    def _silence_s(self, node: int) -> float:
        """For how long machine ``node`` has not been heard of, in seconds."""
        now, beat = time.monotonic(), self._store_().add(f"beat/{node}", 0)
        last, since = self._beats.get(node, (-1, now))
        if beat != last:
            since = now
        self._beats[node] = beat, since
        return now - since

    def _silent(self, node: int) -> str:
        return (
            f"machine {node} of {self._machines.nodes} has left the training without a word: its "
            "worker was killed, or the network between the machines is interrupted; start its "
            f"`alc worker --node {node}` again where it has ended, and then the round"
        )

    def _failed(self, node: int) -> TrainingError | None:
        """What machine ``node`` says of its failure; BrokenOffError where it knows no cause."""
        content = _content(self._store_(), f"failed/{node}")
        if content is None:
            return None
        words = words_in(content)
        message = f"machine {node} ({words.get('host')}): {words.get('message')}"
        if words.get("cause_elsewhere"):
            return BrokenOffError(message, cause_elsewhere=True)
        return TrainingError(message)

    def _store_(self) -> Store:
        assert self._store is not None, "the meeting is closed"
        return self._store


class Guest:
    """The meeting as another machine finds it; to be closed at its end.

    ``training`` is the one of those asked about that node 0 holds it for; ``stale_after_s`` is the
    silence in seconds after which node 0 counts as gone. PyTorch's calls wait for an answer without
    end: each is made by a thread that nobody has to wait for. Raises AwayError where node 0 does
    not answer, or holds a meeting for none of them.
    """

    def __init__(
        self, machines: Machines, trainings: Sequence[str], me: Presence, stale_after_s: float
    ) -> None:
        self._machines, self._me, self._stale_after_s = machines, me, stale_after_s
        served = _connected(machines.host, machines.port)
        self.training, self._store = _within(CONNECT_S, lambda: _opened(served, trainings))
        self._over, self._lost = threading.Event(), False
        self._heard, self._shares = time.monotonic(), None  # type: float, bytes | None
        self._beating = threading.Thread(target=self._beat, name="meeting", daemon=True)

    def enter(self) -> None:
        """Take part, until it is closed; raises SettingsError where node 0 is another kind."""

        def sign_in() -> bytes:
            node = self._machines.node
            self._store.delete_key(f"failed/{node}")  # of a worker before this one
            self._store.set(f"node/{node}", self._me.as_text())
            return bytes(self._store.get("open"))

        opened = _within(CONNECT_S, sign_in)
        self._heard = time.monotonic()
        self._beating.start()
        self._me.require_like(Presence.read(opened), 0)

    def share(self) -> Share | None:
        """What this machine starts; None as long as others are missing.

        Raises DisplacedError where another worker takes part as the same machine, AwayError once
        node 0 does not answer any more.
        """
        self.check()
        if self._shares is None:
            return None
        words, node = words_in(self._shares), self._machines.node
        names, found = words.get("names"), words.get("processes")
        for each in (names, found):
            if not isinstance(each, list) or len(each) != self._machines.nodes:
                raise SettingsError(junk("node 0", "shares", each))
        assert isinstance(names, list)
        assert isinstance(found, list)
        if names[node] != self._me.name:
            raise DisplacedError(
                f"another worker takes part as machine {node}, too: give each its own --node"
            )
        processes = [number_in(each, "node 0", "processes") for each in found]
        place = f"tcp:{self._machines.host}:{self._machines.port}"
        return Share(place, sum(processes[:node]), processes[node], sum(processes))

    def check(self) -> None:
        """Raise AwayError once node 0 does not answer any more."""
        if self._lost:
            raise AwayError("node 0 has ended, or the network to it is interrupted")
        if time.monotonic() - self._heard > self._stale_after_s:
            raise AwayError("node 0 does not answer any more: it hangs, or the network to it does")

    def tell_end(self) -> None:
        """Tell that this machine's share of the training has ended well."""
        self._tell(f"done/{self._machines.node}", {})

    def tell_failure(self, message: str, *, cause_elsewhere: bool) -> None:
        """Tell why this machine's share of the training broke off, if node 0 still listens.

        ``cause_elsewhere``: the cause may be on another machine.
        """
        words = {
            "host": self._me.host,
            "message": message,
            "cause_elsewhere": cause_elsewhere,
        }
        self._tell(f"failed/{self._machines.node}", words)

    def close(self) -> None:
        """Take part no longer."""
        self._over.set()

    def _tell(self, key: str, words: dict[str, Any]) -> None:
        """Write an entry, if node 0 still listens, and wait for REASON_S until it is there."""

        def write() -> None:
            self._store.set(key, json.dumps(words))
            self._store.check([key])  # the answer comes after it; writing itself has none

        with suppress(AwayError):
            _within(REASON_S, write)

    def _beat(self) -> None:
        """Be heard of every second, and hear what is shared out, in a thread of its own."""
        while not self._over.is_set():
            try:
                self._store.add(f"beat/{self._machines.node}", 1)
                if self._shares is None:
                    self._shares = _content(self._store, "shares")
                self._heard = time.monotonic()
            except RuntimeError:
                self._lost = True
                return
            self._over.wait(WATCH_EVERY_S)


def _connected(host: str, port: int) -> Store:
    """The words that node 0 holds; raises AwayError where it does not answer."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        socket.create_connection((host, port), CONNECT_S).close()  # PyTorch would try it for long
    except OSError as error:
        raise AwayError(f"nothing answers at {host}, port {port} ({error})") from error

    def connect() -> Store:
        return TCPStore(
            host,
            port,
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=CONNECT_S),
        )

    return _within(2 * CONNECT_S, connect)


def _opened(served: Store, trainings: Sequence[str]) -> tuple[str, Store]:
    """The training that node 0 holds a meeting for, and its words; AwayError where for none."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    for training in trainings:
        store = PrefixStore(training, served)
        if store.check(["open"]):
            return training, store
    raise AwayError("another training is going on there")


def _within(limit_s: float, call: Callable[[], T]) -> T:
    """What ``call`` gives, made by a thread; AwayError for no answer within ``limit_s`` seconds."""
    try:
        with _network():
            return within(limit_s, call)
    except TimeoutError:
        raise AwayError(f"node 0 has not answered within {limit_s:g} s") from None


@contextmanager
def _network() -> Iterator[None]:
    """Raise AwayError for PyTorch's errors of the network."""
    try:
        yield
    except RuntimeError as error:
        raise AwayError(str(error).partition("\n")[0]) from error


def _content(store: Store, key: str) -> bytes | None:
    """What an entry holds; None where there is none."""
    return bytes(store.get(key)) if store.check([key]) else None
