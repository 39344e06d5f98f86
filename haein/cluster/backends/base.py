"""The contract between Haein and whatever runs the work: every backend answers these questions and no others.

The words used here:

- an *attempt* is one run of a job; its id (a UUID made by Haein) is the identity of the run everywhere;
- a backend is *asked*, it never calls back: it imports nothing of jobs, and it never writes to the database;
- every method may be called again with the same arguments, from another process, after any process was killed.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO
from uuid import UUID


class BackendDown(Exception):
    """The backend can't be asked now (a socket, a daemon, a network). Nothing was changed; ask again later."""


class Refused(Exception):
    """The backend will never accept this launch. The message is a sentence for the job's owner."""


class Capability(enum.Enum):
    """What a backend may or may not be able to do; asked for before a job is accepted."""

    PYTHON_ENVIRONMENTS = "python environments"
    CONTAINER_IMAGES = "container images"
    FRACTIONS = "fractions"
    MIG = "MIG instances"
    GANGS = "gangs"


@dataclass(frozen=True, slots=True)
class Environment:
    """A named Python environment that jobs may ask for. `ready` is False while it is being made."""

    name: str
    description: str
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Cut:
    """One MIG instance of a device that is carved already: its profile, and the memory slice it starts at."""

    profile: str
    start: int


@dataclass(frozen=True, slots=True)
class DeviceFact:
    """One GPU as the backend sees it. `memory_mb` in MiB, 0 where nobody knows; `problem` is a sentence when it is not
    healthy. A device that somebody else has carved, for good, has a `layout`: it gives these MIG instances and nothing
    else."""

    index: int
    uuid: str
    model: str
    memory_mb: int
    emulated: bool
    problem: str = ""
    layout: tuple[Cut, ...] = ()


class Drain(enum.Enum):
    """Whose drain has an engine place nothing more on a node."""

    OURS = "ours"  # drain() of this Haein, which resume() takes back
    THEIRS = "theirs"  # somebody's with the engine's own tools, or the engine's own


@dataclass(frozen=True, slots=True)
class NodeFact:
    """One machine. `cpus` in thousandths of a core, `memory_mb` in MiB: what jobs may use of it.

    `pool` and `labels` are what requests may ask for by name; `rack` and `pod` say which nodes are near each other.
    Empty where the backend knows of none. `problem` is a sentence when the node takes no work for another reason than a
    drain of ours; `drain` says whether the engine itself drains it, and by whose wish.
    """

    name: str
    cpus: int
    memory_mb: int
    emulated: bool
    devices: tuple[DeviceFact, ...]
    pool: str = ""
    labels: tuple[str, ...] = ()
    rack: str = ""
    pod: str = ""
    problem: str = ""
    drain: Drain | None = None


@dataclass(frozen=True, slots=True)
class SliceGrant:
    """A slice of one device that a worker may use.

    Of a whole device or a share, `units` are thousandths (1000 is the whole device) and `memory` is MiB of its memory
    (0 where nobody counts it). A MIG instance has a `profile` and the memory slice it starts at; then both are in
    56ths.
    """

    device_uuid: str
    device_index: int
    units: int
    memory: int = 0
    profile: str = ""
    start: int = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker of an attempt runs, and the slices that are its own there."""

    node: str
    slices: tuple[SliceGrant, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """Work on one node that was not submitted through Haein, and what it takes of the node.

    `cpus` in thousandths of a core, `memory_mb` in MiB. `name` says what it is in the engine's own words (its id
    there), `owner` whose it is there; `since` in seconds since the epoch.
    """

    name: str
    owner: str
    node: str
    cpus: int
    memory_mb: int
    slices: tuple[SliceGrant, ...]
    since: float


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a backend needs to start one attempt.

    `places` has one place for each worker, by rank: one, unless the attempt is a gang's (Capability.GANGS). Its workers
    all run the command; they start together, and when one of them has ended otherwise than by exit code 0, all are
    ended. `cpus` in thousandths of a core and `memory_mb` in MiB are for each worker, times in seconds. `variables` are
    the user's own and those of the job's array; the backend adds its own (HAEIN_*, CUDA_VISIBLE_DEVICES, HOME ...),
    which win. `upload` is an absolute path of a file or .tar.gz/.zip archive that the server keeps, to be copied (or
    unpacked) into the job's folder on its first attempt. A job that `checkpoints` saves its work when it gets SIGUSR1,
    and says that it has by touching the file named in HAEIN_CHECKPOINT (see signal_checkpoint). `environment` names one
    of `environments()` or is an image reference. `organization_id` and `team_id` say whose it is, for an engine that
    keeps accounts of its own.
    """

    attempt_id: UUID
    attempt_number: int
    job_id: UUID
    job_name: str
    team_id: UUID
    command: str
    environment: str
    places: tuple[Place, ...]
    cpus: int
    memory_mb: int
    time_limit_s: int
    grace_s: int
    variables: Mapping[str, str] = field(default_factory=dict)
    upload: str = ""
    upload_name: str = ""
    checkpoints: bool = False
    organization_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """How the jobs of one organization are kept from those of another.

    `separates_tenants` is False where a job could reach another organization's files or processes: then there may be
    only one organization. `sentence` says, in English, by what they are kept apart, or else what is missing and what
    to do about it.
    """

    separates_tenants: bool
    sentence: str


class Phase(enum.Enum):
    """How far an attempt has come, as the backend sees it."""

    UNKNOWN = "unknown"  # never launched here, or launched and not yet begun: launching it (again) is safe
    RUNNING = "running"
    ENDED = "ended"


class Cause(enum.Enum):
    """Why an attempt ended. The operator's faults are those whose time nobody pays for."""

    EXITED = "exited"  # by itself, with `exit_code`
    SIGNALLED = "signalled"  # by a signal that Haein did not send, `signal`
    TIME_LIMIT = "time limit"
    MEMORY_LIMIT = "memory limit"
    STOPPED = "stopped"  # because stop() was called
    NOT_STARTED = "not started"  # the command could not be started: the user's fault (no such file, ...)
    LOST = "lost"  # the machine or the runner went away: the operator's fault
    NOT_TAKEN = "not taken"  # the engine found no room for it and it was taken back before it ran: nobody's fault
    PREEMPTED = "preempted"  # the engine ended it for other work, by rules of its own
    ENDED_OUTSIDE = "ended outside"  # somebody ended it with the engine's own tools


@dataclass(frozen=True, slots=True)
class Sight:
    """What the backend knows of one attempt.

    Times are seconds since the epoch, by the clock of the machine that ran it. `started_at` is the moment the
    command's process ran; `ended_at` the moment its whole process tree was gone. `checkpointed_at` is when the job last
    said, in this run or an earlier one, that its work is saved; None where it never did, or does not checkpoint.
    `detail` is a sentence for the job's owner, in English; of one that was taken and has not begun it says what it
    waits for, and as long as it does the attempt is not launched again.
    `places` says by rank where it runs, from an engine that chooses devices itself; empty where it runs as launched.
    """

    attempt_id: UUID
    phase: Phase
    started_at: float | None = None
    ended_at: float | None = None
    cause: Cause | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    log_bytes: int = 0
    checkpointed_at: float | None = None
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a job's log: `at` in seconds since the epoch, `stream` one of "out", "err", "haein"."""

    at: float
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Whole lines of a log between two offsets.

    Offsets are bytes into the log as it was written and only grow; they stay valid when old parts were dropped by the
    cap. `skipped` counts the bytes between what was asked for and `start` that are no longer kept.
    `next` is where the following chunk begins; `end` is the log's present end.
    """

    start: int
    next: int
    end: int
    skipped: int
    lines: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one attempt uses at one instant, all its workers together. `cpu` is cores in use (1.5 is one and a half),
    `memory_mb` MiB of host memory. `devices` has one row per slice held: (uuid of its device, utilization in percent,
    memory in MiB); None where the reading does not exist, as for the utilization of a MIG instance."""

    attempt_id: UUID
    at: float
    cpu: float | None
    memory_mb: float | None
    processes: int
    devices: tuple[tuple[str, float | None, float | None], ...]


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file or folder in a job's working folder; `path` relative to it, `size` in bytes."""

    path: PurePosixPath
    is_folder: bool
    size: int
    modified_at: float
    # Another one whenever the content is, as far as the backend can tell; "" for a folder.
    version: str = ""


class Backend(abc.ABC):
    """A cluster backend. Any method may raise BackendDown; none raises for an attempt that it does not know."""

    name: str
    # Whether it has a queue of its own, so that what was launched begins when it says; else that is at once.
    queues: bool = False
    # How many threads may be in launch() at one time.
    launches_at_once: int = 4

    @property
    @abc.abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What it is able to do."""

    @property
    def share_step(self) -> int:
        """Shares of a device are multiples of so many thousandths; where that is more than 1, a worker has one."""
        return 1

    @abc.abstractmethod
    def environments(self) -> Sequence[Environment]:
        """The Python environments that jobs may name."""

    @abc.abstractmethod
    def inventory(self) -> Sequence[NodeFact]:
        """Every node with its devices, as they are now."""

    @abc.abstractmethod
    def isolation(self) -> Isolation:
        """How jobs are kept apart, as far as this process can tell: cheap enough to be asked before every sign-up."""

    @abc.abstractmethod
    def launch(self, launch: Launch) -> None:
        """Start the attempt. Calling it twice starts it once: an attempt that has begun, or has ended, is left alone.

        Returns when the start is recorded durably enough that `observe` will say RUNNING or ENDED sooner or later.
        Raises Refused when it can never be started; the attempt is then known as ended (NOT_STARTED).
        """

    @abc.abstractmethod
    def observe(self, attempts: Collection[UUID]) -> Mapping[UUID, Sight]:
        """One Sight for every id asked for, in one call. An id never launched has phase UNKNOWN."""

    @abc.abstractmethod
    def stop(self, attempts: Collection[UUID]) -> None:
        """Ask for the end: a signal, the launch's grace, then a kill of the whole tree. Returns at once.

        An attempt that has ended, or is not known, is left alone.
        """

    @abc.abstractmethod
    def signal_checkpoint(self, attempts: Collection[UUID]) -> None:
        """Tell the jobs to save their work: SIGUSR1, at least once, in the command's process, or in what a shell that
        knows nothing of it runs for it. Returns at once.

        Harmless when repeated: a job saves again. Whoever was not launched with `checkpoints` gets no signal, which
        would end it; an attempt that has ended, or is not known, is left alone.
        """

    @abc.abstractmethod
    def read_log(self, attempt: UUID, offset: int, limit: int) -> LogChunk:
        """Whole lines from the first that begins at or after `offset`: at most `limit` bytes of them, but at least one
        line where there is one. A negative offset counts from the end. An unknown attempt has an empty log."""

    @abc.abstractmethod
    def readings(self, attempts: Collection[UUID]) -> Sequence[Reading]:
        """The newest reading of each running attempt that has one."""

    @abc.abstractmethod
    def list_files(self, job: UUID, folder: PurePosixPath) -> Sequence[FileFact]:
        """What is in one folder of the job's working folder, sorted by name; empty when there is none.

        Raises FileNotFoundError for a path that is not there or leads outside the job's folder.
        """

    @abc.abstractmethod
    def open_file(self, job: UUID, path: PurePosixPath) -> tuple[BinaryIO, FileFact]:
        """A regular file of the job, open for reading and seekable, and what it is.

        Raises FileNotFoundError as list_files does.
        """

    @abc.abstractmethod
    def forget(self, attempts: Collection[UUID]) -> None:
        """Drop what is kept of ended attempts (records and logs). Running ones are left alone."""

    def outside(self) -> Sequence[Outside]:
        """The work on its nodes that was not submitted through Haein; none where nobody else can submit."""
        return ()

    def drain(self, node: str, reason: str) -> None:
        """Have the engine itself place nothing more on the node; may be asked again. What somebody else drained stays
        theirs. For an engine without a queue of its own there is nothing to do."""
        return

    def resume(self, node: str) -> None:
        """Take a drain() back. What somebody else drained stays as it is."""
        return

    def log_stream(self, attempt: UUID) -> Iterator[LogLine]:
        """Every kept line of the log as it is now, from the first on, in bounded memory."""
        offset = 0
        while True:
            chunk = self.read_log(attempt, offset, 1 << 20)
            yield from chunk.lines
            if chunk.next >= chunk.end:
                return
            offset = chunk.next
