"""What a simulated attempt says and uses: its log and its readings, from its record and a moment alone.

Nothing is written: a line of the log is made when it is read. All lines but the first and the last few are equally
long, so that any offset is found without counting through a month of them.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from uuid import UUID

from haein.cluster.backends.base import Cause, LogChunk, LogLine, Reading
from haein.cluster.backends.simulator.futures import End, Future

STEP_S = 5  # simulated seconds between two lines of training
WARM_UP_S = 60.0
# One in so many spans of ten seconds is spent on an evaluation or a checkpoint, with the devices nearly idle.
SPAN_S, ONE_DIP_IN = 10, 24
NOTICE = "This run is simulated: its command is not run, and what it prints and uses is made up."


class Log:
    """The log at one moment. Offsets count the bytes of its lines, newlines included."""

    def __init__(self, future: Future, end: End, now: float) -> None:
        self._future = future
        self._head, self._tail, self._steps = list[LogLine](), list[LogLine](), 0
        if future.started_at < min(now, end.at):
            start = future.started_at
            self._head = [LogLine(start, "haein", NOTICE), *(LogLine(start, "out", text) for text in future.says)]
            self._steps = int((min(now, end.at) - start) * future.speed / STEP_S)
            if now >= end.at and end.cause is Cause.EXITED and end.exit_code:
                self._tail = [LogLine(end.at, "err", end.detail)]
        self._count = len(self._head) + self._steps + len(self._tail)

    @property
    def end(self) -> int:
        return self._start_of(self._count)

    def read(self, offset: int, limit: int) -> LogChunk:
        """See Backend.read_log."""
        wanted = min(offset, self.end) if offset >= 0 else max(0, self.end + offset)
        first = bisect_left(range(self._count), wanted, key=self._start_of)
        start = self._start_of(first)
        beyond = bisect_right(range(self._count + 1), start + limit, key=self._start_of) - 1
        beyond = min(max(beyond, first + 1), self._count)
        lines = tuple(self._line(number) for number in range(first, beyond))
        return LogChunk(start=start, next=self._start_of(beyond), end=self.end, skipped=0, lines=lines)

    def _start_of(self, number: int) -> int:
        head, steps = self._head[:number], min(max(0, number - len(self._head)), self._steps)
        tail = self._tail[: max(0, number - len(self._head) - self._steps)]
        return sum(map(_size, head)) + steps * STEP_BYTES + sum(map(_size, tail))

    def _line(self, number: int) -> LogLine:
        if number < len(self._head):
            return self._head[number]
        number -= len(self._head)
        return _step(self._future, number + 1) if number < self._steps else self._tail[number - self._steps]


def _size(line: LogLine) -> int:
    return len(line.text.encode(errors="replace")) + 1


def _step(future: Future, number: int) -> LogLine:
    elapsed = number * STEP_S
    busy = utilization(future, elapsed)
    loss = 0.8 + 9.0 / (1 + elapsed / 120) ** 0.6 + 0.1 * _draw(future, "loss", number)
    return LogLine(future.started_at + elapsed / future.speed, "out", _text(number, loss, busy * 12.8))


def _text(step: int, loss: float, rate: float) -> str:
    return f"step {step:9}   loss {loss:8.4f}   {rate:8.1f} samples/s"


STEP_BYTES = len(_text(0, 0, 0)) + 1


def reading(attempt: UUID, future: Future, now: float) -> Reading:
    """What it uses now, which must be while it runs."""
    elapsed = (now - future.started_at) * future.speed
    warm = min(1.0, elapsed / WARM_UP_S)
    busy = utilization(future, elapsed)
    filled = 0.5 + 0.45 * _draw(future, "memory", 0)
    devices = tuple(
        (uuid, round(busy, 1) if readable else None, round(memory_mb * filled * warm, 1))
        for uuid, readable, memory_mb in future.slices
    )
    cores = future.cpus / 1000 * (0.9 - 0.5 * warm + 0.1 * _draw(future, "cores", int(elapsed)))
    return Reading(attempt, now, cores, future.memory_mb * filled * (0.3 + 0.7 * warm), 1 + len(devices), devices)


def utilization(future: Future, elapsed: float) -> float:
    """In percent, that many simulated seconds after the start: a warm-up, then a plateau with noise and dips."""
    if elapsed >= WARM_UP_S and int(_draw(future, "dip", int(elapsed / SPAN_S)) * ONE_DIP_IN) == 0:
        return future.busy * 0.1
    noise = 0.06 * (_draw(future, "busy", int(elapsed)) - 0.5)
    return min(100.0, future.busy * min(1.0, elapsed / WARM_UP_S) * (1 + noise))


def _draw(future: Future, what: str, number: int) -> float:
    """Evenly between 0 and 1. A checksum, as to seed a generator for each number would cost ten times as much."""
    return zlib.crc32(f"{future.seed}:{what}:{number}".encode()) / 2**32
