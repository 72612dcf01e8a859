"""Bounds on connections: how many there are, and how long each may take.

uvicorn's own limit answers everything with 503 while somebody keeps enough connections open, and
it waits for ever for a request that has begun, and for a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 512
"""The most connections; for a further one, that is closed which has waited longest for a request.

Linux lets a process open 1024 files unless told otherwise.
"""

HEAD_WITHIN_S = 15.0
"""How long a request's line and headers may take to arrive."""

READ_WITHIN_S = 60.0
"""How long a client may take to read what was answered."""

READ_AT_ONCE = 2**14
"""The bytes taken at a time: a body in chunks of one byte keeps others waiting while it is read."""

LINGER_S, LINGER_BYTES = 2.0, 2**20
"""How long, and for how many bytes, a body is still taken after its request was answered.

A client that sends all before it reads would otherwise not see why it was refused.
"""


class Connection(H11Protocol):
    """A connection with deadlines, one of ``MOST``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_since = time.monotonic()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._after_answer = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is being worked on and no answer is being sent."""
        return not self._is_serving and not self.flow.write_paused

    @property
    def idle_since(self) -> float:
        """When it began to wait for a request, in seconds of the monotonic clock."""
        return self._idle_since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in the place of another one if there are too many."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # that of asyncio itself reads 256 KiB at a time
            transport.max_size = READ_AT_ONCE
        self._start("head", HEAD_WITHIN_S)
        if len(self.connections) > MOST:
            idle = [each for each in self.connections if isinstance(each, Connection)]
            idle = [each for each in idle if each.is_idle and each is not self]
            closed = min(idle, key=lambda each: each.idle_since, default=self)
            closed.abort()
            self.connections.discard(closed)  # at once: several may come before it is lost

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        for name in [*self._timers]:
            self._stop(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, unless it belongs to a request that was answered long ago."""
        if self._is_lingering:
            self._after_answer += len(data)
            if self._after_answer > LINGER_BYTES:
                self.abort()
                return
        super().data_received(data)
        if self._is_serving:
            self._stop("head")
        elif not self._is_lingering and "head" not in self._timers:
            self._start("head", HEAD_WITHIN_S)
        if not self._is_lingering:
            self._after_answer = 0
            self._stop("linger")

    def on_response_complete(self) -> None:
        """Wait for the next request, but not for long for the rest of this one."""
        self._idle_since = time.monotonic()
        if self._is_lingering:
            self._start("linger", LINGER_S)
        super().on_response_complete()  # uvicorn ends connections on which no next request begins

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._start("read", READ_WITHIN_S)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._stop("read")

    def abort(self) -> None:
        """Close the connection, whatever is still to be sent."""
        self.transport.abort()

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_lingering(self) -> bool:
        """Whether the rest of a request arrives that was answered before all of it was read."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self.conn.their_state is h11.SEND_BODY

    def _start(self, name: str, seconds: float) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, self.abort)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
