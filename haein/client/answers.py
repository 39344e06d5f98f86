"""The API's answers as typed values.

A newer server's unknown fields are left out, and what an older server does not tell yet is the field's default; so one
client works with the servers of the releases around it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar

Answer = TypeVar("Answer")

OPEN = frozenset({"queued", "starting", "running"})


@dataclass(frozen=True, slots=True)
class Named:
    """An organization, team, person or job where only its name matters."""

    id: str = ""
    name: str = ""
    email: str = ""
    is_operator: bool = False
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """Files that were uploaded; `size` in bytes."""

    id: str = ""
    name: str = ""
    size: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExpectedStart:
    """When a waiting job starts, with one chance in two and with nine in ten, as worked out at `as_of`."""

    p50: datetime | None = None
    p90: datetime | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """The array that a job belongs to, its index in it, and how many jobs that has; None in lists."""

    id: str = ""
    index: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """Jobs that were submitted at once and differ by their index; `states` has how many are in each state."""

    id: str
    name: str = ""
    created_at: datetime | None = None
    size: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    url: str = ""

    @property
    def is_open(self) -> bool:
        """Whether a job of it has not ended yet."""
        return any(self.states.get(state) for state in OPEN)

    @property
    def short_id(self) -> str:
        """Its last eight digits."""
        return self.id.replace("-", "")[-8:]


@dataclass(frozen=True, slots=True)
class Job:
    """A job and where it is. Fields and units as in JobSpec; `exit_code` and `signal` are of its newest attempt.

    It had to yield `preemptions` times, and must again at `preempt_at`; `guaranteed` says of a running one that it is
    not on borrowed GPUs. After a failure it rests until `not_before`.
    """

    id: str
    name: str = ""
    state: str = ""
    reason: str = ""
    reason_code: str = ""
    command: str = ""
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    share: int = 0
    gpu_memory_mb: int = 0
    profile: str = ""
    gpu_model: str = ""
    cpus: float = 0
    memory_mb: int = 0
    workers: int = 1
    near: str = "any"
    near_required: bool = False
    pool: str = ""
    labels: tuple[str, ...] = ()
    time_limit_s: int = 0
    retries: int = 0
    priority: int = 0
    preemption: str = "allowed"
    checkpoints: bool = False
    requeue: bool = True
    tags: tuple[str, ...] = ()
    team: Named | None = None
    submitted_by: Any = None
    created_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_requested: bool = False
    attempts: int = 0
    preemptions: int = 0
    guaranteed: bool | None = None
    preempt_at: datetime | None = None
    not_before: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    upload: Upload | None = None
    cloned_from: str | None = None
    array: ArrayPlace | None = None
    url: str = ""
    ahead: int | None = None
    expected_start: ExpectedStart | None = None
    sooner: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in OPEN

    @property
    def short_id(self) -> str:
        """Its last eight digits: what the pages show and every command takes."""
        return self.id.replace("-", "")[-8:]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits, and where it stands."""

    job: Named = Named()
    team: Named = Named()
    gpus: int = 0
    share: int = 1000
    profile: str = ""
    workers: int = 1
    priority: int = 0
    queued_at: datetime | None = None
    reason: str = ""
    reason_code: str = ""
    ahead: int | None = None
    expected_start: ExpectedStart | None = None


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs in service, held, free, held by work that was not submitted through Haein, and of those held the ones
    beyond their holders' guarantees."""

    all: float = 0
    held: float = 0
    free: float = 0
    outside: float = 0
    lent: float = 0


@dataclass(frozen=True, slots=True)
class Promises:
    """Of what was promised in the last seven days how much was true."""

    count: int = 0
    p50_held_percent: int | None = None
    p90_held_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """The waiting jobs that you may see, the next to start first, and how many `others` wait."""

    waiting: int = 0
    others: int = 0
    as_of: datetime | None = None
    gpus: Gpus = Gpus()
    promises: Promises = Promises()
    results: tuple[Waiting, ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """What is used of a quota: GPUs inside a guarantee, borrowed and waited for, jobs, and this month's GPU-hours."""

    guaranteed: float = 0
    borrowed: float = 0
    waiting: float = 0
    jobs: int = 0
    gpu_hours: float = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """Who may use how much, in GPUs; None is no limit. Without a `team` the organization's, else a member's or its own.

    `guaranteed` are a team's whenever it asks, and lent while it `lends`; beyond them it may `borrow`.
    """

    id: str = ""
    organization: Named = Named()
    team: Named | None = None
    member: Named | None = None
    pool: str = ""
    guaranteed: float = 0
    borrow: float | None = None
    lends: bool = True
    weight: float = 1
    running_jobs: int | None = None
    gpus_per_job: float | None = None
    time_limit_s: int | None = None
    gpu_hours: int | None = None
    changed_at: datetime | None = None
    used: QuotaUse = QuotaUse()

    def values(self) -> dict[str, Any]:
        """What it says, as `Client.set_quota` takes it."""
        return {name: getattr(self, name) for name in _QUOTA_SAYS}


_QUOTA_SAYS = (
    *("guaranteed", "borrow", "lends", "weight"),
    *("running_jobs", "gpus_per_job", "time_limit_s", "gpu_hours"),
)


@dataclass(frozen=True, slots=True)
class Held:
    """A slice of a device that the worker with the `rank` holds.

    `share` in thousandths: of the device, or of its price where it is a MIG instance. An instance has a `profile` and
    the memory slice where it starts; `memory_mb` is MiB of the device's memory, None where nobody counts it.
    """

    device: str = ""
    share: int = 0
    emulated: bool = False
    rank: int = 0
    profile: str = ""
    start: int | None = None
    memory_mb: int | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the processes that start together, and the node that it runs on."""

    rank: int = 0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job; `node` is the first worker's. A server of 0.2.0 tells no `workers`.

    It is `guaranteed` its place or borrows it; `preempt_at` is when it was, or is, asked to end to make room, and
    `checkpoint_at` when its job last said that its work is saved.
    """

    id: str = ""
    number: int = 0
    state: str = ""
    node: str = ""
    workers: tuple[Worker, ...] = ()
    devices: tuple[Held, ...] = ()
    placed_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    guaranteed: bool = False
    preempt_at: datetime | None = None
    checkpoint_at: datetime | None = None
    cause: str = ""
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One step in a job's life."""

    id: str = ""
    at: datetime | None = None
    kind: str = ""
    old_state: str = ""
    new_state: str = ""
    attempt: int | None = None
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of an attempt's log. `start`, `next` and `end` are byte offsets of the stored log.

    `skipped` bytes before its first line were not kept; `lines` are (seconds since 1970, stream, text).
    """

    attempt: int
    start: int
    next: int
    end: int
    skipped: int = 0
    lines: tuple[tuple[float, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log. `stream` is "out", "err", or "haein" for what Haein itself adds; `at` is in UTC."""

    attempt: int
    at: datetime
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder of a job; `size` in bytes."""

    name: str
    path: str = ""
    type: str = "file"
    size: int = 0
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CostLine:
    """What one slice cost; `share` in thousandths of its device's price, `profile` of a MIG instance."""

    device: str = ""
    device_model: str = ""
    profile: str = ""
    share: int = 0
    seconds: int = 0
    price_per_hour: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job has cost so far. `per_hour` is what it costs now, while `running`."""

    currency: str = ""
    total: Decimal = Decimal(0)
    per_hour: Decimal = Decimal(0)
    running: bool = False
    lines: tuple[CostLine, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What was held from when to when, and what it cost; `share` and `profile` as in CostLine. Half open."""

    starts: datetime | None = None
    ends: datetime | None = None
    seconds: int = 0
    device_model: str = ""
    device: str = ""
    profile: str = ""
    share: int = 0
    price_per_hour: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)
    currency: str = ""
    job: Named | None = None
    team: Any = None
    person: Any = None


@dataclass(frozen=True, slots=True)
class PersonUsage:
    """A person's part of a month."""

    name: str = ""
    gpu_hours: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class DayUsage:
    """A day's part of a month."""

    day: date | None = None
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """A month's bill so far; `running` is the part of jobs that have not ended."""

    month: str = ""
    currency: str = ""
    total: Decimal = Decimal(0)
    running: Decimal = Decimal(0)
    people: tuple[PersonUsage, ...] = ()
    days: tuple[DayUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slice of a device; `job` is None when it is another team's. Fields as in Held."""

    share: int = 0
    profile: str = ""
    start: int | None = None
    job: Named | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU; `used` and `free` in thousandths, `problem` says why nothing is placed on it ("" when it is well).

    `state` is free, partly, full or unusable.
    """

    index: int = 0
    model: str = ""
    memory_mb: int = 0
    emulated: bool = False
    problem: str = ""
    state: str = ""
    used: int = 0
    free: int = 0
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster; cores, and memory in MiB. One that is `drained` takes no new work."""

    name: str = ""
    present: bool = True
    emulated: bool = False
    cpus: float = 0
    cpus_used: float = 0
    memory_mb: int = 0
    memory_mb_used: int = 0
    pool: str = ""
    labels: tuple[str, ...] = ()
    rack: str = ""
    pod: str = ""
    drained: bool = False
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """GPUs reserved for a team (`kind` is reservation) or nodes out (maintenance), from one moment to another.

    `state` is coming, now, over or cancelled. `nodes` go out, or have the GPUs; `made_by` is told to operators alone.
    """

    id: str = ""
    kind: str = ""
    state: str = ""
    reason: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    team: Named | None = None
    gpus: int = 0
    model: str = ""
    nodes: tuple[str, ...] = ()
    made_by: str | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """The price of an hour of a whole device; without `valid_to` until further notice."""

    device_model: str = ""
    currency: str = ""
    per_hour: Decimal = Decimal(0)
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """What a job's `environment` may be."""

    name: str = ""
    description: str = ""
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Range:
    """From the cheapest to the dearest device that would do."""

    least: Decimal = Decimal(0)
    most: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Quote:
    """What a job would cost: an hour, and at most until its time limit."""

    currency: str = ""
    per_hour: Range = Range()
    at_most: Decimal = Decimal(0)
    models: tuple[str, ...] = ()
    starts: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """The token that asks."""

    id: str = ""
    name: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers."""

    version: str = ""


@dataclass(frozen=True, slots=True)
class Me:
    """Who asks, and for whom."""

    user: Named = Named()
    organization: Named | None = None
    team: Named | None = None
    teams: tuple[Named, ...] = ()
    scopes: tuple[str, ...] = ()
    token: Token | None = None
    server: Server = Server()


def read(kind: type[Answer], told: Any) -> Answer:
    """The answer as a value of the dataclass `kind`. Raises ValueError when it can't be one."""
    try:
        value = _read(kind, told)
    except (TypeError, ArithmeticError, KeyError, AttributeError) as fault:
        raise ValueError(f"not a {kind.__name__}: {fault}") from fault
    return typing.cast(Answer, value)


def _read(kind: Any, told: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        # An explicit null where a value is expected is as good as nothing said.
        return kind(
            **{
                name: _read(hint, told[name])
                for name, hint in hints.items()
                if name in told and (told[name] is not None or _may_be_none(hint))
            }
        )
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if told is None else _read(inner, told)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_read(arguments[0], item) for item in told)
        return tuple(_read(argument, item) for argument, item in zip(arguments, told, strict=True))
    return _READERS.get(kind, _as_it_is)(told)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _may_be_none(hint: Any) -> bool:
    return hint is Any or type(None) in typing.get_args(hint)


def _as_it_is(told: Any) -> Any:
    return told


def _moment(told: str) -> datetime:
    return datetime.fromisoformat(told)


_READERS: Mapping[Any, Any] = {
    str: str,
    int: int,
    float: float,
    bool: bool,
    Decimal: lambda told: Decimal(str(told)),
    datetime: _moment,
    date: date.fromisoformat,
}
