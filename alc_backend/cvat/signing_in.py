"""Signing in at CVAT, with a token or as a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from alc_backend.errors import SettingsError
from alc_backend.settings import Settings

if TYPE_CHECKING:
    from cvat_sdk import Client

TIMEOUT_S = (10.0, 120.0)
"""How long connecting, and waiting for an answer, may take."""


def check_address(url: str) -> None:
    """Raise SettingsError for an address with a password, which pages and logs would show."""
    if "@" in urlsplit(url).netloc:
        raise SettingsError("CVAT_URL holds a user; set CVAT_USER and CVAT_PASSWORD instead")


def credentials_of(settings: Settings) -> Any:
    """What signs in at CVAT, for cvat-sdk; SettingsError where the settings have nothing."""
    from cvat_sdk.core.client import AccessTokenCredentials, PasswordCredentials

    if settings.cvat_token is not None:
        return AccessTokenCredentials(settings.cvat_token.get_secret_value())
    if settings.cvat_user is None or settings.cvat_password is None:
        raise SettingsError(
            "CVAT needs a user; set CVAT_ACCESS_TOKEN, or CVAT_USER and CVAT_PASSWORD"
        )
    return PasswordCredentials(
        settings.cvat_user, settings.cvat_password.get_secret_value().rstrip("\r\n")
    )


def sign_in(client: Client, credentials: Any) -> None:
    """Sign in, as the client does, which would wait for an answer as long as it takes."""
    from cvat_sdk import models
    from cvat_sdk.core.client import PasswordCredentials

    if not isinstance(credentials, PasswordCredentials):
        client.login(credentials)  # a token, about which nobody is asked
        return
    api = client.api_client
    user = models.LoginSerializerExRequest(username=credentials.user, password=credentials.password)
    api.auth_api.create_login(user, _request_timeout=TIMEOUT_S)
    api.configuration.api_key["csrfHeaderAuth"] = api.cookies["csrftoken"].value
