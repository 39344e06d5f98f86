"""Keeps a body that is larger than anything we take from filling the disk before a view is even asked."""

from __future__ import annotations

import json
from typing import Any

from django.utils.translation import gettext as _

from haein.lib import api

# Around a file lie a form's other fields and its boundaries.
ROOM = 4 << 20


class BodyLimit:
    """Refuses a request over HTTP whose body is longer than `most` bytes, by its length or, unsaid, as it comes."""

    def __init__(self, application: Any, most: int) -> None:
        self.application = application
        self.most = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not said.isdigit() or int(said) > self.most:
            await self._refuse(send)
            return
        taken = 0

        async def counted() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most:
                return {"type": "http.disconnect"}
            return message

        await self.application(scope, counted, send)

    async def _refuse(self, send: Any) -> None:
        detail = _("A request may have at most %(most)s MiB.") % {"most": self.most >> 20}
        body = json.dumps(api.body_of("too_large", detail)).encode()
        headers = [(b"content-type", api.PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
        # What is still on its way is not read.
        await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})
