"""The nouns of placement: what a cluster has, what a job asks for, and what was decided.

Units: GPU shares in thousandths of a device, CPUs in thousandths of a core, memory in MiB; integers everywhere. Every
object checks itself when it is made and raises ValueError with a sentence that begins with the field's name.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """One GPU and how many of its units nobody holds. `node` is the name of the node it is in."""

    id: Hashable
    node: str
    model: str
    capacity: int = WHOLE
    free: int
    usable: bool

    def __post_init__(self) -> None:
        if self.capacity != WHOLE:
            raise ValueError(
                f"capacity: a device has {WHOLE} units, not {self.capacity!r}; MIG devices are not placed yet."
            )
        _require_integer("free", self.free, 0, self.capacity)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One machine: what jobs may use of it in all (`cpus`, `memory_mb`) and what is free of that."""

    id: Hashable
    name: str
    cpus: int
    memory_mb: int
    free_cpus: int
    free_memory_mb: int
    usable: bool
    devices: tuple[DeviceState, ...] = ()

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
    """What one job asks for: `gpus` slices of `share` each, on as many distinct devices of one node.

    An empty `model` is any model. A request without GPUs is legal; its `share` and `model` mean nothing.
    """

    id: Hashable
    gpus: int
    share: int = WHOLE
    cpus: int
    memory_mb: int
    model: str = ""

    def __post_init__(self) -> None:
        _require_integer("gpus", self.gpus, 0)
        _require_integer("share", self.share, 1, WHOLE)
        _require_integer("cpus", self.cpus, 0)
        _require_integer("memory_mb", self.memory_mb, 0)


@dataclass(frozen=True, slots=True)
class Grant:
    """Units of one device, given to one request."""

    device_id: Hashable
    units: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request goes. Its CPUs and memory are taken from the node as asked for."""

    request_id: Hashable
    node_id: Hashable
    grants: tuple[Grant, ...]


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
    nearest: Request | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every request is in one of the two, each in the order in which the requests came."""

    placements: tuple[Placement, ...]
    refusals: tuple[Refusal, ...]
