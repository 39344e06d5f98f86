"""The log of an attempt as everyone but its runner reads it: by offset, over segments and the holes between them."""

from __future__ import annotations

import os
from pathlib import Path

from haein.cluster.backends.base import LogChunk, LogLine
from haein.cluster.backends.local.log import LONGEST_LINE, STAMP, segment_path

STREAMS = {ord("o"): "out", ord("e"): "err", ord("h"): "haein"}
LONGEST_STORED = LONGEST_LINE + STAMP + 1
LOOK_BACK = 64 * 1024
NOTHING = LogChunk(start=0, next=0, end=0, skipped=0, lines=())

Segments = list[tuple[int, int]]


def end_of(folder: Path) -> int:
    """The log's present end, as an offset."""
    segments = _segments(folder)
    return sum(segments[-1]) if segments else 0


def read(folder: Path, offset: int, limit: int) -> LogChunk:
    """See Backend.read_log. Reads again when a segment is dropped between listing and opening it."""
    while True:
        try:
            return _read(folder, _segments(folder), offset, limit)
        except FileNotFoundError:
            continue


def _segments(folder: Path) -> Segments:
    """Start and size of each kept segment, the oldest first."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (int(entry.name), entry.stat().st_size)
                for entry in entries
                if entry.name.isdecimal() and entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        # Either the whole log is not there, or a segment was dropped between being listed and being measured.
        return _segments(folder) if folder.is_dir() else []


def _read(folder: Path, segments: Segments, offset: int, limit: int) -> LogChunk:
    if not segments:
        return NOTHING
    end = sum(segments[-1])
    wanted = min(offset, end) if offset >= 0 else max(0, end + offset)
    left = [(start, size) for start, size in segments if start + size > wanted]
    if not left:
        return LogChunk(start=end, next=end, end=end, skipped=0, lines=())
    start = max(wanted, left[0][0])
    skipped = start - wanted
    start = _line_start(folder, left[0], start)
    position, lines = start, list[LogLine]()
    for segment in left:
        if segment[0] > position or position - start >= limit:
            break  # a hole, or enough
        block = _bytes(folder, segment, position, limit - (position - start))
        whole = block[: block.rfind(b"\n") + 1]
        if not whole and not lines:  # the limit is within the first line, which is given all the same
            block = _bytes(folder, segment, position, LONGEST_STORED)
            whole = block[: block.find(b"\n") + 1]
        rest = block[len(whole) :]
        saw_all = position + len(block) == sum(segment) and b"\n" not in rest
        if whole:
            lines += _parse(whole, whole if whole[:1] == b"@" else _stamp_before(folder, segment, position))
        position += len(whole)
        if rest:
            # What follows is either more than was asked for, or a line that is still being written: not yet the log's.
            end = position if saw_all and segment == left[-1] else end
            break
    return LogChunk(start=start, next=position, end=end, skipped=skipped, lines=tuple(lines))


def _line_start(folder: Path, segment: tuple[int, int], position: int) -> int:
    """The first start of a line at or after the position, or the segment's end."""
    if position == segment[0]:
        return position
    block = _bytes(folder, segment, position - 1, LONGEST_STORED + 1)
    newline = block.find(b"\n")
    return position + newline if newline >= 0 else sum(segment)


def _parse(whole: bytes, stamp: bytes) -> list[LogLine]:
    at, stream = _stamp(stamp)
    lines = []
    for line in whole[:-1].split(b"\n"):
        if line[:1] == b"@":
            at, stream = _stamp(line)
            text = line[STAMP:]
        else:
            text = line[1:]
        lines.append(LogLine(at=at, stream=stream, text=text.decode("utf-8", "replace")))
    return lines


def _stamp(line: bytes) -> tuple[float, str]:
    return int(line[1 : STAMP - 1]) / 1e6, STREAMS[line[STAMP - 1]]


def _stamp_before(folder: Path, segment: tuple[int, int], position: int) -> bytes:
    """The stamp that holds for a line without one: the last before it. Every segment begins with a stamp."""
    while position > segment[0]:
        begin = max(segment[0], position - LOOK_BACK)
        block = _bytes(folder, segment, begin, position - begin + STAMP)
        found = block.rfind(b"\n@", 0, position - begin + 1)
        if found >= 0:
            return block[found + 1 : found + 1 + STAMP]
        position = begin
    return _bytes(folder, segment, segment[0], STAMP)


def _opened(folder: Path, segment: tuple[int, int]) -> int:
    """Where jobs run on other machines, the job's own user writes these: no link is followed out of the attempt's
    folder, and no pipe is waited for."""
    within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        name = os.path.basename(segment_path("", segment[0]))
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
    finally:
        os.close(within)


def _bytes(folder: Path, segment: tuple[int, int], position: int, count: int) -> bytes:
    fd = _opened(folder, segment)
    try:
        # No further than the size seen when listing: one answer is one moment of the log.
        return os.pread(fd, min(count, sum(segment) - position), position - segment[0])
    finally:
        os.close(fd)
