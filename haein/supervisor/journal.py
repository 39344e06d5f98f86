"""The one log: each line named after its part, on the screen and in a file that can't grow without end."""

import errno
import io
import os
import select
import sys
import time
from pathlib import Path

LARGEST = 8 << 20  # bytes of one file; one older is kept beside it
WIDEST = 8 << 10  # bytes of one line
PATIENCE = 1.0  # seconds that a screen which takes nothing may hold the parts up
COLOURS = {"haein": "1", "web": "36", "worker": "33", "beat": "35", "postgres": "34", "valkey": "32"}


class Journal:
    def __init__(self, file: Path, *, screen: bool = True) -> None:
        self._path = file
        self._file = self._open()
        self._screen = sys.stdout.fileno() if screen else None
        self._coloured = screen and os.isatty(sys.stdout.fileno()) and not os.environ.get("NO_COLOR")
        self._stalled = False
        self._complained = -1e9

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self.line("haein", text)

    def line(self, part: str, text: str) -> None:
        text = _plain(text)
        self._keep(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {part:<8} | {text}\n".encode())
        colour = COLOURS.get(part, "37")
        prefix = f"\033[{colour}m{part:<8} |\033[0m" if self._coloured else f"{part:<8} |"
        self._show(f"{prefix} {text}\n".encode())

    def complain_of_disk(self, text: str) -> None:
        """Says it once a minute at most, and on the screen in any case: the file may have no room."""
        if time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            self.say(text)

    def close(self) -> None:
        self._file.close()

    def _keep(self, line: bytes) -> None:
        try:
            if self._file.tell() > LARGEST:
                self._path.rename(self._path.with_suffix(".log.1"))
                full, self._file = self._file, self._open()
                full.close()
            self._file.write(line)
        except OSError as problem:
            if problem.errno in {errno.ENOSPC, errno.EDQUOT}:
                self.complain_of_disk(
                    f"The disk of {self._path.parent} is full: free some room; the parts go on by themselves."
                )

    def _show(self, line: bytes) -> None:
        if self._screen is None:
            return
        try:
            # A terminal stopped with Ctrl-S must not stop the parts: what it does not take is in the file.
            if not select.select([], [self._screen], [], 0 if self._stalled else PATIENCE)[1]:
                self._stalled = True
                return
            if self._stalled:
                self._stalled = False
                os.write(self._screen, f"... more is in {self._path}\n".encode())
            os.write(self._screen, line)
        except OSError:  # nobody reads any more
            self._screen = None

    def _open(self) -> io.FileIO:
        return open(self._path, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600))


def _plain(text: str) -> str:
    """Without what could steer a terminal: a job's name or a request's path may end up in a log."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:WIDEST])
