"""A job's log from its first line to its last, across attempts and across whatever cuts the connection.

Only a whole record moves the place to go on from, so that a line that was cut is asked for again and none comes twice.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from haein.client import answers, errors
from haein.client.answers import Array, Attempt, Job, LogChunk, LogLine
from haein.client.transport import Transport

# The server says something at least every 5 s.
SILENCE_S = 20.0
PATIENCE_S = 600.0
LONGEST_POLL_S = 2.0
_LINE = 200


class Poll:
    """Pauses that grow from 0.1 s to 2 s."""

    def __init__(self) -> None:
        self.pause = 0.1

    def wait(self, most: float | None = None) -> None:
        time.sleep(self.pause if most is None else max(0.0, min(self.pause, most)))
        self.pause = min(self.pause * 1.5, LONGEST_POLL_S)


def lines(records: Iterator[dict[str, Any]]) -> Iterator[LogLine]:
    """The lines of the records, and one of the stream "haein" where a part of the log was not kept."""
    for record in records:
        chunk = answers.read(LogChunk, record)
        if chunk.skipped:
            at = datetime.fromtimestamp(chunk.lines[0][0] if chunk.lines else time.time(), UTC)
            yield LogLine(chunk.attempt, at, "haein", f"[{chunk.skipped:,} bytes of the log were not kept]")
        for at_s, stream, text in chunk.lines:
            yield LogLine(chunk.attempt, datetime.fromtimestamp(at_s, UTC), stream, text)


def records(
    transport: Transport, job: str, *, attempt: int | None, follow: bool, tail: int | None
) -> Iterator[dict[str, Any]]:
    """The API's records that hold lines. `tail` is a number of lines; `follow` goes on to the attempts that follow."""
    current = attempt or (_next_attempt(transport, job, 0, newest=True) if follow else None)
    if follow and current is None:
        return
    offset = 0
    if tail is not None:
        last, offset = _tail(transport, job, current, tail)
        yield from last
        if not follow:
            return
    if not follow:
        yield from _to_the_end(transport, job, current, offset)
        return
    while current is not None:
        yield from _followed(transport, job, current, offset)
        current, offset = (None if attempt else _next_attempt(transport, job, current)), 0


def _to_the_end(transport: Transport, job: str, attempt: int | None, offset: int) -> Iterator[dict[str, Any]]:
    """What is stored now; asks again where an answer stops short of the end."""
    poll = Poll()
    deadline = time.monotonic() + transport.patience
    while True:
        began, end, cut = offset, None, False
        for record in _stream(transport, job, attempt, offset, follow=False):
            if record is None:
                cut = True
                break
            offset, end, attempt = int(record["next"]), int(record["end"]), int(record["attempt"])
            if record["lines"] or record.get("skipped"):
                yield record
        if not cut and (end is None or offset >= end):
            return
        if offset > began:
            deadline = time.monotonic() + transport.patience
        elif not cut:
            return  # what is left is a line that is not finished yet
        elif time.monotonic() > deadline:
            raise errors.ServerAway(f"The server at {transport.url} cuts off the log again and again.")
        else:
            poll.wait()


def _followed(transport: Transport, job: str, attempt: int, offset: int) -> Iterator[dict[str, Any]]:
    poll = Poll()
    while True:
        for record in _stream(transport, job, attempt, offset, follow=True):
            if record is None:
                break
            poll = Poll()
            offset = max(offset, int(record["next"]))  # a heartbeat before the first look may say less
            if record["lines"] or record.get("skipped"):
                yield record
        # A stream may end because the server goes down in good order; only the attempt's own end is one.
        if _has_ended(transport, job, attempt):
            yield from _to_the_end(transport, job, attempt, offset)
            return
        poll.wait()


def _stream(
    transport: Transport, job: str, attempt: int | None, offset: int, *, follow: bool
) -> Iterator[dict[str, Any] | None]:
    """Whole records; None last of all when the stream was cut."""
    params: dict[str, Any] = {"format": "ndjson", "follow": int(follow), "offset": offset}
    if attempt is not None:
        params["attempt"] = attempt
    patience = PATIENCE_S if follow else None
    headers = {"Accept": "application/x-ndjson"}
    with transport.stream(
        "GET", f"jobs/{job}/logs", params=params, headers=headers, timeout=SILENCE_S, patience=patience
    ) as answer:
        rest = b""
        try:
            for piece in answer.iter_bytes():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield json.loads(line)
        except httpx.TransportError:
            yield None
        else:
            if rest.strip():
                yield None


def _tail(transport: Transport, job: str, attempt: int | None, count: int) -> tuple[list[dict[str, Any]], int]:
    """The records of the last `count` lines, and the offset behind them."""
    size = max(4096, count * _LINE)
    while True:
        params: dict[str, Any] = {"format": "ndjson", "tail": size}
        if attempt is not None:
            params["attempt"] = attempt
        text = transport.ask("GET", f"jobs/{job}/logs", params=params, headers={"Accept": "application/x-ndjson"}).text
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
        have = sum(len(record["lines"]) for record in found)
        if not found or have >= count or found[0]["start"] == 0 or found[-1]["end"] <= size:
            break
        size *= 4
    last: deque[dict[str, Any]] = deque()
    wanted = count
    for record in reversed(found):
        if wanted > 0 and record["lines"]:
            kept = record["lines"][-wanted:]
            whole = len(kept) == len(record["lines"])
            last.appendleft({**record, "lines": kept, "skipped": record.get("skipped", 0) if whole else 0})
            wanted -= len(kept)
    return list(last), int(found[-1]["next"]) if found else 0


def look(transport: Transport, job: str) -> Job:
    """The job, with the patience of somebody who waits for it."""
    return answers.read(Job, transport.json("GET", f"jobs/{job}", patience=PATIENCE_S))


def look_at_array(transport: Transport, array: str) -> Array:
    """The same of an array."""
    return answers.read(Array, transport.json("GET", f"arrays/{array}", patience=PATIENCE_S))


def _next_attempt(transport: Transport, job: str, after: int, *, newest: bool = False) -> int | None:
    """The attempt that follows, or the newest; None when the job has ended and there is none."""
    poll = Poll()
    while True:
        seen = look(transport, job)
        if seen.attempts > after:
            return seen.attempts if newest else after + 1
        if not seen.is_open:
            return None
        poll.wait()


def _has_ended(transport: Transport, job: str, attempt: int) -> bool:
    for told in transport.json("GET", f"jobs/{job}/attempts", params={"limit": 200}, patience=PATIENCE_S)["results"]:
        seen = answers.read(Attempt, told)
        if seen.number == attempt:
            return seen.ended_at is not None
    return True
