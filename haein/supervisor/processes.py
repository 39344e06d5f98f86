"""Processes told apart for sure: a number alone may be somebody else's by now."""

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from haein.supervisor.layout import ROOT
from haein.supervisor.parts import Part

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


def spawn(part: Part, output: int) -> subprocess.Popen[bytes]:
    """Starts the part in a session of its own, told to end when the supervisor dies."""
    supervisor = os.getpid()

    def end_with_supervisor() -> None:
        # Runs after the change of account, which would have cleared it.
        _libc.prctl(PR_SET_PDEATHSIG, part.stop_signal)
        if os.getppid() != supervisor:
            os._exit(1)

    user, group, groups = part.account.change
    return subprocess.Popen(
        part.command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=ROOT,
        env=part.environ,
        user=user,
        group=group,
        extra_groups=groups,
        start_new_session=True,
        preexec_fn=end_with_supervisor,
    )


def remember(records: Path, part: Part, pid: int) -> None:
    """Leaves a record by which the next supervisor knows this process, should this one be killed."""
    new = records / f"{part.name}.new"
    known = (pid, _started(pid), _boot())
    ends = (int(part.stop_signal), int(part.last_signal), part.patience, int(part.owns_session))
    new.write_text(" ".join(map(str, (*known, *ends))) + "\n")
    new.rename(records / f"{part.name}.pid")


def forget(records: Path, part: Part) -> None:
    (records / f"{part.name}.pid").unlink(missing_ok=True)


def end_leftovers(records: Path, say: Callable[[str], None]) -> None:
    """Ends what a killed supervisor left running, and says which parts those are."""
    found = {record.stem: _Leftover(record.read_text()) for record in sorted(records.glob("*.pid"))}
    begun = time.monotonic()
    for name, leftover in found.items():
        if leftover.ask_to_end():
            say(f"{name} still runs without a supervisor; it is ended first.")
    for name, leftover in found.items():
        leftover.end(begun)
        (records / f"{name}.pid").unlink(missing_ok=True)


def end_session(leader: int) -> None:
    """Kills what is left of a session whose leader is dead, and waits until it has let go of its ports and files."""
    held = [descriptor for pid in _session(leader) if (descriptor := _open(pid)) is not None]
    for descriptor in held:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    deadline = time.monotonic() + 2
    for descriptor in held:
        select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        os.close(descriptor)


class _Leftover:
    """A recorded process, held by a descriptor so that it can't be taken for another, or nothing."""

    def __init__(self, record: str) -> None:
        self._descriptor: int | None = None
        self._sweeps = 0
        self._patience = 0.0
        known = record.split()
        if len(known) != 7:  # cut short by a full disk: there is nothing to know the process by
            return
        pid, started, boot = int(known[0]), int(known[1]), known[2]
        self._stop, self._last, self._patience = int(known[3]), int(known[4]), float(known[5])
        if boot != _boot():
            return
        descriptor = _open(pid)
        # While a session has members its number is given to no new process: with the leader gone they are its own.
        ours = descriptor is None or _started(pid) == started
        self._descriptor = descriptor if ours else None
        self._sweeps = pid if ours and known[6] == "1" else 0

    def ask_to_end(self) -> bool:
        return self._signal(self._stop) if self._descriptor is not None else False

    def end(self, begun: float) -> None:
        """Waits for it, from `begun` on as long as the part may take, and then no longer."""
        left = max(0, begun + self._patience - time.monotonic())
        if self._descriptor is not None and not self._ends_within(left):
            self._signal(self._last)
            if not self._ends_within(5):
                self._signal(signal.SIGKILL)
                self._ends_within(5)
        if self._sweeps:
            end_session(self._sweeps)

    def _signal(self, number: int) -> bool:
        assert self._descriptor is not None
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def _ends_within(self, seconds: float) -> bool:
        assert self._descriptor is not None
        return bool(select.select([self._descriptor], [], [], seconds)[0])


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _started(pid: int) -> int:
    """When the process began, in ticks since the machine did; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _session(leader: int) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != leader:
            fields = _stat(int(entry))
            if fields and int(fields[3]) == leader:
                yield int(entry)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; the name before may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
