"""The whole cluster as columns: ten thousand devices, read and counted in a few hundredths of a second.

It names nobody: who holds a device is said by `of_node()`, of one node at a time.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import numpy as np
from django.contrib.postgres.aggregates import ArrayAgg
from django.db import connection
from django.db.models import Count, F, Max, Q, Sum
from numpy.typing import NDArray

from haein.cluster.models import Device, Node
from haein.lib import clock
from haein.placement import mig, stranded
from haein.placement.devices import UNMASKED, State
from haein.placement.kinds import Class
from haein.placement.model import WHOLE, Request
from haein.placement.rooms import Room
from haein.tenants.scope import Scope
from jobs import requests, snapshots
from jobs.models import Allocation, Attempt, Event, Job
from jobs.states import State as JobState

FREE, PARTLY, FULL = 0, 1, 2

Column = NDArray[np.int64]
Flags = NDArray[np.bool_]

# By the mask of a device's memory slices that are held: compute slices that more instances could still take.
_REACHABLE = np.array([mig.reachable(mask)[0] for mask in range(mig.FULL + 1)], dtype=np.int64)
_THOUSANDTH, _COMPUTE_SLICE = stranded.GPU // WHOLE, stranded.GPU // mig.COMPUTE_SLICES


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The devices there are, in the order of their nodes' names and their own indexes: a place each in every column."""

    ids: Column
    node_ids: Column
    index: Column
    model: Column  # its number in `models`
    memory_mb: Column
    models: tuple[str, ...]


class NodeFacts(NamedTuple):
    """What is shown of every node; CPUs in thousandths of a core, memory in MiB."""

    id: int
    name: str
    cpus: int
    memory_mb: int
    emulated: bool
    present: bool
    drained_at: datetime | None
    pool: str
    labels: list[str]
    rack: str
    pod: str

    @property
    def usable(self) -> bool:
        return self.present and self.drained_at is None


# Whole rows take three times as long.
_NODE_COLUMNS = ("pk", *NodeFacts._fields[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """The cluster at one moment. Columns have a place for each device of the layout, `node_` ones for each node.

    Held is what all allocations hold: of shares `units` (thousandths) and `memory_mb`; of instances `compute` (slices),
    the memory slices in `mask`, and where they start in `starts`, a bit each. Totals are in 7000ths of a device
    (`stranded.GPU`), in which both are whole numbers.
    """

    layout: Layout
    nodes: tuple[NodeFacts, ...]
    node: Column  # the place of each device's node
    units: Column
    memory_mb: Column
    compute: Column
    mask: Column
    starts: Column
    holders: Column
    broken: Flags  # the device has a problem, or its node is away
    drained: Flags  # its node is, or is out for maintenance now
    reserved: Flags  # for a team, now
    node_cpus: Column
    node_memory_mb: Column

    @property
    def held(self) -> Column:
        return self.units * _THOUSANDTH + self.compute * _COMPUTE_SLICE

    @property
    def idle(self) -> Column:
        """What nobody holds and something could still take, wherever it is."""
        beside = np.maximum(0, WHOLE - self.units) * _THOUSANDTH
        counted = self.layout.memory_mb > 0
        beside[counted & (self.memory_mb >= self.layout.memory_mb)] = 0
        return np.where(self.mask > 0, _REACHABLE[self.mask] * _COMPUTE_SLICE, beside)

    @property
    def states(self) -> Column:
        """FREE, PARTLY or FULL: held as far as something can be, whatever keeps it from being held further."""
        return np.where(self.held == 0, FREE, np.where(self.idle == 0, FULL, PARTLY))

    @property
    def free(self) -> Column:
        return np.where(self.apart, 0, self.idle)

    @property
    def apart(self) -> Flags:
        """Out of service, or not for everybody."""
        return self.broken | self.drained | self.reserved

    def by_node(self, column: Column | Flags) -> Column:
        """The sum over each node's devices."""
        sums: Column = np.bincount(self.node, weights=column, minlength=len(self.nodes)).astype(np.int64)
        return sums

    def totals(self) -> Mapping[str, int]:
        """Law 2 for the whole cluster: held, reserved, drained, unusable and free add up to `capacity`."""
        capacity, held, free = len(self.node) * stranded.GPU, int(self.held.sum()), int(self.free.sum())
        drained = int(self.idle[self.drained & ~self.broken].sum())
        reserved = int(self.idle[self.reserved & ~self.drained & ~self.broken].sum())
        return {
            "capacity": capacity,
            "held": held,
            "free": free,
            "drained": drained,
            "reserved": reserved,
            "unusable": capacity - held - free - drained - reserved,
        }

    def rooms(self) -> Counter[Room]:
        """The nodes in service by what they have left, and how many are alike: what `stranded.Kinds` asks for."""
        states, numbers = self._states()
        devices: list[list[State]] = [[] for _ in self.nodes]
        in_order = zip(self.node.tolist(), numbers.tolist(), self.apart.tolist(), strict=True)
        for node, number, apart in in_order:
            if not apart:
                devices[node].append(states[number])
        return Counter(
            Room(
                Class(node.pool, frozenset(node.labels)),
                max(0, node.cpus - cpus),
                max(0, node.memory_mb - memory_mb),
                tuple(sorted(mine)),
            )
            for node, cpus, memory_mb, mine in zip(
                self.nodes, self.node_cpus.tolist(), self.node_memory_mb.tolist(), devices, strict=True
            )
            if node.usable
        )

    def _states(self) -> tuple[list[State], Column]:
        """The different states that devices are in, and the number of each device's."""
        layout = self.layout
        free_mb = np.maximum(0, layout.memory_mb - self.memory_mb)
        # One number of all that makes a state: sorting rows of columns takes ten times as long. A model has one memory.
        packed = (layout.model << 52) | (free_mb << 24) | (np.minimum(self.units, WHOLE) << 12)
        packed |= (self.mask << 4) | self.compute
        _, first, numbers = np.unique(packed, return_index=True, return_inverse=True)
        return [self._state(place, int(free_mb[place])) for place in first.tolist()], numbers

    def _state(self, place: int, free_mb: int) -> State:
        name, memory_mb = self.layout.models[self.layout.model[place]], int(self.layout.memory_mb[place])
        if self.mask[place]:
            return State(name, memory_mb, 0, 0, int(self.mask[place]), int(self.compute[place]))
        return State(name, memory_mb, max(0, WHOLE - int(self.units[place])), free_mb, UNMASKED, 0)


def now() -> Occupancy:
    """Read in six queries; what there is of devices is kept from the last time where it is the same."""
    faulty, *key = Device.objects.filter(present=True).aggregate(faulty=_FAULTY, **_LAYOUT_KEY).values()
    layout = _layout(tuple(key))
    nodes = tuple(NodeFacts(*row) for row in Node.objects.of_the_cluster().order_by("name").values_list(*_NODE_COLUMNS))
    place = {node.id: at for at, node in enumerate(nodes)}
    of = np.array([place[pk] for pk in layout.node_ids.tolist()], dtype=np.int64)
    used = snapshots.used_by_node()
    cpus, memory_mb = np.array([used.get(node.id, (0, 0)) for node in nodes], dtype=np.int64).reshape(-1, 2).T
    held = _held(layout)
    away = np.array([not node.present for node in nodes], dtype=np.bool_)
    drained = np.array([node.drained_at is not None for node in nodes], dtype=np.bool_)
    out, reserved = _in_windows(layout)
    return Occupancy(
        layout=layout,
        nodes=nodes,
        node=of,
        **held,
        broken=np.isin(layout.ids, faulty) | away[of],
        drained=drained[of] | out,
        reserved=reserved,
        node_cpus=cpus,
        node_memory_mb=memory_mb,
    )


_FAULTY = ArrayAgg("pk", filter=~Q(problem=""), default=[])
_LAYOUT_KEY = {
    "count": Count("pk"),
    "pks": Sum("pk"),
    # Weighted, so that two devices that change places are seen to.
    **{name: Sum(F("pk") * F(name)) for name in ("node_id", "index", "model_id")},
}


@functools.lru_cache(maxsize=1)
def _layout(_key: tuple[int | None, ...]) -> Layout:
    """Ten thousand rows take longer than all the rest, and hardly ever change."""
    rows = (
        Device.objects.filter(present=True)
        .order_by("node__name", "index", "pk")
        .values_list("pk", "node_id", "index", "model__name", "model__memory_mb")
    )
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    models = tuple(sorted(set(columns[3])))
    number = {name: at for at, name in enumerate(models)}
    ids, node_ids, index, memory_mb = (np.array(columns[at], dtype=np.int64) for at in (0, 1, 2, 4))
    model = np.array([number[name] for name in columns[3]], dtype=np.int64)
    return Layout(ids, node_ids, index, model, memory_mb, models)


# An instance's units are compute, 8 a slice, and its memory is 7 a slice, both of 56.
_HELD = """
    SELECT device_id,
        coalesce(sum(units) FILTER (WHERE start IS NULL), 0),
        coalesce(sum(memory) FILTER (WHERE start IS NULL), 0),
        coalesce(sum(units) FILTER (WHERE start IS NOT NULL), 0) / %(compute)s,
        coalesce(bit_or(((1 << memory / %(memory)s) - 1) << start), 0),
        coalesce(bit_or(1 << start), 0),
        count(*)
    FROM jobs_allocation WHERE ended_at IS NULL GROUP BY device_id
"""


def _held(layout: Layout) -> dict[str, Column]:
    """What the allocations hold of each device, added up by the database."""
    with connection.cursor() as cursor:
        cursor.execute(_HELD, {"compute": mig.COMPUTE_UNITS, "memory": mig.MEMORY_UNITS})
        rows = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 7)
    rows = rows[np.isin(rows[:, 0], layout.ids)]
    order = np.argsort(layout.ids)
    at = order[np.searchsorted(layout.ids, rows[:, 0], sorter=order)]
    held = {}
    for column, name in enumerate(("units", "memory_mb", "compute", "mask", "starts", "holders"), 1):
        held[name] = np.zeros(len(layout.ids), dtype=np.int64)
        held[name][at] = rows[:, column]
    return held


_IN_WINDOWS = """
    WITH present AS (
        SELECT id, team_id FROM jobs_window WHERE cancelled_at IS NULL AND starts_at <= %(now)s AND ends_at > %(now)s
    )
    SELECT device.id, true FROM present
    JOIN jobs_window_nodes AS out ON out.window_id = present.id
    JOIN cluster_device AS device ON device.node_id = out.node_id
    UNION ALL
    SELECT kept.device_id, false FROM present JOIN jobs_window_devices AS kept ON kept.window_id = present.id
"""


def _in_windows(layout: Layout) -> tuple[Flags, Flags]:
    """Which devices are out for maintenance now, and which are reserved now."""
    with connection.cursor() as cursor:
        cursor.execute(_IN_WINDOWS, {"now": clock.now()})
        rows = cursor.fetchall()
    out, kept = ([pk for pk, is_out in rows if is_out is wanted] for wanted in (True, False))
    return np.isin(layout.ids, out), np.isin(layout.ids, kept)


class Holding(NamedTuple):
    """A slice that is held now, and whose it is."""

    device_id: int
    units: int
    weight: int
    profile: str
    start: int | None
    job_id: UUID
    job_name: str
    team_id: UUID


def holdings() -> Mapping[int, Sequence[Holding]]:
    """All that is held of each device, by its key.

    It names the holders of all teams: whoever shows it says only to the holders' own teams who they are.
    """
    held: dict[int, list[Holding]] = {}
    job = ("attempt__job_id", "attempt__job__name", "attempt__job__team_id")
    columns = ("device_id", "units", "weight", "profile", "start", *job)
    for row in Allocation.objects.filter(ended_at=None).order_by("start", "id").values_list(*columns):
        held.setdefault(row[0], []).append(Holding(*row))
    return held


@dataclass(frozen=True, slots=True)
class NodeDetail:
    """One node: CPUs (thousandths of a core) and memory (MiB) in use, its present devices with holders, its jobs."""

    node: Node
    cpus: int
    memory_mb: int
    devices: Sequence[tuple[Device, Sequence[Allocation]]]
    jobs: int


def of_node(name: str) -> NodeDetail | None:
    """The node with the holders of all teams: whoever shows it says only to the holders' own teams who they are."""
    node = Node.objects.filter(name=name).first()
    if node is None:
        return None
    held: dict[int, list[Allocation]] = {}
    rows = Allocation.objects.filter(ended_at=None, device__node=node).select_related("attempt__job")
    for allocation in rows.order_by("start", "id"):
        held.setdefault(allocation.device_id, []).append(allocation)
    devices = Device.objects.filter(node=node, present=True).select_related("model").order_by("index")
    attempts = Attempt.objects.exclude(state=Attempt.State.ENDED)
    workers = [
        *attempts.filter(node=node).values_list("pk", "cpus", "memory_mb"),
        *attempts.filter(workers__node=node).values_list("pk", "cpus", "memory_mb"),
    ]
    return NodeDetail(
        node=node,
        cpus=sum(cpus for _, cpus, _ in workers),
        memory_mb=sum(memory_mb for _, _, memory_mb in workers),
        devices=[(device, held.get(device.pk, [])) for device in devices],
        jobs=len({attempt for attempt, _, _ in workers}),
    )


class Waiting(NamedTuple):
    """A shape that waiting jobs ask for: each of their workers, how many workers, and how many jobs."""

    request: Request
    workers: int
    jobs: int


def waiting(scope: Scope | None, *, most: int = 6) -> list[Waiting]:
    """The shapes that most waiting jobs of the reader's teams have; of all teams without a scope."""
    jobs = Job.objects.seen_by(scope) if scope else Job.objects.all()
    rows = jobs.filter(state=JobState.QUEUED, gpus__gt=0).values("workers", *requests.WORKER).annotate(many=Count("pk"))
    return [
        Waiting(requests.worker(row), row["workers"], row["many"])
        for row in rows.order_by("-many", "workers", *requests.WORKER)[:most]
    ]


# So many of the newest events are looked at for carvings, whatever they are of.
_LOOK_BACK = 2000


def carvings(*, most: int = 5) -> list[tuple[datetime, str]]:
    """The newest devices carved for jobs that were placed: when, and the plan's sentence, which names no job."""
    newest = Event.objects.aggregate(pk=Max("pk"))["pk"] or 0
    events = Event.objects.filter(pk__gt=newest - _LOOK_BACK, reason="placed_carving").order_by("-pk")
    rows = events.values_list("at", "reason_values__carved")[: most * 8]
    # Each of the jobs that one carving let start has its sentence.
    return list(dict.fromkeys(rows))[:most]
