"""The backend `simulator`: a cluster on paper, on which a whole service can be rehearsed without a single GPU.

Time: whatever happens on it (starts, runs, time limits, repairs) takes its length divided by the speed, and every time
that is reported is a real one. At speed 60 a job of an hour is over in a minute, is seen to have run for a minute and
is billed for one: pages, bills and metering keep to one clock, and nothing is ever dated in the future.

State: one small file an attempt, put in place whole and never changed, which holds the attempt's future; a wish to stop
and the signals to save are files beside it, and another finds it by its job and number, for the next one to go on from
what it saved. No process remembers anything else, so any number of them may ask, and all see the same.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import UUID

from haein.cluster.backends.base import (
    Backend,
    BackendDown,
    Capability,
    DeviceFact,
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
from haein.cluster.backends.local import job_files, uploads
from haein.cluster.backends.local.records import sync_folder
from haein.cluster.backends.locking import alone
from haein.cluster.backends.simulator import futures, output
from haein.cluster.backends.simulator.failures import MEAN_BETWEEN_S, Failures
from haein.cluster.backends.simulator.futures import End, Future

# DGX B200 datasheet (NVIDIA, 2024): two Xeon Platinum 8570 of 56 cores, two threads each; 2 TB of memory.
NODE_CPUS = 224 * 1000
NODE_MEMORY_MB = 2 * 1024 * 1024
# A scalable unit of NVIDIA's DGX SuperPOD is 32 nodes (reference architecture for B200, 2025). Four in a rack, and that
# one node in eight is set aside for serving, is ours.
RACK, POD, SERVES_ONE_IN = 4, 32, 8
UPLOAD_CAP = 20_000 * 1024 * 1024
PYTHON = "python"
NO_LOG = LogChunk(start=0, next=0, end=0, skipped=0, lines=())


class SimulatorBackend(Backend):
    """`var` is Haein's data folder, `service_gid` the group of the web process where the worker is root. `speed` is how
    many simulated seconds pass in a real one; `clock` gives the real time."""

    name = "simulator"
    capabilities = frozenset({Capability.PYTHON_ENVIRONMENTS, Capability.FRACTIONS, Capability.MIG, Capability.GANGS})

    def __init__(
        self,
        var: Path,
        *,
        nodes: int = 129,
        devices: int = 8,
        model: str = "B200",
        device_memory_mb: int = 183_359,
        speed: int = 1,
        seed: int = 1,
        service_gid: int | None = None,
        mean_between_failures_s: float = MEAN_BETWEEN_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home = var.resolve() / "simulator"
        self._attempts, self._work = self._home / "attempts", self._home / "work"
        self._size = nodes, devices
        self._model, self._device_memory_mb = model, device_memory_mb
        self._speed, self._seed = speed, seed
        self._service_gid = service_gid
        self._failures = Failures(seed, mean_between_failures_s)
        self._clock = clock

    def environments(self) -> Sequence[Environment]:
        return [Environment(PYTHON, "Simulated: nothing is run")]

    def inventory(self) -> Sequence[NodeFact]:
        began, now = self._began(), self._clock()
        return [self._node(number, began, now) for number in range(self._size[0])]

    def _node(self, number: int, began: float, now: float) -> NodeFact:
        name = f"sim-{number + 1:03}"
        moment = (now - began) * self._speed
        failed = self._failures.at_or_after(name, moment)[0] <= moment
        problem = f"The node {name} has failed and is being repaired (simulated)." if failed else ""
        devices = tuple(
            DeviceFact(
                index, f"SIM-{name}-{index}", self._model, self._device_memory_mb, emulated=True, problem=problem
            )
            for index in range(self._size[1])
        )
        serves = number >= self._size[0] - self._size[0] // SERVES_ONE_IN
        return NodeFact(
            name,
            NODE_CPUS,
            NODE_MEMORY_MB,
            emulated=True,
            devices=devices,
            pool="serve" if serves else "train",
            labels=("ethernet",) if serves else ("infiniband",),
            rack=f"rack-{number // RACK + 1:02}",
            pod=f"pod-{number // POD + 1}",
        )

    def isolation(self) -> Isolation:
        return Isolation(True, "Jobs are simulated: nothing of theirs is run, so there is nothing to keep apart.")

    def launch(self, launch: Launch) -> None:
        try:
            if not self._record(launch.attempt_id).exists():
                self._launch(launch)
        except OSError as error:
            raise BackendDown(f"The simulated attempt could not be written down: {error}.") from error

    def _launch(self, launch: Launch) -> None:
        now, began = self._clock(), self._began()
        moment = (now - began) * self._speed
        fails_after, failing = min((self._failures.at_or_after(p.node, moment)[0], p.node) for p in launch.places)
        try:
            _check_environment(launch.environment)
            resumed_s, resumed_at = self._resumed(launch)
            future = futures.decide(
                launch,
                seed=self._seed,
                speed=self._speed,
                device_memory_mb=self._device_memory_mb,
                now=now,
                failing=failing,
                fails_at=fails_after / self._speed + began,
                resumed_s=resumed_s,
                resumed_at=resumed_at,
            )
            self._make_work(launch)
        except Refused as refusal:
            _claim(self._record(launch.attempt_id), futures.refused(str(refusal), now=now).pack())
            raise
        self._write_checkpoint(launch, future)
        if launch.checkpoints:
            _claim(self._turn(launch.job_id, launch.attempt_number), str(launch.attempt_id).encode())
        _claim(self._record(launch.attempt_id), future.pack())

    def _resumed(self, launch: Launch) -> tuple[float, float | None]:
        """What the job had saved of its work when its last attempt that began had ended, and when it had saved it."""
        if not launch.checkpoints:
            return 0.0, None
        for number in range(launch.attempt_number - 1, 0, -1):
            attempt = _read(str(self._turn(launch.job_id, number)))
            found = self._recall(UUID(attempt.decode())) if attempt else None
            if attempt and found:
                future, end = found
                signals = self._signals(UUID(attempt.decode()))
                return future.saved_s(end.at, signals), future.saved_at(end.at, signals)
        return 0.0, None

    def _make_work(self, launch: Launch) -> None:
        work = self._work / str(launch.job_id)
        if work.exists():
            return
        # Filled aside and renamed: a working folder that is there is whole.
        aside = self._work / f".{launch.job_id}.{secrets.token_hex(8)}"
        aside.mkdir(mode=0o750)
        try:
            if launch.upload:
                uploads.place(Path(launch.upload), launch.upload_name, aside, UPLOAD_CAP)
            if any(aside.glob(f"{futures.CHECKPOINT}*")):
                raise Refused(f"The upload holds a name that begins with {futures.CHECKPOINT!r}: rename it.")
            # Another launcher of the same attempt may be as fast, and an empty folder would be replaced by a rename
            # while that one is putting a file into it.
            with alone(self._work):
                if not work.exists():
                    aside.rename(work)
        finally:
            uploads.discard(aside)

    def _write_checkpoint(self, launch: Launch, future: Future) -> None:
        """After a third of the run there is a checkpoint: it is put there now, dated then, and not shown before."""
        if future.checkpoint:
            content = {"simulated": True, "job": str(launch.job_id), "attempt": launch.attempt_number}
            aside = self._work / f".{launch.attempt_id}.{secrets.token_hex(8)}"
            aside.write_text(json.dumps(content) + "\n")
            os.utime(aside, (future.checkpoint_at, future.checkpoint_at))
            aside.rename(self._work / future.checkpoint)

    def observe(self, attempts: Collection[UUID]) -> Mapping[UUID, Sight]:
        now = self._clock()
        return {attempt: self._see(attempt, now) for attempt in attempts}

    def _see(self, attempt: UUID, now: float) -> Sight:
        found = self._recall(attempt)
        if found is None:
            return Sight(attempt, Phase.UNKNOWN)
        future, end = found
        started_at = future.started_at if future.started_at < min(now, end.at) else None
        log_bytes = output.Log(future, end, now).end
        saved_at = future.saved_at(min(now, end.at), self._signals(attempt)) if future.saves else None
        if now >= end.at:
            return Sight(
                attempt,
                Phase.ENDED,
                started_at=started_at,
                ended_at=end.at,
                cause=end.cause,
                exit_code=end.exit_code,
                detail=end.detail,
                log_bytes=log_bytes,
                checkpointed_at=saved_at,
            )
        phase = Phase.UNKNOWN if started_at is None else Phase.RUNNING
        return Sight(attempt, phase, started_at=started_at, log_bytes=log_bytes, checkpointed_at=saved_at)

    def _recall(self, attempt: UUID) -> tuple[Future, End] | None:
        record = _read(str(self._record(attempt)))
        if record is None:
            return None
        wish = _read(str(self._wish(attempt)))
        future = Future.unpack(record)
        return future, future.end(float(wish) if wish else None)

    def stop(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            now, found = self._clock(), self._recall(attempt)
            if found is not None and now < found[1].at:
                try:
                    self._ask_to_stop(attempt, now)
                except OSError as error:
                    raise BackendDown(f"The wish to stop could not be written: {error}.") from error

    def _ask_to_stop(self, attempt: UUID, now: float) -> None:
        # The first wish counts: a later one would move an end that somebody may have seen.
        _claim(self._wish(attempt), repr(now).encode())
        found = self._recall(attempt)
        if found is not None and found[0].checkpoint and found[0].checkpoint_at > found[1].at:
            (self._work / found[0].checkpoint).unlink(missing_ok=True)

    def signal_checkpoint(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            now, found = self._clock(), self._recall(attempt)
            if found is None or not found[0].saves or not found[0].started_at < now < found[1].at:
                continue
            try:
                with open(self._saves(attempt), "a") as file:
                    file.write(f"{now!r}\n")
            except OSError as error:
                raise BackendDown(f"The wish to save could not be written: {error}.") from error

    def _signals(self, attempt: UUID) -> list[float]:
        # A line that is being written is not counted until it is whole.
        whole, _, _ = (_read(str(self._saves(attempt))) or b"").rpartition(b"\n")
        return [float(line) for line in whole.split()]

    def read_log(self, attempt: UUID, offset: int, limit: int) -> LogChunk:
        found = self._recall(attempt)
        return output.Log(*found, self._clock()).read(offset, limit) if found else NO_LOG

    def readings(self, attempts: Collection[UUID]) -> Sequence[Reading]:
        now, readings = self._clock(), []
        for attempt in attempts:
            found = self._recall(attempt)
            if found is not None and found[0].started_at < now < found[1].at:
                readings.append(output.reading(attempt, found[0], now))
        return readings

    def list_files(self, job: UUID, folder: PurePosixPath) -> Sequence[FileFact]:
        return [fact for fact in job_files.list_folder(self._work / str(job), folder) if not self._is_to_come(fact)]

    def open_file(self, job: UUID, path: PurePosixPath) -> tuple[BinaryIO, FileFact]:
        file, fact = job_files.open_regular(self._work / str(job), path)
        if self._is_to_come(fact):
            file.close()
            raise FileNotFoundError(f"{path} is not there.")
        return file, fact

    def _is_to_come(self, fact: FileFact) -> bool:
        return str(fact.path).startswith(futures.CHECKPOINT) and fact.modified_at > self._clock()

    def forget(self, attempts: Collection[UUID]) -> None:
        for attempt in attempts:
            if self._see(attempt, self._clock()).phase is Phase.ENDED:
                # The wish goes last: without it a stopped attempt would be running again.
                self._record(attempt).unlink(missing_ok=True)
                self._wish(attempt).unlink(missing_ok=True)
                self._saves(attempt).unlink(missing_ok=True)

    def _record(self, attempt: UUID) -> Path:
        return self._attempts / str(attempt)

    def _wish(self, attempt: UUID) -> Path:
        return self._attempts / f"{attempt}.stop"

    def _saves(self, attempt: UUID) -> Path:
        return self._attempts / f"{attempt}.save"

    def _turn(self, job: UUID, number: int) -> Path:
        return self._attempts / f"{job}.{number}"

    def _began(self) -> float:
        """When the cluster began, by the real clock: whoever asks first writes it down. Makes the folders too."""
        file = self._home / "began"
        try:
            if not file.exists():
                for folder in (self._home, self._attempts, self._work):
                    self._make(folder)
                _claim(file, repr(self._clock()).encode())
            return float(file.read_text())
        except OSError as error:
            raise BackendDown(f"The simulated cluster could not be written down: {error}.") from error

    def _make(self, folder: Path) -> None:
        folder.mkdir(mode=0o750, exist_ok=True)
        if os.geteuid() == 0 and self._service_gid is not None:
            os.chown(folder, 0, self._service_gid)  # the web process reads through its group, and writes nothing
            folder.chmod(0o2750)


def _check_environment(name: str) -> None:
    if ":" in name or "/" in name:
        raise Refused(f"The environment {name!r} is a container image, and the simulator knows {PYTHON} alone.")
    if name != PYTHON:
        raise Refused(f"There is no Python environment {name!r} on this cluster. Its Python environments: {PYTHON}.")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _claim(path: Path, content: bytes) -> None:
    """Put the file in place whole and durably, unless it is there."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        try:
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
    sync_folder(str(path.parent))
