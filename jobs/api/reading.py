"""The endpoints of what a job leaves behind: its log, its files, its readings."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, ClassVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import OperationalError
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from haein.cluster.backends.base import BackendDown, LogChunk
from haein.cluster.registry import backend
from haein.lib import api, clock, streams
from haein.lib.errors import Invalid, NotFound
from haein.telemetry import series
from haein.tenants import scope as scopes
from haein.tenants.api import Door, still_signed_in
from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs.api import shapes
from jobs.api.work import READ, found
from jobs.models import Attempt, Job
from jobs.states import ENDED

CHUNK = 512 << 10
# Between two looks at the log, at the rows, and the longest silence.
FOLLOW_S, ROWS_S, HEARTBEAT_S = 0.1, 0.5, 4.0
NDJSON, TEXT = "application/x-ndjson", "text/plain"


class AttemptQuery(api.Strict):
    attempt = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, help_text="its number; by default the newest"
    )


def attempt_of(job: Job, number: int | None, scope: Scope) -> Attempt | None:
    """The attempt with the number, or the newest; None while there is none. Raises NotFound for a number unknown."""
    rows = Attempt.objects.seen_by(scope).filter(job=job).select_related("node").order_by("-number")
    row: Attempt | None = (rows if number is None else rows.filter(number=number)).first()
    if row is None and number is not None:
        raise NotFound(_("There is no such attempt."))
    return row


class LogQuery(AttemptQuery):
    follow = serializers.ChoiceField(["0", "1"], required=False, help_text="1: go on until the attempt has ended")
    offset = serializers.IntegerField(
        min_value=0, max_value=2**53, required=False, help_text="where to begin: a `next` of a record"
    )
    tail = serializers.IntegerField(
        min_value=1, max_value=2**53, required=False, help_text="begin with about so many last bytes instead"
    )
    format = serializers.ChoiceField(["text", "ndjson"], required=False, help_text="text, unless Accept says ndjson")


class LogRecord(serializers.Serializer[Any]):
    """A line of `ndjson`: a part of the log, or, without lines, a sign that the server is still there."""

    attempt = serializers.IntegerField()
    start = serializers.IntegerField()
    next = serializers.IntegerField(help_text="the offset that resumes after this record")
    end = serializers.IntegerField()
    skipped = serializers.IntegerField(help_text="bytes before `start` that are no longer kept")
    lines = serializers.ListField(
        child=serializers.ListField(), help_text="[seconds since the epoch, out | err | haein, text]"
    )


class LogView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="read_log", tags=["reading"], summary="Its log", parameters=[LogQuery],
        description="`ndjson` has one record a chunk, with the offsets to resume at; while following, a record without "
        "lines comes at least every five seconds. `text` is what the job printed. With `follow=1` a job that has no "
        "attempt yet is waited for.",
        responses={(200, TEXT): OpenApiTypes.STR, (200, NDJSON): LogRecord},
    )  # fmt: skip
    def get(self, request: Request, job_id: UUID) -> StreamingHttpResponse:
        query = api.asked(request, LogQuery)
        if "offset" in query and "tail" in query:
            raise Invalid({"tail": _("Give offset or tail, not both.")})
        job = found(job_id, self.reach)
        attempt = attempt_of(job, query.get("attempt"), self.reach)
        follow = query.get("follow") == "1"
        if attempt is None and (not follow or job.state in ENDED):
            raise NotFound(_("It has not been started yet, so there is no log. With follow=1 it is waited for."))
        by_accept = "ndjson" if NDJSON in request.headers.get("Accept", "") else "text"
        ndjson = query.get("format", by_accept) == "ndjson"
        written = _record if ndjson else _text
        begin = query["offset"] if "offset" in query else -query["tail"] if "tail" in query else 0
        if follow:
            pieces: Any = Following(request, job.pk, attempt, begin, written).pieces()
        else:
            assert attempt is not None
            pieces = _kept(attempt, begin, written)
            if isinstance(request._request, ASGIRequest):
                pieces = streams.Awaited(pieces)
        answer = StreamingHttpResponse(pieces, content_type=NDJSON if ndjson else f"{TEXT}; charset=utf-8")
        answer["Cache-Control"] = "no-store"
        answer["X-Accel-Buffering"] = "no"  # a proxy that collects lines would make them late
        return answer


def _record(attempt: int, chunk: LogChunk) -> bytes:
    lines = [(line.at, line.stream, line.text) for line in chunk.lines]
    record = {"attempt": attempt, "start": chunk.start, "next": chunk.next, "end": chunk.end, "skipped": chunk.skipped}
    return json.dumps({**record, "lines": lines}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _text(attempt: int, chunk: LogChunk) -> bytes:
    return "".join(f"{line.text}\n" for line in chunk.lines).encode()


Written = Callable[[int, LogChunk], bytes]


def _kept(attempt: Attempt, offset: int, written: Written) -> Iterator[bytes]:
    """The log as it is kept now."""
    while True:
        chunk = backend().read_log(attempt.pk, offset, CHUNK)
        if piece := written(attempt.number, chunk):
            yield piece
        if chunk.next >= chunk.end:
            return
        offset = chunk.next


class Following:
    """A log as it grows. The reader's right to it is asked for again while it is read."""

    def __init__(self, request: Request, job_id: UUID, attempt: Attempt | None, offset: int, written: Written) -> None:
        self._request = request
        self._job_id = job_id
        self._attempt = attempt
        self._offset = offset
        self._written = written
        self._checked = 0.0
        self._said = time.monotonic()

    async def pieces(self) -> AsyncIterator[bytes]:
        while await self._may_go_on():
            # The state is older than the look at the log: what was printed before the end is in what is read.
            over = self._attempt is not None and self._attempt.state == Attempt.State.ENDED
            chunk = await self._read()
            if self._attempt and chunk and chunk.lines:
                self._said = time.monotonic()
                yield self._written(self._attempt.number, chunk)
            if chunk and chunk.next < chunk.end:
                continue
            if over and chunk:
                return
            if beat := self._heartbeat():
                yield beat
            await asyncio.sleep(FOLLOW_S)

    async def _may_go_on(self) -> bool:
        """Looks at the rows twice a second: the reader's right, the attempt to come, the state of the one there is."""
        if time.monotonic() - self._checked < ROWS_S:
            return True
        self._checked = time.monotonic()
        return await sync_to_async(self._look)()

    async def _read(self) -> LogChunk | None:
        """The next part of the log; None while there is no attempt, or its log can't be read."""
        if self._attempt is None:
            return None
        try:
            chunk = await asyncio.to_thread(backend().read_log, self._attempt.pk, self._offset, CHUNK)
        except BackendDown:
            return None  # looked at again in a moment
        self._offset = chunk.next
        return chunk

    def _look(self) -> bool:
        """Whether the reader may see it and there is, or may still be, an attempt."""
        try:
            scope = scopes.of(cast(User, self._request.user)) if still_signed_in(self._request) else None
            if scope is None:
                return False
            if self._attempt is not None:
                self._attempt = Attempt.objects.seen_by(scope).filter(pk=self._attempt.pk).first()
                return self._attempt is not None
            job = Job.objects.seen_by(scope).filter(pk=self._job_id).first()
            self._attempt = attempt_of(job, None, scope) if job else None
            return self._attempt is not None or (job is not None and job.state not in ENDED)
        except OperationalError:
            return True  # the database is away: the log is not

    def _heartbeat(self) -> bytes:
        """Nothing in `text`; the reader of records hears that the server is there, and a dead socket is noticed."""
        if time.monotonic() - self._said < HEARTBEAT_S:
            return b""
        self._said = time.monotonic()
        offset = max(0, self._offset)
        return self._written(self._attempt.number if self._attempt else 0, LogChunk(offset, offset, offset, 0, ()))


class PathQuery(api.Strict):
    path = serializers.CharField(required=False, allow_blank=True, help_text="within the job's folder")


class FilePathQuery(api.Strict):
    path = serializers.CharField(help_text="within the job's folder")


def _relative(text: str) -> PurePosixPath:
    path = PurePosixPath(text or ".")
    if path.is_absolute() or ".." in path.parts:
        raise Invalid({"path": _("Give a path within the job's folder, without .. and not beginning with /.")})
    return path


class FilesView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="list_files", tags=["reading"], summary="What is in one of its folders", parameters=[PathQuery],
        responses=shapes.FolderShape,
    )  # fmt: skip
    def get(self, request: Request, job_id: UUID) -> Response:
        folder = _relative(api.asked(request, PathQuery).get("path", ""))
        job = found(job_id, self.reach)
        try:
            rows = backend().list_files(job.pk, folder)
        except FileNotFoundError:
            raise NotFound(_("There is no such folder.")) from None
        results = [
            {
                "name": row.path.name,
                "path": str(row.path),
                "type": "folder" if row.is_folder else "file",
                "size": row.size,
                "modified_at": clock.from_epoch(row.modified_at),
            }
            for row in rows
        ]
        return Response({"path": "" if folder == PurePosixPath(".") else str(folder), "results": results})


class FileView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="download_file", tags=["reading"], summary="A file's bytes",
        description="One range (`Range: bytes=100-`) is answered with 206; `If-Range` with the first answer's ETag "
        "gets the whole file when it has changed since.",
        parameters=[
            FilePathQuery,
            OpenApiParameter("Range", str, OpenApiParameter.HEADER),
            OpenApiParameter("If-Range", str, OpenApiParameter.HEADER),
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (206, "application/octet-stream"): OpenApiTypes.BINARY,
            416: OpenApiResponse(description="no byte of that range is there"),
        },
    )  # fmt: skip
    def get(self, request: Request, job_id: UUID) -> HttpResponseBase:
        path = _relative(api.asked(request, FilePathQuery)["path"])
        job = found(job_id, self.reach)
        try:
            source, fact = backend().open_file(job.pk, path)
        except FileNotFoundError:
            raise NotFound(_("There is no such file.")) from None
        try:
            return streams.download(request._request, source, fact.path.name, size=fact.size, tag=fact.version)
        except streams.RangeError as error:
            headers = {"Content-Range": f"bytes */{error.size}"}
            return api.problem("range_not_satisfiable", _("The file ends before that."), headers=headers)


class MetricsView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="read_metrics", tags=["reading"], summary="Its readings", parameters=[AttemptQuery],
        description="By the second for the last hour, before that by the minute.", responses=shapes.MetricsShape,
    )  # fmt: skip
    def get(self, request: Request, job_id: UUID) -> Response:
        number = api.asked(request, AttemptQuery).get("attempt")
        attempt = attempt_of(found(job_id, self.reach), number, self.reach)
        if attempt is None:
            raise NotFound(_("It has not been started yet, so nothing has been measured."))
        samples = series.whole(attempt.pk, now=clock.now())
        return Response(
            {
                "attempt": attempt.number,
                "emulated": attempt.node.emulated,
                "t": [sample.at for sample in samples],
                "cpu": [sample.cpu for sample in samples],
                "memory_mb": [sample.memory_mb for sample in samples],
                "utilization": [sample.utilization for sample in samples],
                "device_memory_mb": [sample.device_memory_mb for sample in samples],
            }
        )
