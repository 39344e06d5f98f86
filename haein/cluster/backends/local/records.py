"""What is written in an attempt's folder, so that the runner and every reader agree on it without sharing a process.

The runner imports this file, so it stays with modules that start fast: a record is `key=value` pairs, each ended by a
NUL (the form of /proc/<pid>/environ), because importing json alone would cost each runner 6 ms and 1.4 MB.

The order in which records come into being is what keeps a command from running twice:

1. `order`  the launcher says what is to be run;
2. `lock`   the runner holds it (flock) from before its start record until it is gone;
3. `start`  made by link(2), which fails if it is there, and made durable before the command is let go;
4. `exit`   the last word, written once the whole process tree is gone.

No `start` and no `exit` means that the command never ran, so launching again is safe. A `start` without an `exit`
whose lock is free means that the runner died.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from _thread import get_native_id

ORDER = "order"
LOCK = "lock"
START = "start"
EXIT = "exit"
STOP = "stop"
SAVE = "save"
USAGE = "usage"
LOG = "log"
RUNNER_ERRORS = "runner.err"

Pairs = list[tuple[str, str]]


def pack(pairs: Pairs) -> bytes:
    return b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in pairs)


def unpack(data: bytes) -> Pairs:
    pairs = []
    for item in data.split(b"\0")[:-1]:
        key, _, value = os.fsdecode(item).partition("=")
        pairs.append((key, value))
    return pairs


def read(folder: str, name: str) -> dict[str, str] | None:
    """The record as a mapping (the last of repeated keys), or None where there is none."""
    pairs = read_pairs(folder, name)
    return None if pairs is None else dict(pairs)


def read_pairs(folder: str, name: str) -> Pairs | None:
    # In a cluster of many machines the job's own user writes in that folder: no link is followed, no pipe waited for.
    try:
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            return None
        raise
    with open(fd, "rb", buffering=0) as file:
        return unpack(file.read()) if stat.S_ISREG(os.fstat(fd).st_mode) else None


def exists(folder: str, name: str) -> bool:
    return os.path.exists(f"{folder}/{name}")


def replace(folder: str, name: str, pairs: Pairs, *, durable: bool, mode: int = 0o640) -> None:
    """Put the record in place whole; the newest writer wins."""
    temporary = write_aside(folder, name, pairs, durable=durable, mode=mode)
    os.rename(temporary, f"{folder}/{name}")
    if durable:
        sync_folder(folder)


def write_aside(folder: str, name: str, pairs: Pairs, *, durable: bool, mode: int = 0o640) -> str:
    temporary = f"{folder}/.{name}.{os.getpid()}.{get_native_id()}"
    try:  # noqa: SIM105  (contextlib is one more import for every runner)
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.write(fd, pack(pairs))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    return temporary


def claim(folder: str, name: str, temporary: str) -> bool:
    """Give the file written aside its name, durably, unless that name is taken. True for the one who got it."""
    try:
        os.link(temporary, f"{folder}/{name}")
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    sync_folder(folder)
    return True


def sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def hold(folder: str) -> int | None:
    """Take the attempt's lock and return the descriptor that holds it, or None while somebody else does."""
    fd = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_held(folder: str) -> bool:
    """Whether a runner (or someone who buries one) is alive. Needs no more than the right to read."""
    try:
        fd = os.open(f"{folder}/{LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
