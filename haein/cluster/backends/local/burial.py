"""What is done for an attempt whose runner died: its processes are ended, and only then is it called lost."""

from __future__ import annotations

import os
import signal
import time

from haein.cluster.backends.local import processes, records, scratch
from haein.cluster.backends.local.processes import Process

ROUNDS = 50
ROUND_S = 0.01
MARK = b"HAEIN_ATTEMPT_ID="


def bury(folder: str, start: dict[str, str], scratch_folder: str) -> None:
    """End what is left and write the exit record.

    Without the right to do so, or while something can't be ended, the attempt stays as it is: running, to whoever asks.
    """
    try:
        lock = records.hold(folder)
    except PermissionError:
        return
    if lock is None:
        return
    try:
        if not records.exists(folder, records.EXIT):
            _bury(folder, start)
            scratch.remove(scratch_folder)
    except PermissionError:
        return
    finally:
        os.close(lock)


def _bury(folder: str, start: dict[str, str]) -> None:
    usage = records.read(folder, records.USAGE) or {}
    last_seen = max(float(start["started_at"]), float(usage.get("at", 0)))
    detail = "The machine was restarted while the job ran."
    ended_at = last_seen
    if start["boot"] == processes.boot_id():
        detail = "The process that looked after the job died, so the job was ended."
        found = end_leftovers(start, usage)
        if found is None:
            return
        ended_at = time.time() if found else last_seen
    record = [("started_at", start["started_at"]), ("ended_at", f"{ended_at:.6f}"), ("cause", "LOST")]
    record += [("exit_code", ""), ("signal", ""), ("detail", detail)]
    records.replace(folder, records.EXIT, record, durable=True)


def end_leftovers(start: dict[str, str], usage: dict[str, str]) -> bool | None:
    """Kill until nothing is left. Whether there was anything; None when something is still there."""
    found = False
    for _ in range(ROUNDS):
        left = leftovers(start, usage)
        if not left:
            return found
        found = True
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in left:
                processes.send(process.pid, process.started, number)
        time.sleep(ROUND_S)
    return None


def leftovers(start: dict[str, str], usage: dict[str, str]) -> list[Process]:
    """Every living process of the attempt.

    Known by pid and start time from the runner's records, by the attempt's id in the environment, or by the job's own
    user; then whatever those have started or share a session with.
    """
    everything = {pid: process for pid, process in processes.look_at_all().items() if not process.is_dead}
    named = {(int(start["pid"]), int(start["pid_started"]))}
    named |= {_pid_and_start(item) for item in usage.get("tree", "").split()}
    mark = MARK + start["attempt"].encode()
    uid = int(start["uid"])
    family = {
        process.pid
        for process in everything.values()
        if (process.pid, process.started) in named or _is_marked(process.pid, mark, uid)
    }
    while more := _kin(everything, family):
        family |= more
    return [everything[pid] for pid in family]


def _kin(everything: dict[int, Process], family: set[int]) -> set[int]:
    sessions = {everything[pid].session for pid in family}
    return {
        process.pid
        for process in everything.values()
        if process.pid not in family and (process.parent in family or process.session in sessions)
    }


def _is_marked(pid: int, mark: bytes, uid: int) -> bool:
    if uid and _user_of(pid) == uid:
        return True
    return mark in processes.read_proc(f"/proc/{pid}/environ").split(b"\0")


def _user_of(pid: int) -> int | None:
    for line in processes.read_proc(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def _pid_and_start(item: str) -> tuple[int, int]:
    pid, _, started = item.partition(":")
    return int(pid), int(started)
