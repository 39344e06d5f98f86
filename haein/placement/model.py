"""The nouns of placement: what a cluster has, what a job asks for, and what was decided.

Units: GPU shares in thousandths of a device, MIG instances in 56ths (`mig.UNITS`), CPUs in thousandths of a core,
memory in MiB; integers everywhere. Every object checks itself when it is made and raises ValueError with a sentence
that begins with the field's name.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from haein.placement import mig
from haein.placement.sentences import Code

WHOLE = 1000


def _require_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    legal = isinstance(value, int) and not isinstance(value, bool)
    if legal and low <= value and (high is None or value <= high):  # type: ignore[operator]
        return
    limits = f"from {low} to {high}" if high is not None else f"of {low} or more"
    raise ValueError(f"{name}: a whole number {limits} is needed, not {value!r}.")


def require_distinct(name: str, ids: Iterable[Hashable]) -> None:
    seen: set[Hashable] = set()
    for each in ids:
        if each in seen:
            raise ValueError(f"{name}: {each!r} is there twice; each must be there once.")
        seen.add(each)


@dataclass(frozen=True, slots=True)
class Instance:
    """A MIG instance on a device: its profile by name, and the memory slice it starts at."""

    profile: str
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """One GPU and how many of its units nobody holds. `node` is the name of the node it is in.

    A device in MIG mode has 56 units instead of 1,000, and the instances that are held on it are its `slices`; its free
    units are its free compute slices. `memory_mb` may be 0 where nobody counts it; a device in MIG mode has its memory
    in its slices. One that somebody else has carved for good has a `layout`: it is always in MIG mode, and gives these
    instances and nothing else. One that is not `carvable` is given whole or shared, never carved.
    """

    id: Hashable
    node: str
    model: str
    capacity: int = WHOLE
    free: int
    usable: bool
    memory_mb: int = 0
    free_memory_mb: int = 0
    slices: tuple[Instance, ...] = ()
    layout: tuple[Instance, ...] = ()
    carvable: bool = True

    def __post_init__(self) -> None:
        if self.capacity not in (WHOLE, mig.UNITS):
            raise ValueError(
                f"capacity: a device has {WHOLE} units, or {mig.UNITS} in MIG mode, not {self.capacity!r}."
            )
        _require_integer("free", self.free, 0, self.capacity)
        _require_integer("memory_mb", self.memory_mb, 0)
        _require_integer("free_memory_mb", self.free_memory_mb, 0, self.memory_mb)
        self._require_layout()

    def emptied(self, *, usable: bool) -> DeviceState:
        """The same device with nobody on it."""
        if self.layout:
            return replace(self, free=mig.UNITS, slices=(), usable=usable)
        return replace(self, capacity=WHOLE, free=WHOLE, free_memory_mb=self.memory_mb, slices=(), usable=usable)

    def carved(self, slices: Iterable[Instance]) -> DeviceState:
        """The same device in MIG mode with these instances on it. Raises ValueError where they overlap."""
        slices, table = tuple(slices), mig.profiles(self.model)
        compute = sum(table[each.profile].compute for each in slices if each.profile in table)
        free = (mig.COMPUTE_SLICES - compute) * mig.COMPUTE_UNITS
        return replace(self, capacity=mig.UNITS, free=free, slices=slices)

    def _require_layout(self) -> None:
        if self.capacity != mig.UNITS:
            for name in ("slices", "layout"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name}: a device of {self.capacity} units is not in MIG mode and has no instances."
                    )
            return
        free = (mig.COMPUTE_SLICES - _compute_of("slices", self.model, self.slices)) * mig.COMPUTE_UNITS
        if self.free != free:
            raise ValueError(f"free: its slices leave {free} of {mig.UNITS} units, not {self.free}.")
        if self.layout:
            _compute_of("layout", self.model, self.layout)
            for each in self.slices:
                if each not in self.layout:
                    raise ValueError(f"slices: {each.profile} at {each.start} is none of the device's layout.")


@lru_cache(maxsize=4096)
def _compute_of(name: str, model: str, instances: tuple[Instance, ...]) -> int:
    """Their compute slices. Raises ValueError where they can't be on one device of the model together."""
    mask = compute = 0
    table = mig.profiles(model)
    for each in instances:
        profile = table.get(each.profile)
        if profile is None or each.start not in profile.starts:
            raise ValueError(f"{name}: {model} has no {each.profile} that starts at {each.start}.")
        if mask & profile.bits(each.start):
            raise ValueError(f"{name}: {each.profile} at {each.start} overlaps another.")
        mask |= profile.bits(each.start)
        compute += profile.compute
    return compute


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One machine: what jobs may use of it in all (`cpus`, `memory_mb`) and what is free of that.

    Its devices are one NVLink domain. `rack` and `pod` say which others are near; "" where nobody knows.
    """

    id: Hashable
    name: str
    cpus: int
    memory_mb: int
    free_cpus: int
    free_memory_mb: int
    usable: bool
    devices: tuple[DeviceState, ...] = ()
    pool: str = ""
    labels: frozenset[str] = frozenset()
    rack: str = ""
    pod: str = ""

    def __post_init__(self) -> None:
        _require_integer("cpus", self.cpus, 0)
        _require_integer("memory_mb", self.memory_mb, 0)
        _require_integer("free_cpus", self.free_cpus, 0, self.cpus)
        _require_integer("free_memory_mb", self.free_memory_mb, 0, self.memory_mb)
        for device in self.devices:
            if device.node != self.name:
                raise ValueError(f"devices: {device.id!r} says it is in node {device.node}, not in {self.name}.")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one instant. The order of nodes and devices breaks ties, so the caller gives a stable one."""

    nodes: tuple[NodeState, ...]

    def __post_init__(self) -> None:
        require_distinct("nodes", (node.id for node in self.nodes))
        require_distinct("devices", (device.id for node in self.nodes for device in node.devices))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one job asks for on one node: `gpus` slices of one kind, on as many distinct devices.

    A slice is a whole device, a `share` of one in thousandths with `gpu_memory_mb` of its memory (0: the same share of
    it), or an instance of a MIG `profile`. An empty `model` is any model, "A|B" either of two. The node must be in the
    `pool` if one is named, and have all the `labels`. A request without GPUs is legal; what it says of slices means
    nothing.
    """

    id: Hashable
    gpus: int
    share: int = WHOLE
    cpus: int
    memory_mb: int
    model: str = ""
    gpu_memory_mb: int = 0
    profile: str = ""
    pool: str = ""
    labels: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _require_integer("gpus", self.gpus, 0)
        _require_integer("share", self.share, 1, WHOLE)
        _require_integer("cpus", self.cpus, 0)
        _require_integer("memory_mb", self.memory_mb, 0)
        _require_integer("gpu_memory_mb", self.gpu_memory_mb, 0)
        if self.profile and self.profile not in mig.NAMES:
            raise ValueError(f"profile: there is no {self.profile!r}; there are {', '.join(sorted(mig.NAMES))}.")
        if self.profile and (self.share != WHOLE or self.gpu_memory_mb):
            raise ValueError("profile: an instance has the memory and the share of its profile; ask for no other.")


class Near(enum.IntEnum):
    """How near each other a gang's members are: on one node (one NVLink domain), in one rack, one pod, anywhere."""

    NODE = 0
    RACK = 1
    POD = 2
    ANYWHERE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """Several requests of one shape that start together or not at all: `members` times `each`.

    `near` is how near each other they would be best; where that can't be had they go as near as can, unless `required`.
    """

    each: Request
    members: int
    near: Near = Near.ANYWHERE
    required: bool = False

    def __post_init__(self) -> None:
        _require_integer("members", self.members, 1)

    @property
    def id(self) -> Hashable:
        return self.each.id


@dataclass(frozen=True, slots=True)
class Grant:
    """Units of one device, given to one request, and MiB of its memory where that is counted.

    An instance names its profile and its start, because the driver would take the first free; its units are compute,
    its memory is in 56ths of the device's.
    """

    device_id: Hashable
    units: int
    memory: int = 0
    profile: str = ""
    start: int = -1


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request goes. Its CPUs and memory are taken from the node as asked for.

    A gang has one for each member, in a row.
    """

    request_id: Hashable
    node_id: Hashable
    grants: tuple[Grant, ...]
    member: int = 0


class Reason(enum.Enum):
    """The class of a refusal: what has to change before the request can be placed."""

    NO_CAPACITY_NOW = "no capacity now"  # others hold it: wait
    OUT_OF_SERVICE = "out of service"  # nodes or devices have to come back
    NEVER_FITS = "never fits"  # the request has to change, or the cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not placed.

    `sentence` is English; another language is made from `sentences.TEMPLATES[code]`, translated, and `params`.
    `nearest` would have been placed at that point (of an empty cluster, when the reason is not NO_CAPACITY_NOW).
    """

    request_id: Hashable
    reason: Reason
    code: Code
    params: Mapping[str, str | int] = field(hash=False)
    sentence: str
    nearest: Request | Gang | None


@dataclass(frozen=True, slots=True)
class Carving:
    """New instances on one device, for jobs of the plan; those that run on it already stay as they are."""

    device_id: Hashable
    instances: tuple[Instance, ...]
    code: Code
    params: Mapping[str, str | int] = field(hash=False)
    sentence: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Every request is in one of the first two, each in the order in which the requests came."""

    placements: tuple[Placement, ...]
    refusals: tuple[Refusal, ...]
    carvings: tuple[Carving, ...] = ()
