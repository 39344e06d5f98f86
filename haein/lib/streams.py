"""Sends what is too large to be held: a piece at a time, in a thread, while the event loop serves everyone else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

PIECE = 256 << 10
_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def response(
    request: HttpRequest, pieces: Iterator[bytes], *, name: str, content_type: str, size: int | None = None
) -> StreamingHttpResponse:
    """A download called `name`. Under ASGI Django would first collect a synchronous iterator whole."""
    body = Awaited(pieces) if isinstance(request, ASGIRequest) else pieces
    answer = StreamingHttpResponse(body, content_type=content_type)
    answer["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name)
    if size is not None:
        answer["Content-Length"] = str(size)
    return answer


class Pieces(Iterator[bytes]):
    """A file from where it stands, `most` bytes of it; closed with the response, whether it was read or not."""

    def __init__(self, source: BinaryIO, most: int) -> None:
        self._source = source
        self._left = most

    def __next__(self) -> bytes:
        piece = self._source.read(min(PIECE, self._left))
        if not piece:
            self.close()
            raise StopIteration
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._source.close()


def download(request: HttpRequest, source: BinaryIO, name: str, *, size: int, tag: str) -> StreamingHttpResponse:
    """A file that can be resumed (RFC 9110, section 14): one range is served, several are answered whole.

    `tag` changes when the file does, so that a resumed half is never joined to another file's. Raises RangeError.
    """
    etag = f'"{tag}"'
    asked = request.headers.get("Range", "")
    if request.headers.get("If-Range", etag) != etag:
        asked = ""
    try:
        part = _range(asked, size)
    except RangeError:
        source.close()
        raise
    start, length = part or (0, size)
    source.seek(start)
    kind = "application/octet-stream"
    answer = response(request, Pieces(source, length), name=name, content_type=kind, size=length)
    if part:
        answer.status_code = 206
        answer["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    answer["Accept-Ranges"] = "bytes"
    answer["ETag"] = etag
    return answer


class RangeError(Exception):
    """No byte of the range that was asked for is there; `size` is how many there are."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def _range(header: str, size: int) -> tuple[int, int] | None:
    """(first byte, number of bytes) of a single range; None for no range, several, or what is not understood."""
    found = _ONE_RANGE.fullmatch(header.replace(" ", ""))
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeError(size)
    return start, end - start


class Awaited(AsyncIterator[bytes]):
    """The same pieces, each made in a thread."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    async def __anext__(self) -> bytes:
        if piece := await sync_to_async(_following)(self._pieces):
            return piece
        raise StopAsyncIteration

    def close(self) -> None:
        if close := getattr(self._pieces, "close", None):
            close()


def _following(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")
