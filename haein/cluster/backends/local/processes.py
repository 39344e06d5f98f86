"""Processes as /proc shows them, each known by its pid and start time, so that a reused pid is never taken for another.

The runner imports this file, so it stays with modules that start fast.
"""

from __future__ import annotations

import os
import signal

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Process:
    """One line of /proc/<pid>/stat: `started` and `cpu` (its own and its reaped children's) in clock ticks."""

    __slots__ = ("cpu", "parent", "pid", "rss", "session", "started", "state")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.cpu = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
        self.started = int(fields[19])
        self.rss = int(fields[21]) * PAGE

    @property
    def is_dead(self) -> bool:
        return self.state in (b"Z", b"X")


def read_proc(path: str) -> bytes:
    """The content of a file in /proc, empty when the process is gone or may not be looked at."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(fd)


def look(pid: int) -> Process | None:
    # The second field is the program's name in brackets and may itself hold spaces and brackets.
    fields = read_proc(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    return Process(pid, fields) if fields else None


def look_at_all() -> dict[int, Process]:
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += map(int, read_proc(f"/proc/{pid}/task/{thread}/children").split())
    return found


def descendants(root: int) -> list[Process]:
    """Every process under `root`, which itself is left out. A fork during the walk may be missed: walk again."""
    found: dict[int, Process] = {}
    waiting = children(root)
    while waiting:
        pid = waiting.pop()
        if pid in found or (process := look(pid)) is None:
            continue
        found[pid] = process
        waiting += children(pid)
    return list(found.values())


def first_that_catch(root: int, number: int) -> list[Process]:
    """On each way down from `root`, the first process with a handler for the signal.

    A shell that would die of it is passed over, and helpers that were forked with their parent's handler are left out.
    """
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if not _catches(pid, number):
            waiting += children(pid)
        elif process := look(pid):
            found.append(process)
    return found


def _catches(pid: int, number: int) -> bool:
    for line in read_proc(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def proportional_memory(pid: int) -> int | None:
    """Bytes of memory by /proc/<pid>/smaps_rollup, shared pages divided among their users; None where unreadable."""
    for line in read_proc(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def send(pid: int, started: int, number: int) -> bool:
    """Signal the process that has this pid and start time, and no other. False when it is gone or is not ours."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        process = look(pid)
        if process is None or process.started != started or process.is_dead:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def boot_id() -> str:
    return read_proc("/proc/sys/kernel/random/boot_id").decode().strip()
