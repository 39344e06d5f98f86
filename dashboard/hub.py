"""One subscription a process: passes the hints of haein.lib.live on to the sockets that wait for them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import redis.asyncio
import structlog
from django.conf import settings

from haein.lib.live import CHANNEL

log = structlog.get_logger(__name__)


class Hub:
    """Belongs to one event loop. While Redis is away nothing is passed on, and the sockets look by themselves."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.deaf = True

    @asynccontextmanager
    async def listening(self, audiences: Iterable[str]) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something changed for one of the audiences."""
        wake = asyncio.Event()
        names = list(audiences)
        for name in names:
            self._waiting.setdefault(name, set()).add(wake)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            yield wake
        finally:
            for name in names:
                self._waiting[name].discard(wake)
                if not self._waiting[name]:
                    del self._waiting[name]

    async def _read(self) -> None:
        while True:
            try:
                await self._subscribe()
            except redis.exceptions.RedisError as error:
                log.warning("no hints for now", why=str(error))
            self.deaf = True
            # Not all processes at the same instant, and then everybody looks: hints may have been missed.
            await asyncio.sleep(random.uniform(0.5, 1.5))
            self._wake(list(self._waiting))

    async def _subscribe(self) -> None:
        # No read timeout: silence is normal here. The health check finds a connection that is gone without a word.
        client = redis.asyncio.Redis.from_url(
            settings.HAEIN_REDIS_URL, socket_timeout=None, socket_connect_timeout=1, health_check_interval=15
        )
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(CHANNEL)
            self.deaf = False
            while True:
                message = await subscription.get_message(timeout=10)
                if message is not None:
                    self._wake(json.loads(message["data"]))

    def _wake(self, audiences: Iterable[str]) -> None:
        for name in audiences:
            for event in self._waiting.get(name, ()):
                event.set()


_hubs: dict[int, Hub] = {}


def current() -> Hub:
    """The hub of the running event loop."""
    return _hubs.setdefault(id(asyncio.get_running_loop()), Hub())
