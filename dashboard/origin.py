"""Lets a socket be opened only by a page of this very server."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host


class SameOrigin:
    """Origin must name the host and port that were asked for, and that host must be one of ours.

    A browser sends cookies to every port of a host, so a page of another server on this machine would pass a check of
    the name alone. A client without an Origin is no browser page; it is refused too, because nothing else opens these.
    """

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        name, _ = split_domain_port(host)
        if urlsplit(origin).netloc == host and validate_host(name, settings.ALLOWED_HOSTS):
            return await self.application(scope, receive, send)
        return await WebsocketDenier()(scope, receive, send)
