"""Heavy requests wait for a turn, without a thread and without holding up others."""

from __future__ import annotations

import anyio
import pytest

from alc_backend.service.web.turns import MOST_WAITING, Turns
from tests.asgi import ask, scope


class Busy:
    """An application whose requests last until it is released."""

    def __init__(self):
        self.working, self.most, self.over = 0, 0, anyio.Event()

    async def __call__(self, asked, receive, send):
        self.working += 1
        self.most = max(self.most, self.working)
        try:
            await self.over.wait()
        finally:
            self.working -= 1
        if asked["path"] == "/predict":
            raise RuntimeError("it fails")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("path", "at_once"),
    [
        ("/images/1/image", 1),
        ("/images/1/after", 1),
        ("/images/1", 1),
        ("/superpixels/1.jpg", 1),
        ("/images", 8),
        ("/webhook", 8),
        ("/cvat/5", 8),
        ("/", 8),
        ("/x\n/y", 8),
        ("/health", 20),
    ],
)
def test_so_many_are_worked_on_at_once(path, at_once):
    async def run():
        app = Busy()
        turns, answers = Turns(app, free=("/health",)), []

        async def one():
            answers.append((await ask(turns, scope(path=path))).status)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            assert app.working == at_once
            app.over.set()
        assert answers == [200] * 20
        assert app.most == at_once

    anyio.run(run)


def test_others_do_not_wait_for_images():
    async def run():
        app = Busy()
        turns = Turns(app, free=("/health",))
        async with anyio.create_task_group() as group:
            for path in ["/images/1/image"] * 10 + ["/webhook", "/", "/health"]:
                group.start_soon(ask, turns, scope(path=path))
            await anyio.wait_all_tasks_blocked()
            assert app.working == 4
            app.over.set()

    anyio.run(run)


def test_too_many_are_told_to_come_again():
    async def run():
        app = Busy()
        turns, answers = Turns(app, free=()), []

        async def one():
            answers.append(await ask(turns, scope(path="/images/1/image")))

        async with anyio.create_task_group() as group:
            for _ in range(1 + MOST_WAITING + 5):
                group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            assert [answer.status for answer in answers] == [503] * 5
            assert answers[0].headers["retry-after"] == "5"
            app.over.set()

    anyio.run(run)


def test_a_turn_ends_however_the_request_does():
    """By an error, or because the client has left while it waited."""

    async def run():
        app = Busy()
        turns = Turns(app, free=())
        for _ in range(10):
            with anyio.move_on_after(0.001):
                await ask(turns, scope(path="/predict"))
        app.over.set()
        for _ in range(10):
            with pytest.raises(RuntimeError):
                await ask(turns, scope(path="/predict"))

    anyio.run(run)
