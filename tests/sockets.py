"""A browser's end of a live page's socket, on the real consumers.

channels.testing would do, but it imports a server that is not among our dependencies.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.test import Client

from haein.asgi import application

ORIGIN = "http://localhost"
_communicator: Any = ApplicationCommunicator  # asgiref's is without types


class Socket:
    """`async with Socket(client, "/ws/overview/") as page`; `page.opened` is whether the server accepted it."""

    def __init__(self, client: Client | None, path: str, *, origin: str = ORIGIN) -> None:
        cookies = client.cookies.output(header="", attrs=[], sep=";").strip() if client else ""
        path, _, query = path.partition("?")
        self._wire: Any = _communicator(
            application,
            {
                "type": "websocket",
                "path": path,
                "query_string": query.encode(),
                "headers": [(b"host", b"localhost"), (b"origin", origin.encode()), (b"cookie", cookies.encode())],
                "subprotocols": [],
            },
        )
        self.opened = False

    async def __aenter__(self) -> Socket:
        await self._wire.send_input({"type": "websocket.connect"})
        self.opened = (await self._wire.receive_output(10))["type"] == "websocket.accept"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._wire.wait(10)

    async def send(self, **message: Any) -> None:
        await self._wire.send_input({"type": "websocket.receive", "text": json.dumps(message)})

    async def receive(self, seconds: float = 10) -> dict[str, Any]:
        """The next message, one of bytes as a frame; {"closed": code} when the other side has closed the socket."""
        raw = await self._wire.receive_output(timeout=seconds)
        if raw["type"] == "websocket.close":
            return {"closed": raw["code"]}
        if raw.get("bytes"):
            return {"type": "frame", "bytes": raw["bytes"]}
        told: dict[str, Any] = json.loads(raw["text"])
        return told

    async def until(self, wanted: Callable[[dict[str, Any]], Any], seconds: float = 15) -> dict[str, Any]:
        """The first message that is wanted."""
        deadline = time.monotonic() + seconds
        while True:
            told = await self.receive(max(0.01, deadline - time.monotonic()))
            if wanted(told):
                return told
            assert "closed" not in told, told


def fragment(identifier: str, words: str = "") -> Callable[[dict[str, Any]], bool]:
    return lambda told: told.get("id") == identifier and words in told["html"]


def run(story: Callable[[], Any]) -> Any:
    return asyncio.run(story())
