"""The backend `local`: attempts are real processes on this machine, each beside a runner that outlives everything else.

Nothing here remembers what runs: the folder of each attempt says it all, so any process may ask, at any time.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import UUID

from haein.cluster.backends.base import (
    Backend,
    BackendDown,
    Capability,
    Cause,
    Environment,
    FileFact,
    Isolation,
    Launch,
    LogChunk,
    NodeFact,
    Phase,
    Reading,
    Refused,
    Sight,
)
from haein.cluster.backends.local import (
    burial,
    devices,
    job_files,
    locks,
    log_reading,
    orders,
    preparing,
    processes,
    records,
)
from haein.cluster.backends.locking import alone

RUNNER = Path(__file__).with_name("runner.py")
START_WAIT_S = 0.3
READING_AGE_S = 5.0
MIB = 1024 * 1024


class LocalBackend(Backend):
    """`var` is Haein's data folder. `service_gid` is the group of the web process, which reads logs and files when jobs
    run under users of their own; their numbers (and the teams' groups) come from the range `job_uids`. `locks_off`
    names locks that are not put on jobs though the kernel has them (of locks.MAY_BE_LEFT_OFF)."""

    name = "local"
    capabilities = frozenset({Capability.PYTHON_ENVIRONMENTS, Capability.FRACTIONS})

    def __init__(
        self,
        var: Path,
        *,
        emulated_devices: int = 8,
        emulated_model: str = "Emulated GPU",
        emulated_memory_mb: int = 81920,
        service_gid: int | None = None,
        # Of no distribution's ranges: systemd's table of user ids calls 1879048192 to 2147483647 unused.
        job_uids: tuple[int, int] = (1_900_000_000, 1_900_999_999),
        log_cap_mb: int = 128,
        upload_cap_mb: int = 20_000,
        locks_off: frozenset[str] = frozenset(),
    ) -> None:
        self._layout = preparing.Layout(var.resolve())
        self._emulated = (emulated_devices, emulated_model, emulated_memory_mb)
        self._service_gid = service_gid
        self._job_uids = job_uids
        self._log_cap = log_cap_mb * MIB
        self._upload_cap = upload_cap_mb * MIB
        self._locks_off = locks_off

    def environments(self) -> Sequence[Environment]:
        return [
            environment_fact(self._layout.environments / name) for name in preparing.environment_names(self._layout)
        ]

    def inventory(self) -> Sequence[NodeFact]:
        found = devices.nvidia_devices() or devices.emulated_devices(self._layout.var, *self._emulated)
        return [devices.this_node(found)]

    def isolation(self) -> Isolation:
        # As root, whoever is no root itself (the web process) knows by its group that jobs have users of their own.
        users = os.geteuid() == 0 or self._service_gid is not None
        return locks.found(users=users, off=self._locks_off).isolation()

    def launch(self, launch: Launch) -> None:
        try:
            folder = preparing.make_attempt_folder(self._layout, launch.attempt_id, self._service_gid)
            with alone(folder):
                if not _has_begun(folder):
                    self._launch(launch, folder)
        except OSError as error:
            raise BackendDown(f"The attempt could not be prepared on disk: {error}.") from error

    def _launch(self, launch: Launch, folder: Path) -> None:
        try:
            environment = preparing.environment_folder(self._layout, launch.environment)
            owner = preparing.owner_of(launch, self._layout, self._job_uids, self._service_gid)
            held = locks.found(users=bool(owner.uid), off=self._locks_off)
            order = preparing.write_order(launch, self._layout, owner, environment, self._log_cap, held)
            preparing.make_job_folders(launch, self._layout, owner, self._upload_cap)
        except Refused as refusal:
            _record_refusal(folder, str(refusal))
            raise
        # Holds the user's variables, which may be secrets, so nobody else reads it.
        records.replace(str(folder), records.ORDER, orders.to_pairs(order), durable=False, mode=0o600)
        _start_runner(folder)

    def observe(self, attempts: Collection[UUID]) -> Mapping[UUID, Sight]:
        return {attempt: self._see(attempt) for attempt in attempts}

    def _see(self, attempt: UUID) -> Sight:
        folder = str(self._layout.attempt(attempt))
        end, start = records.read(folder, records.EXIT), records.read(folder, records.START)
        if end is None and start is not None and not records.is_held(folder):
            # Looked at again, as the runner may have ended between the two looks.
            end = records.read(folder, records.EXIT)
            if end is None:
                burial.bury(folder, start, str(self._layout.scratch(attempt)))
                end = records.read(folder, records.EXIT)
        if end is not None:
            return ended_sight(attempt, end, self._log_end(attempt), _checkpointed_at(start))
        if start is not None:
            started_at = float(start["started_at"])
            return Sight(
                attempt,
                Phase.RUNNING,
                started_at=started_at,
                log_bytes=self._log_end(attempt),
                checkpointed_at=_checkpointed_at(start),
            )
        return Sight(attempt, Phase.UNKNOWN)

    def _log_end(self, attempt: UUID) -> int:
        return log_reading.end_of(self._layout.attempt(attempt) / records.LOG)

    def stop(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            folder = self._layout.attempt(attempt)
            if folder.exists() and not records.exists(str(folder), records.EXIT):
                self._ask_to_stop(str(folder))

    def _ask_to_stop(self, folder: str) -> None:
        """The record is the wish, which the runner finds within a second; the signal only makes it look at once."""
        try:
            records.replace(folder, records.STOP, [("at", f"{time.time():.6f}")], durable=False)
        except OSError as error:
            raise BackendDown(f"The wish to stop could not be written: {error}.") from error
        if start := records.read(folder, records.START):
            processes.send(int(start["runner"]), int(start["runner_started"]), signal.SIGTERM)

    def signal_checkpoint(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            folder = str(self._layout.attempt(attempt))
            if records.exists(folder, records.START) and not records.exists(folder, records.EXIT):
                try:  # the runner finds it within a second
                    records.replace(folder, records.SAVE, [("at", f"{time.time():.6f}")], durable=False)
                except OSError as error:
                    raise BackendDown(f"The wish to save could not be written: {error}.") from error

    def read_log(self, attempt: UUID, offset: int, limit: int) -> LogChunk:
        return log_reading.read(self._layout.attempt(attempt) / records.LOG, offset, limit)

    def readings(self, attempts: Collection[UUID]) -> Sequence[Reading]:
        found = (self._reading(attempt) for attempt in attempts)
        return [reading for reading in found if reading is not None]

    def _reading(self, attempt: UUID) -> Reading | None:
        folder = str(self._layout.attempt(attempt))
        usage, start = records.read(folder, records.USAGE), records.read(folder, records.START)
        if usage is None or start is None or records.exists(folder, records.EXIT):
            return None
        at = float(usage["at"])
        if time.time() - at > READING_AGE_S:
            return None
        cpu, memory = float(usage["cores"]), float(usage["memory_mb"])
        return Reading(attempt, at, cpu, memory, int(usage["processes"]), _device_rows(start, usage, cpu, memory))

    def list_files(self, job: UUID, folder: PurePosixPath) -> Sequence[FileFact]:
        return job_files.list_folder(self._layout.work(job), folder)

    def open_file(self, job: UUID, path: PurePosixPath) -> tuple[BinaryIO, FileFact]:
        return job_files.open_regular(self._layout.work(job), path)

    def forget(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            folder = self._layout.attempt(attempt)
            if records.exists(str(folder), records.EXIT) and not records.is_held(str(folder)):
                shutil.rmtree(self._layout.scratch(attempt), ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)


def environment_fact(folder: Path) -> Environment:
    description = "Python"
    settings = folder / "pyvenv.cfg"
    if settings.exists():
        for line in settings.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() in ("version", "version_info"):
                description = f"Python {value.strip()}"
    return Environment(folder.name, description, ready=(folder / preparing.READY).exists())


def _has_begun(folder: Path) -> bool:
    return records.exists(str(folder), records.START) or records.exists(str(folder), records.EXIT)


def _record_refusal(folder: Path, sentence: str) -> None:
    now = f"{time.time():.6f}"
    record = [("started_at", ""), ("ended_at", now), ("cause", Cause.NOT_STARTED.name)]
    record += [("exit_code", ""), ("signal", ""), ("detail", sentence)]
    records.replace(str(folder), records.EXIT, record, durable=True)


def _start_runner(folder: Path) -> None:
    """Start it detached, and wait a moment for its start record, so that whoever observes next sees it running."""
    ready, ready_end = os.pipe()
    try:
        with (folder / records.RUNNER_ERRORS).open("ab") as errors:
            subprocess.run(
                # Not the server's virtual environment: the runner needs none of it, and must outlive it.
                [sys._base_executable, "-I", "-S", "-E", str(RUNNER), str(folder), str(ready_end)],  # type: ignore[attr-defined]
                env={"LC_ALL": "C.UTF-8"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(ready_end,),
                start_new_session=True,
                check=True,
            )
        os.close(ready_end)
        ready_end = -1
        begun, _, _ = select.select([ready], [], [], START_WAIT_S)
    except subprocess.CalledProcessError as error:
        raise BackendDown(f"The runner could not be started: {_last_line(folder)}") from error
    finally:
        os.close(ready)
        if ready_end >= 0:
            os.close(ready_end)
    if begun and not _has_begun(folder) and not records.is_held(str(folder)):
        raise BackendDown(f"The runner ended before its job began: {_last_line(folder)}")


def _last_line(folder: Path) -> str:
    lines = (folder / records.RUNNER_ERRORS).read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing."


def _checkpointed_at(start: dict[str, str] | None) -> float | None:
    return saved_at((start or {}).get("checkpoint", ""))  # runners of 0.3 recorded none


def saved_at(path: str) -> float | None:
    """The job owns that file and gives it any date: one to come is taken for now, one before all time for none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_mtime < 0:
        return None
    return min(status.st_mtime, time.time())


def ended_sight(attempt: UUID, end: Mapping[str, str], log_bytes: int, checkpointed_at: float | None) -> Sight:
    """What the last record says of an attempt."""
    return Sight(
        attempt,
        Phase.ENDED,
        started_at=float(end["started_at"]) if end["started_at"] else None,
        ended_at=float(end["ended_at"]),
        cause=Cause[end["cause"]],
        exit_code=int(end["exit_code"]) if end["exit_code"] else None,
        signal=int(end["signal"]) if end["signal"] else None,
        detail=end["detail"],
        log_bytes=log_bytes,
        checkpointed_at=checkpointed_at,
    )


def _device_rows(start: dict[str, str], usage: dict[str, str], cpu: float, memory: float) -> tuple[devices.Row, ...]:
    held = start["devices"].split()
    if not held:
        return ()
    if held[0].startswith(devices.EMULATED):
        return tuple(devices.emulated_rows(held, cpu, int(start["cpus"]) / 1000, memory))
    pids = {int(item.partition(":")[0]) for item in usage["tree"].split()}
    return tuple(devices.nvidia_row(device, pids) for device in held)
