"""How the service stops."""

from __future__ import annotations

import socket
import threading

from alc_backend.service.web import run
from tests.conftest import wait_for
from tests.ports import free_port


def test_a_request_that_never_ends_does_not_keep_the_service_from_stopping(
    store, settings, redis, monkeypatch
):
    monkeypatch.setattr(run, "FINISH_S", 0)
    settings = settings.model_copy(update={"port": free_port()})
    server = run.server_of(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    with socket.create_connection((settings.host, settings.port)) as client:
        client.sendall(
            b"POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer s3cret\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        wait_for(lambda: server.server_state.tasks)
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
