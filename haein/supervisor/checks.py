"""What is looked at before anything is started; each thing in the way is one line that says what to do."""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from haein.supervisor.layout import ROOT, Layout
from haein.supervisor.refusal import Refusal

# Raised when a change to the data folder makes older versions unable to read it.
DATA_FORMAT = 1
LEAST_FREE_MB = 500


def app_version() -> str:
    """The newest heading of the changelog."""
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("## "))


def hold(layout: Layout, address: str) -> int:
    """Takes the data folder for this process; the descriptor returned holds it. Raises Refusal."""
    held = os.open(layout.var / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, where = os.read(held, 200).decode(errors="replace").strip().partition(" ")
        raise Refusal(
            f"Haein already runs on {layout.var} (process {pid}, {where}): use it, or stop it with Ctrl-C there "
            f"or `kill {pid}`; HAEIN_VAR and HAEIN_PORT make a second one."
        ) from None
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()} {address}\n".encode(), 0)
    return held


def same_or_newer(layout: Layout) -> None:
    """Refuses data that a newer version has written."""
    try:
        known = dict(line.split() for line in (layout.var / "version").read_text().splitlines())
    except (OSError, ValueError):
        return
    now = app_version()
    if int(known.get("format", 0)) > DATA_FORMAT or _numbers(known.get("haein", "0")) > _numbers(now):
        raise Refusal(
            f"{layout.var} was last used by Haein {known.get('haein')}, and this is {now}, which is older: "
            f"run the newer version, or choose another folder with HAEIN_VAR."
        )


def write_version(layout: Layout) -> None:
    path = layout.var / "version"
    text = f"format {DATA_FORMAT}\nhaein {app_version()}\n"
    if not path.exists() or path.read_text() != text:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)


def free_mb(folder: Path) -> int:
    there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize >> 20


def room(folder: Path) -> None:
    free = free_mb(folder)
    if free < LEAST_FREE_MB:
        raise Refusal(
            f"The disk of {folder} has {free} MB free, and Haein needs {LEAST_FREE_MB} to start: "
            f"free some room, or choose a folder on another disk with HAEIN_VAR."
        )


def port_free(host: str, port: int) -> None:
    """Refuses an address that somebody else listens on, or that this machine does not have."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except socket.gaierror:
        raise Refusal(f"HAEIN_BIND is {host}, which names no address: 127.0.0.1 and 0.0.0.0 are usual.") from None
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise Refusal(
                f"Port {port} of {host} is taken{_taker(port)}: "
                f"choose another, for example HAEIN_PORT={port % 65535 + 1} make up."
            ) from None
        if problem.errno == errno.EACCES:
            raise Refusal(f"Port {port} is open to root only: choose one from 1024 on with HAEIN_PORT.") from None
        raise Refusal(f"HAEIN_BIND is {host}, where this machine can't listen ({problem.strerror}).") from None


def _taker(port: int) -> str:
    """Who listens on the port, as far as we may know."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            inodes |= {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(descriptor) in wanted for descriptor in (process / "fd").iterdir()):
                return f" by {(process / 'comm').read_text().strip()} (process {process.name})"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
