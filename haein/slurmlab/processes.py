"""Starting Slurm's daemons, and ending them with all that runs for them, even when their starter was killed.

What a daemon of a lab starts with names the lab's folder in its environment (MARK). What runs for a job is known by the
two variables that slurmstepd gives it, and slurmstepd itself, which writes its title over its environment, by the log
that it holds open.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

MARK = "HAEIN_SLURM_LAB"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    command: list[str], environ: dict[str, str], output: IO[bytes] | int, account: tuple[int, int] | None
) -> subprocess.Popen[bytes]:
    """Starts a daemon in the foreground of a session of its own, as another account where one is given (user, group).
    It is killed when the thread that started it ends."""
    starter = os.getpid()

    def end_with_starter() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the starter may hold signals back, the daemon must hear them
        # Runs after the change of account, which would have cleared it.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:
            os._exit(1)

    user, group = account or (None, None)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environ,
        user=user,
        group=group,
        extra_groups=None if account is None else [],
        start_new_session=True,
        preexec_fn=end_with_starter,
    )


def daemons(folder: Path) -> list[int]:
    """The daemons that a lab on this folder has started, whoever started them."""
    mark = _assignment(MARK, str(folder))
    return [pid for pid in _everything() if mark in _environ(pid)]


def work(folder: Path, node: str = "") -> list[int]:
    """What runs for the jobs of the lab, on one node or on all: the steps, and the processes below them."""
    conf, name = _assignment("SLURM_CONF", f"{folder}/etc/slurm.conf"), _assignment("SLURMD_NODENAME", node)
    # Without a node's name its value, and the end of it, may be anything.
    wanted = name if node else name.removesuffix(b"\0")
    found = set()
    for pid in _everything():
        environ = _environ(pid)
        if (conf in environ and wanted in environ) or _is_step(pid, folder, node):
            found.add(pid)
    return [*found, *_below(found)]


def kill(pids: Iterable[int]) -> None:
    """Kills them and waits until they are gone."""
    held = [descriptor for pid in pids if (descriptor := _open(pid)) is not None]
    for descriptor in held:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for descriptor in held:
        select.select([descriptor], [], [], 10)
        os.close(descriptor)


def kill_all(look: Callable[[], list[int]]) -> None:
    """Kills what is seen until nothing more is: a process may start another while we look."""
    while pids := look():
        kill(pids)


def _is_step(pid: int, folder: Path, node: str) -> bool:
    try:
        if Path(f"/proc/{pid}/comm").read_text() != "slurmstepd\n":
            return False
        logs = {os.readlink(f"/proc/{pid}/fd/{entry}") for entry in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return False
    log = f"{folder}/log/{node}"
    return any(path.startswith(log) and (not node or path == f"{log}.log") for path in logs)


def _below(pids: set[int]) -> Iterator[int]:
    """The descendants of these that are not among them."""
    children: dict[int, list[int]] = {}
    for pid in _everything():
        children.setdefault(_parent(pid), []).append(pid)
    todo, seen = list(pids), set(pids)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in seen:
                seen.add(child)
                todo.append(child)
                yield child


def _everything() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())


def _environ(pid: int) -> bytes:
    """Empty for a process that is gone, has ended, or is not ours to look at."""
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _assignment(name: str, value: str) -> bytes:
    return b"\0" + os.fsencode(f"{name}={value}") + b"\0"


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
