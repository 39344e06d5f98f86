"""The log of an attempt as the runner writes it: stamped, capped, and cheap enough to take a flood.

A line is stored as `@<16 digits: microseconds since the epoch><o|e|h><text>` or, when it came in the same read as the
line before it, as `+<text>`: one read of 64 kB is stamped once, so that bytes.replace does the work per line. Text is
kept as the bytes it was. Offsets count stored bytes and only grow; a segment's file is named by its first offset.
When the cap is passed, segments after the first are dropped, so that both the head and the tail of a log survive.

The runner imports this file, so it stays with modules that start fast.
"""

from __future__ import annotations

import os
import time

LONGEST_LINE = 16 * 1024
LONGEST_LAST_LINE = 300  # of what is kept for the sentence that explains an exit code
STAMP = 18  # bytes before the text of a stamped line
QUIET_S = 0.2  # a prompt without a newline is shown after this silence
PATIENCE_S = 1.0  # a progress bar that never pauses and never ends its line is shown this often
SEGMENTS = 16  # in a full log


class Stream:
    """One of the job's two pipes: the last whole line, the bytes after it, and when they came."""

    __slots__ = ("changed_at", "last_line", "letter", "pending", "pending_since", "shown_early")

    def __init__(self, letter: bytes) -> None:
        self.letter = letter
        self.last_line = b""
        self.pending = b""
        self.pending_since = 0.0
        self.changed_at = 0.0
        self.shown_early = False

    def due(self, now: float) -> bool:
        return bool(self.pending) and (now - self.changed_at >= QUIET_S or now - self.pending_since >= PATIENCE_S)


class Log:
    """The writing end. One runner owns it; any number of others read the same files."""

    def __init__(self, folder: str, cap: int) -> None:
        self._folder = folder
        self._cap = cap
        self._segment_size = cap // SEGMENTS
        self._kept: list[tuple[int, int]] = []
        self._start = 0
        self._size = 0
        self._unkept = 0
        os.makedirs(folder, 0o750, exist_ok=True)
        self._fd = self._open(0)

    def take(self, stream: Stream, data: bytes, now: float) -> None:
        """Add what was just read from the stream's pipe."""
        if stream.shown_early and data:
            # The newline that ends a prompt already shown would look like an empty line.
            data = data[2:] if data[:2] == b"\r\n" else data.removeprefix(b"\n")
            stream.shown_early = False
        if not stream.pending:
            stream.pending_since = now
        stream.changed_at = now
        data = stream.pending + data
        if b"\r" in data:
            data = overwritten(data)
        whole, newline, stream.pending = data.rpartition(b"\n")
        if newline:
            self._append_lines(stream.letter, whole, now)
            stream.last_line = whole[-LONGEST_LAST_LINE:].rpartition(b"\n")[2]
            stream.pending_since = now
        while len(stream.pending) > LONGEST_LINE:
            cut = character_start(stream.pending, LONGEST_LINE)
            self._append_lines(stream.letter, stream.pending[:cut], now)
            stream.pending = stream.pending[cut:]

    def show(self, stream: Stream, now: float) -> None:
        """Store the unfinished line of the stream as it is."""
        if text := stream.pending.rstrip(b"\r"):
            self._append_lines(stream.letter, text, now)
            stream.last_line = text[-LONGEST_LAST_LINE:]
            stream.shown_early = True
        stream.pending = b""

    def say(self, sentence: str) -> None:
        """Add a line in Haein's own voice."""
        self._append_lines(b"h", sentence.replace("\n", " ").encode(errors="replace"), time.time())

    def close(self) -> None:
        os.close(self._fd)

    def _append_lines(self, letter: bytes, lines: bytes, now: float) -> None:
        stamp = b"@%016d%s" % (int(now * 1e6), letter)
        self._append(stamp + broken_up(lines).replace(b"\n", b"\n+") + b"\n")

    def _append(self, block: bytes) -> None:
        try:
            if self._size and self._size + len(block) > self._segment_size:
                self._roll()
            written = os.write(self._fd, block)
            if written != len(block):
                raise OSError("the disk is full")
        except OSError:
            # The job must neither stall on a full pipe nor end because the disk is full: keep whole lines or nothing.
            os.ftruncate(self._fd, self._size)
            self._unkept += len(block)
            return
        self._size += len(block)
        if self._unkept:
            lost, self._unkept = self._unkept, 0
            self.say(f"{lost:,} bytes of output could not be kept: the disk was full.")

    def _roll(self) -> None:
        fd = self._open(self._start + self._size)
        os.close(self._fd)
        self._fd = fd
        self._kept.append((self._start, self._size))
        self._start += self._size
        self._size = 0
        while len(self._kept) > 1 and sum(size for _, size in self._kept) + self._segment_size > self._cap:
            start, _ = self._kept.pop(1)
            os.unlink(segment_path(self._folder, start))

    def _open(self, start: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        return os.open(segment_path(self._folder, start), flags, 0o640)


def segment_path(folder: str, start: int) -> str:
    return f"{folder}/{start:020d}"


def overwritten(data: bytes) -> bytes:
    """What a terminal would still show: in each line, only what came after the last carriage return."""
    *lines, last = data.replace(b"\r\n", b"\n").split(b"\n")
    return b"".join(newest_state(line).rstrip(b"\r") + b"\n" for line in lines) + newest_state(last)


def newest_state(line: bytes) -> bytes:
    # A bar may send its return before or after its text; the trailing one is kept: it may be half of a "\r\n".
    text = line.rstrip(b"\r")
    return line[text.rfind(b"\r") + 1 : len(text) + 1]


def broken_up(lines: bytes) -> bytes:
    """The same lines, those longer than LONGEST_LINE cut into several.

    Looks back from each 16 kB mark for a newline, so ordinary text costs four searches for 64 kB.
    """
    if len(lines) <= LONGEST_LINE:
        return lines
    pieces = []
    at = 0
    while len(lines) - at > LONGEST_LINE:
        newline = lines.rfind(b"\n", at, at + LONGEST_LINE + 1)
        if newline >= 0:
            pieces.append(lines[at : newline + 1])
            at = newline + 1
        else:
            cut = character_start(lines, at + LONGEST_LINE)
            pieces.append(lines[at:cut] + b"\n")
            at = cut
    pieces.append(lines[at:])
    return b"".join(pieces)


def character_start(text: bytes, at: int) -> int:
    """`at`, or up to three bytes before it, so that a UTF-8 character is not cut in two."""
    for back in range(4):
        if text[at - back] & 0xC0 != 0x80:
            return at - back
    return at
