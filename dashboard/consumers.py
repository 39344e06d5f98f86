"""The live half of each page: one socket, its fragments rendered by the same templates, sent when they change.

A socket looks when a hint comes and every few seconds without one, so a lost hint, or a Redis that is away, makes a
page slower and never wrong.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import redis
import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib import auth
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.template.loader import render_to_string

from dashboard import boards, camera, hub, machines, queues, windows
from dashboard import repacks as repack_boards
from dashboard import replays as replay_boards
from dashboard.heatmap import Picture
from dashboard.outage import DOWN
from haein.cluster.backends.base import BackendDown
from haein.cluster.registry import backend
from haein.lib import clock, live
from haein.lib.errors import NotFound
from haein.telemetry import series
from haein.tenants import scope as scopes
from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs import repacks, replays, services, waiting
from jobs.models import Attempt, Job

log = structlog.get_logger(__name__)

UNKNOWN, GONE, FAILED = 4401, 4404, 1011
# Both so that a page hears something, and a reader who was removed sees nothing more, within five seconds.
RECHECK_S = 3.5
IDLE_S, BUSY_S, LOG_S = 4.0, 1.0, 0.1
# The table of nodes is fetched anew this often at most: it costs the server more than a frame.
TABLE_S = 5.0
LOG_TAIL, LOG_CHUNK, LOG_LEAP = 128 << 10, 256 << 10, 4 << 20


class Page(AsyncJsonWebsocketConsumer):
    """What all live pages share: who may listen, when to look, what to send."""

    reach: Scope
    hinted: bool
    _sent: dict[str, str]
    interval = IDLE_S
    rest = 0.1

    async def connect(self) -> None:
        try:
            reach = await self._reach()
            allowed = reach is not None and await self.may_open(reach)
        except DOWN:
            await self.close(1013)  # try again later
            return
        if reach is None or not allowed:
            await self.accept()  # a close code reaches the page only over an open socket
            await self.close(UNKNOWN if reach is None else GONE)
            return
        self.reach, self.hinted, self._sent, self._token = reach, False, {}, self._csrf_token()
        await self.accept()
        self._tasks = [asyncio.create_task(self._alive(work)) for work in self.works()]

    async def disconnect(self, code: int) -> None:
        for task in getattr(self, "_tasks", []):
            task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """What is no JSON means nothing, and is no reason for a socket to end."""
        try:
            content = json.loads(text_data or "")
        except ValueError:
            return
        await self.receive_json(content)

    async def may_open(self, reach: Scope) -> bool:
        return True

    async def _alive(self, work: Coroutine[Any, Any, None]) -> None:
        """A page of which a part has died must not look alive: the socket closes, and the page resumes with another."""
        try:
            await work
        except Exception:
            log.exception("a live page failed", page=type(self).__name__)
            await self.close(FAILED)

    def audiences(self) -> list[str]:
        return [live.group("team", team_id) for team_id in self.reach.team_ids]

    def hints(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """An event that is set when it is worth looking again."""
        return hub.current().listening(self.audiences())

    def works(self) -> list[Any]:
        """The loops that live as long as the socket."""
        return [self._watch()]

    def fragments(self) -> dict[str, str]:
        """Element id to HTML; runs in a thread with a database connection. Raises NotFound when it may not be seen."""
        raise NotImplementedError

    async def _watch(self) -> None:
        checked = time.monotonic()
        async with self.hints() as wake:
            while True:
                try:
                    if time.monotonic() - checked > RECHECK_S:
                        checked = time.monotonic()
                        if not await self._still_allowed():
                            return
                    await self._look()
                except NotFound:
                    await self._gone()
                    return
                except (*DOWN, BackendDown) as error:
                    log.info("a live page can't look now", why=str(error).strip()[:200])
                await self._pause(wake)

    async def _look(self) -> None:
        for identifier, html in (await database_sync_to_async(self.fragments)()).items():
            if self._sent.get(identifier) != html:
                self._sent[identifier] = html
                await self.send_json({"type": "fragment", "id": identifier, "html": html})
        await self.send_json({"type": "fresh", "at": time.time()})

    async def _pause(self, wake: asyncio.Event) -> None:
        """Until a hint or the interval; two looks are at least `rest` seconds apart."""
        await asyncio.sleep(self.rest)
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), self.interval)
        self.hinted = wake.is_set()
        wake.clear()

    async def _still_allowed(self) -> bool:
        reach = await self._reach()
        if reach is None:
            await self._gone()
            return False
        self.reach = reach
        return True

    async def _gone(self) -> None:
        await self.send_json({"type": "gone"})
        await self.close(GONE)

    @database_sync_to_async
    def _reach(self) -> Scope | None:
        """Read again from the session in the database: a session that was ended, or a membership, counts at once."""
        session = SessionStore(session_key=self.scope["session"].session_key)
        user = auth.get_user(SimpleNamespace(session=session))  # type: ignore[arg-type]
        return scopes.of(user) if isinstance(user, User) else None

    def _csrf_token(self) -> str:
        """For the forms in fragments: made once, so that a fragment that did not change stays the same."""
        request = HttpRequest()
        request.META["CSRF_COOKIE"] = self.scope["cookies"].get("csrftoken")
        return get_token(request) if request.META["CSRF_COOKIE"] else ""

    def render(self, template: str, context: dict[str, Any]) -> str:
        return render_to_string(template, {"scope": self.reach, "csrf_token": self._token, **context})


class Overview(Page):
    interval = BUSY_S

    def fragments(self) -> dict[str, str]:
        context = boards.overview(self.reach, now=clock.now())
        self.interval = BUSY_S if context["running"] else IDLE_S
        return {"overview-live": self.render("dashboard/_overview_live.html", context)}


class Cluster(Page):
    """Totals and the report of stranded GPUs as fragments, every device as frames of bytes.

    One frame is on its way at a time: the page says when it has drawn it, and is then sent the newest. A slow or hidden
    page gets fewer, never old ones.
    """

    # A look without a new picture costs nothing, and with these two the reader's right is checked often enough.
    interval = 0.2
    rest = camera.TICK_S
    _latest: Picture | None = None
    _rendered: Picture | None = None

    def hints(self) -> AbstractAsyncContextManager[asyncio.Event]:
        return camera.current().watching()

    def works(self) -> list[Any]:
        self._drawn = asyncio.Event()
        self._drawn.set()
        self._listed_at, self._listed = time.monotonic(), b""
        return [self._watch(), self._film()]

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """One word is understood: drawn. Others are ignored."""
        if isinstance(content, dict) and content.get("type") == "drawn":
            self._drawn.set()

    async def _film(self) -> None:
        layout = b""
        async with self.hints() as changed:
            while True:
                await changed.wait()
                await self._drawn.wait()
                changed.clear()
                picture = camera.current().picture()
                if picture.number != layout:
                    layout = picture.number
                    await self.send(text_data=f'{{"type":"layout","layout":{picture.layout}}}')
                self._drawn.clear()
                await self.send(bytes_data=picture.frame)

    async def _look(self) -> None:
        self._latest = camera.current().latest
        await super()._look()
        if self._latest and self._latest.frame != self._listed and time.monotonic() - self._listed_at > TABLE_S:
            # The table is filtered and paged by its address, so the page fetches it again by itself.
            self._listed_at, self._listed = time.monotonic(), self._latest.frame
            await self.send_json({"type": "refresh"})

    def fragments(self) -> dict[str, str]:
        if self._latest is None or self._latest is self._rendered:
            return {}
        self._rendered, occupied = self._latest, self._latest.occupancy
        return {
            "cluster-totals": self.render("dashboard/_cluster_totals.html", machines.totals(occupied)),
            "cluster-waste": self.render("dashboard/_cluster_waste.html", machines.waste(occupied, self.reach)),
            "cluster-carvings": self.render("dashboard/_cluster_carvings.html", machines.carvings(occupied)),
            "cluster-windows": self.render(
                "dashboard/_cluster_windows.html", windows.concerning(self.reach, now=clock.now())
            ),
        }


class Jobs(Page):
    """The list is filtered and paged by its address, so the page fetches it again by itself."""

    async def _look(self) -> None:
        if self.hinted or hub.current().deaf:
            await self.send_json({"type": "refresh"})
        await self.send_json({"type": "fresh", "at": time.time()})


class Queue(Page):
    """Its numbers as a fragment; the list is fetched again by the page when a team's job moved or starts were worked
    out anew.
    """

    interval = BUSY_S * 2
    _as_of: datetime | None = None

    async def _look(self) -> None:
        before = self._as_of
        await super()._look()
        if self.hinted or hub.current().deaf or self._as_of != before:
            await self.send_json({"type": "refresh"})

    def fragments(self) -> dict[str, str]:
        found = waiting.of(self.reach, now=clock.now())
        self._as_of = found.known.as_of
        return {"queue-head": self.render("dashboard/_queue_head.html", queues.head(found))}


class Replays(Jobs):
    """The operators' list."""

    async def may_open(self, reach: Scope) -> bool:
        return bool(reach.user.is_operator)

    def audiences(self) -> list[str]:
        return [replays.AUDIENCE]

    async def _look(self) -> None:
        if not self.reach.user.is_operator:
            raise NotFound("")
        await super()._look()


class RepackPage(Page):
    """The operators' page of repacks: how far each job of the one under way is."""

    async def may_open(self, reach: Scope) -> bool:
        return bool(reach.user.is_operator)

    def audiences(self) -> list[str]:
        return [repacks.AUDIENCE]

    def fragments(self) -> dict[str, str]:
        if not self.reach.user.is_operator:
            raise NotFound("")
        context = repack_boards.page(self.reach.user, now=clock.now())
        return {
            "repack-open": self.render("dashboard/_repack_open.html", context),
            "repack-past": self.render("dashboard/_repack_past.html", context),
        }


class ReplayPage(Page):
    """A replay: how far it is. Its outcome is the page's own, which loads itself again when there is one."""

    interval = IDLE_S

    async def may_open(self, reach: Scope) -> bool:
        self.replay_id: UUID = self.scope["url_route"]["kwargs"]["replay_id"]
        found = replays.newest(by=reach.user).filter(pk=self.replay_id)
        return bool(await database_sync_to_async(found.exists)())

    def audiences(self) -> list[str]:
        return [live.group("replay", self.replay_id)]

    def fragments(self) -> dict[str, str]:
        found = replay_boards.row(replays.get(self.replay_id, by=self.reach.user))
        return {"replay-head": self.render("dashboard/_replay_head.html", {"replay": found})}


class JobPage(Page):
    """A job: its state, events and cost as fragments, its log and its readings as streams that resume."""

    interval = BUSY_S

    async def may_open(self, reach: Scope) -> bool:
        self.job_id: UUID = self.scope["url_route"]["kwargs"]["job_id"]
        jobs = Job.objects.seen_by(reach).filter(pk=self.job_id)
        return bool(await database_sync_to_async(jobs.exists)())

    def audiences(self) -> list[str]:
        return [live.group("job", self.job_id)]

    def works(self) -> list[Any]:
        self._resumed = asyncio.Event()
        self._moved = asyncio.Event()
        self._attempt: UUID | None = None
        self._pinned = False
        self._offset: int | None = None
        self._measured: int | None = None
        self._state, self._active = "", True
        return [self._watch(), self._pump_log(), self._pump_readings()]

    async def _look(self) -> None:
        before = (self._attempt, self._state)
        await super()._look()
        newest = await self._newest()
        if newest and newest != self._attempt and not self._pinned:
            # A retry's log takes the place of the last one's, unless the reader chose an attempt.
            self._attempt, self._offset, self._measured = newest, None, None
        # By the state and not by whether it runs: a short job goes from queued to its end between two looks.
        if before != (self._attempt, self._state):
            self._moved.set()

    def fragments(self) -> dict[str, str]:
        now = clock.now()
        job = services.get(self.job_id, scope=self.reach)
        self.interval = BUSY_S if job.is_open else IDLE_S
        self._state, self._active = job.state, job.is_active
        return {
            "job-head": self.render("dashboard/_job_head.html", boards.job_head(job, self.reach, now=now)),
            "job-cost": self.render("dashboard/_job_cost.html", boards.job_cost(job, now=now)),
            "job-events": self.render("dashboard/_job_events.html", boards.job_events(job)),
        }

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Two words are understood: resume (where the page was) and follow (another attempt). Others are ignored."""
        if not isinstance(content, dict):
            return
        attempt = await self._known_attempt(content.get("attempt"))
        if content.get("type") == "resume":
            self._offset = _whole(content.get("log")) if attempt else None
            self._measured = _whole(content.get("readings")) if attempt else None
            self._attempt = attempt or self._attempt
            self._pinned = content.get("chosen") is True and attempt is not None and attempt != await self._newest()
            self._resumed.set()
        elif content.get("type") == "follow" and attempt:
            self._pinned = attempt != await self._newest()
            self._attempt, self._offset, self._measured = attempt, None, None

    @database_sync_to_async
    def _newest(self) -> UUID | None:
        try:
            attempts = Attempt.objects.seen_by(self.reach).filter(job_id=self.job_id)
            newest: UUID | None = attempts.order_by("-number").values_list("pk", flat=True).first()
        except DOWN:
            return None
        return newest

    @database_sync_to_async
    def _known_attempt(self, text: Any) -> UUID | None:
        try:
            attempts = Attempt.objects.seen_by(self.reach).filter(job_id=self.job_id)
            found: UUID = attempts.values_list("pk", flat=True).get(pk=UUID(str(text)))
            return found
        except (ValueError, Attempt.DoesNotExist, *DOWN):
            return None

    async def _pump_log(self) -> None:
        await self._resumed.wait()
        while True:
            more = False
            try:
                if self._attempt:
                    more = await self._send_log(self._attempt)
            except BackendDown as error:
                log.info("a log can't be read now", why=str(error))
            # A job that does not run has nothing to say, but its last lines may be a moment behind its state.
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), LOG_S if self._active else BUSY_S)
                self._moved.clear()

    async def _send_log(self, attempt: UUID) -> bool:
        """One chunk from where the page is; True when there is more at once."""
        reset, offset = self._offset is None, self._offset
        if offset is None:
            offset = -LOG_TAIL
        chunk = await asyncio.to_thread(backend().read_log, attempt, offset, LOG_CHUNK)
        if chunk.end - chunk.next > LOG_LEAP:  # faster than anyone reads: go to the newest and say what was left out
            left, reset = chunk.start, True
            chunk = await asyncio.to_thread(backend().read_log, attempt, chunk.end - LOG_TAIL, LOG_CHUNK)
            chunk = replace(chunk, skipped=chunk.start - left)
        if attempt != self._attempt or (self._offset is not None and self._offset != offset):
            return True  # the reader chose something else meanwhile
        if chunk.lines or reset:
            await self.send_json(
                {
                    "type": "log",
                    "attempt": str(attempt),
                    "start": chunk.start if reset else offset,
                    "next": chunk.next,
                    "end": chunk.end,
                    "skipped": chunk.skipped,
                    "reset": reset,
                    "lines": [[line.at, line.stream, line.text] for line in chunk.lines],
                }
            )
        self._offset = chunk.next
        return chunk.next < chunk.end

    async def _pump_readings(self) -> None:
        await self._resumed.wait()
        while True:
            try:
                if self._attempt:
                    await self._send_readings(self._attempt)
            except redis.RedisError as error:
                log.info("readings can't be had now", why=str(error))
            await asyncio.sleep(BUSY_S if self._active else IDLE_S)

    async def _send_readings(self, attempt: UUID) -> None:
        reset = self._measured is None
        samples = await asyncio.to_thread(series.hot, attempt, after=self._measured or 0)
        if attempt != self._attempt or not (samples or reset):
            return
        await self.send_json(
            {
                "type": "readings",
                "attempt": str(attempt),
                "reset": reset,
                "t": [sample.at for sample in samples],
                "cpu": [sample.cpu for sample in samples],
                "memory": [sample.memory_mb for sample in samples],
                "utilization": [sample.utilization for sample in samples],
                "device_memory": [sample.device_memory_mb for sample in samples],
            }
        )
        self._measured = samples[-1].at if samples else 0


def _whole(value: Any) -> int | None:
    """A whole number of a message from outside, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
