"""System checks: settings that would hurt later are named at the start, with the way out."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks


def register() -> None:
    checks.register(addresses, checks.Tags.security)


def addresses(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """An address that the server does not answer to would make every link in an e-mail fail."""
    host = settings.HAEIN_URL.split("://", 1)[-1].rsplit(":", 1)[0]
    if host in settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        return []
    return [
        checks.Error(
            f"HAEIN_URL names the host {host!r}, which HAEIN_HOSTS does not allow.",
            hint=f"Add it: HAEIN_HOSTS={','.join([*settings.ALLOWED_HOSTS, host])}",
            id="haein.E001",
        )
    ]
