"""Takes one picture of the cluster a tick, for all the pages of this process that show it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from channels.db import database_sync_to_async

from dashboard import heatmap, hub
from dashboard.heatmap import Picture
from dashboard.outage import DOWN
from haein.lib import live
from jobs import occupancy

log = structlog.get_logger(__name__)

# Two pictures are at least so far apart; without a hint the next is taken after the longer time.
TICK_S, UNHINTED_S = 1.0, 4.0


class Camera:
    """Belongs to one event loop. It works while somebody watches, and tells them only of pictures that differ."""

    def __init__(self) -> None:
        self.latest: Picture | None = None
        self._watching: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever there is another picture."""
        changed = asyncio.Event()
        self._watching.add(changed)
        if self.latest:
            changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            yield changed
        finally:
            self._watching.discard(changed)
            if not self._watching:
                self._task.cancel()
                self._task = self.latest = None

    def picture(self) -> Picture:
        """The latest. Raises RuntimeError when no more will come, so that no page goes on as if they did."""
        if self.latest is None or self._task is None or self._task.done():
            raise RuntimeError("No pictures of the cluster are taken any more.")
        return self.latest

    async def _work(self) -> None:
        try:
            async with hub.current().listening([live.CLUSTER]) as wake:
                while True:
                    wake.clear()
                    await self._take()
                    await asyncio.sleep(TICK_S)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(wake.wait(), UNHINTED_S - TICK_S)
        finally:
            self._tell()

    async def _take(self) -> None:
        try:
            taken = await database_sync_to_async(_picture)()
        except DOWN as error:
            log.info("the cluster can't be looked at now", why=str(error).strip()[:200])
            return
        before, self.latest = self.latest, taken
        # Its number is in the frame, so that another layout is another frame.
        if before is None or before.frame != taken.frame:
            self._tell()

    def _tell(self) -> None:
        for changed in self._watching:
            changed.set()


def _picture() -> Picture:
    return heatmap.picture(occupancy.now())


_cameras: dict[int, Camera] = {}


def current() -> Camera:
    """The camera of the running event loop."""
    return _cameras.setdefault(id(asyncio.get_running_loop()), Camera())
