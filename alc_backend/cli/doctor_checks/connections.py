"""What the running service knows of the passwords that Label Studio sends it."""

from __future__ import annotations

import httpx

from alc_backend.settings import Settings

TIMEOUT_S = 5.0


def sent_the_secret(settings: Settings, project: int) -> bool:
    """Whether Label Studio last called /setup for one of its projects with ALC_SECRET itself.

    Label Studio tells nobody which password it keeps for a backend, so the service is asked what
    it was called with. False where it cannot be asked: another check says so.
    """
    secret = settings.secret.get_secret_value() if settings.secret else ""
    headers = {"Authorization": f"Bearer {secret}"}
    for address in dict.fromkeys((settings.backend, f"http://127.0.0.1:{settings.port}")):
        try:
            answer = httpx.get(f"{address}/connections", headers=headers, timeout=TIMEOUT_S)
            if answer.status_code == 200:
                return project in answer.json()["with_the_secret"]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            continue
    return False
