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
from django.db.models import BigIntegerField, Count, F, Func, Max, Q, Sum, TextField
from django.db.models.functions import Cast
from numpy.typing import NDArray

from haein.cluster.models import Device, Node, Outside
from haein.lib import clock
from haein.placement import mig, stranded
from haein.placement.devices import State
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
    carvable: bool  # none is carved by somebody else, so those that have no instances may be
    carving: Column  # of one that is carved for good its number in `carvings`, 0 of any other
    carvings: tuple[mig.Layout, ...]  # the first is none
    fixed_mask: Column  # the memory slices of its instances, a bit each
    fixed_starts: Column  # where they start, a bit each
    reach: Column  # by `carving` and the mask that is held: compute slices that could still be taken
    parts: Column  # by `carving` and the starts that are held: what those instances' mask and compute slices are


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
    problem: str

    @property
    def usable(self) -> bool:
        return self.present and self.drained_at is None and not self.problem


# Whole rows take three times as long.
_NODE_COLUMNS = ("pk", *NodeFacts._fields[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """The cluster at one moment. Columns have a place for each device of the layout, `node_` ones for each node.

    Taken is what all allocations hold, and work that was not submitted here: of shares `units` (thousandths) and
    `memory_mb`; of instances `compute` (slices), the memory slices in `mask`, and where they start in `starts`, a bit
    each. What of that is work from outside is in the `outside_` ones; `holders` counts allocations alone. Totals are in
    7000ths of a device (`stranded.GPU`), in which both are whole numbers.
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
    outside_units: Column
    outside_compute: Column
    outside_mask: Column
    broken: (
        Flags  # the device or its node has a problem, its node is away, or it is held in ways that exclude each other
    )
    drained: Flags  # its node is, or is out for maintenance now
    reserved: Flags  # for a team, now
    node_cpus: Column
    node_memory_mb: Column

    @property
    def held(self) -> Column:
        """By allocations."""
        units, compute = self.units - self.outside_units, self.compute - self.outside_compute
        return units * _THOUSANDTH + compute * _COMPUTE_SLICE

    @property
    def outside(self) -> Column:
        """By work that was not submitted here, as far as no allocation has it too."""
        outside = self.outside_units * _THOUSANDTH + self.outside_compute * _COMPUTE_SLICE
        most: Column = np.minimum(outside, stranded.GPU - self.held)
        return most

    @property
    def taken(self) -> Column:
        return self.held + self.outside

    @property
    def carved(self) -> Flags:
        """Into instances, for good or for those that are held."""
        return (self.mask > 0) | (self.layout.carving > 0)

    @property
    def idle(self) -> Column:
        """What nobody holds and something could still take, wherever it is."""
        beside = np.maximum(0, WHOLE - self.units) * _THOUSANDTH
        counted = self.layout.memory_mb > 0
        beside[counted & (self.memory_mb >= self.layout.memory_mb)] = 0
        return np.where(self.carved, self.layout.reach[self.layout.carving, self.mask] * _COMPUTE_SLICE, beside)

    @property
    def states(self) -> Column:
        """FREE, PARTLY or FULL: taken as far as something can be, whatever keeps it from being taken further."""
        return np.where(self.taken == 0, FREE, np.where(self.idle == 0, FULL, PARTLY))

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
        """Law 2 for the whole cluster: held, outside, reserved, drained, unusable and free add up to `capacity`."""
        capacity, held, free = len(self.node) * stranded.GPU, int(self.held.sum()), int(self.free.sum())
        outside = int(self.outside.sum())
        drained = int(self.idle[self.drained & ~self.broken].sum())
        reserved = int(self.idle[self.reserved & ~self.drained & ~self.broken].sum())
        return {
            "capacity": capacity,
            "held": held,
            "outside": outside,
            "free": free,
            "drained": drained,
            "reserved": reserved,
            "unusable": capacity - held - outside - free - drained - reserved,
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
        kind = layout.model * len(layout.carvings) + layout.carving
        packed = (kind << 52) | (free_mb << 24) | (np.minimum(self.units, WHOLE) << 12)
        packed |= (self.mask << 4) | self.compute
        _, first, numbers = np.unique(packed, return_index=True, return_inverse=True)
        return [self._state(place, int(free_mb[place])) for place in first.tolist()], numbers

    def _state(self, place: int, free_mb: int) -> State:
        name, memory_mb = self.layout.models[self.layout.model[place]], int(self.layout.memory_mb[place])
        if self.mask[place] or self.layout.carving[place]:
            layout = self.layout.carvings[self.layout.carving[place]]
            return State(name, memory_mb, 0, 0, int(self.mask[place]), int(self.compute[place]), layout)
        units = max(0, WHOLE - int(self.units[place]))
        return State(name, memory_mb, units, free_mb, carvable=self.layout.carvable)


def now() -> Occupancy:
    """Read in seven queries; what there is of devices is kept from the last time where it is the same."""
    faulty, *key = Device.objects.filter(present=True).aggregate(faulty=_FAULTY, **_LAYOUT_KEY).values()
    layout = _layout(tuple(key))
    nodes = tuple(NodeFacts(*row) for row in Node.objects.of_the_cluster().order_by("name").values_list(*_NODE_COLUMNS))
    place = {node.id: at for at, node in enumerate(nodes)}
    of = np.array([place[pk] for pk in layout.node_ids.tolist()], dtype=np.int64)
    others = snapshots.outside()
    used = snapshots.used(others)
    cpus, memory_mb = np.array([used.get(node.id, (0, 0)) for node in nodes], dtype=np.int64).reshape(-1, 2).T
    taken, clashing = _taken(layout, _held(layout), others)
    away = np.array([not node.present or node.problem != "" for node in nodes], dtype=np.bool_)
    drained = np.array([node.drained_at is not None for node in nodes], dtype=np.bool_)
    out, reserved = _in_windows(layout)
    return Occupancy(
        layout=layout,
        nodes=nodes,
        node=of,
        **taken,
        broken=np.isin(layout.ids, faulty) | away[of] | clashing,
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
    "carved": Sum(
        F("pk") * Func(Cast("layout", TextField()), function="hashtext", output_field=BigIntegerField()),
        filter=~Q(layout=[]),
    ),
}


@functools.lru_cache(maxsize=1)
def _layout(_key: tuple[int | None, ...]) -> Layout:
    """Ten thousand rows take longer than all the rest, and hardly ever change."""
    rows = (
        Device.objects.filter(present=True)
        .order_by("node__name", "index", "pk")
        .values_list("pk", "node_id", "index", "model__name", "model__memory_mb", "layout")
    )
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), (), ()]
    models = tuple(sorted(set(columns[3])))
    number = {name: at for at, name in enumerate(models)}
    ids, node_ids, index, memory_mb = (np.array(columns[at], dtype=np.int64) for at in (0, 1, 2, 4))
    model = np.array([number[name] for name in columns[3]], dtype=np.int64)
    kinds: dict[tuple[str, mig.Layout], int] = {("", ()): 0}
    cuts = [
        (name, tuple((profile, start) for profile, start in cut))
        for name, cut in zip(columns[3], columns[5], strict=True)
    ]
    numbers = [kinds.setdefault(cut, len(kinds)) if cut[1] and mig.is_legal(*cut) else 0 for cut in cuts]
    carving = np.array(numbers, dtype=np.int64)
    reach = [[_reach(name, cut, mask) for mask in range(mig.FULL + 1)] for name, cut in kinds]
    parts = [[_parts(name, cut, starts) for starts in range(mig.FULL + 1)] for name, cut in kinds]
    masks = [sum(mig.profiles(name)[profile].bits(start) for profile, start in cut) for name, cut in kinds]
    starts = [sum(1 << start for _, start in cut) for _, cut in kinds]
    return Layout(
        ids=ids,
        node_ids=node_ids,
        index=index,
        model=model,
        memory_mb=memory_mb,
        models=models,
        carvable=not any(columns[5]),
        carving=carving,
        carvings=tuple(cut for _, cut in kinds),
        fixed_mask=np.array(masks, dtype=np.int64)[carving],
        fixed_starts=np.array(starts, dtype=np.int64)[carving],
        reach=np.array(reach, dtype=np.int64),
        parts=np.array(parts, dtype=np.int64),
    )


def _parts(model: str, layout: mig.Layout, starts: int) -> tuple[int, int]:
    """The mask, and the compute slices, of those of the instances that start there."""
    held = [(mig.profiles(model)[name], start) for name, start in layout if starts & 1 << start]
    return sum(profile.bits(start) for profile, start in held), sum(profile.compute for profile, _ in held)


def _reach(model: str, layout: mig.Layout, mask: int) -> int:
    """Compute slices that could still be taken beside the memory slices of the mask."""
    return (mig.left_of(model, layout, mask) if layout else mig.reachable(mask))[0]


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


def _taken(
    layout: Layout, held: dict[str, Column], others: Sequence[snapshots.Outside]
) -> tuple[dict[str, Column], Flags]:
    """What is held, with what others hold beside it, and which devices are held in ways that exclude each other.

    The rows and the engine may differ for a moment: what both say is held counts once, as ours.
    """
    place = dict(zip(layout.ids.tolist(), range(len(layout.ids)), strict=True))
    taken = held | {name: np.zeros_like(held["units"]) for name in ("outside_units", "outside_compute", "outside_mask")}
    clashing = np.zeros(len(layout.ids), dtype=np.bool_)
    for other in others:
        at = place.get(other.device_id) if other.device_id else None
        if at is None:
            continue
        if not other.profile:
            units = min(other.units, max(0, WHOLE - int(taken["units"][at])))
            taken["units"][at] += units
            taken["outside_units"][at] += units
            taken["memory_mb"][at] += other.memory
            continue
        model = layout.models[layout.model[at]]
        if not mig.is_legal(model, ((other.profile, other.start),)):
            clashing[at] = True
            continue
        profile = mig.profiles(model)[other.profile]
        bits = profile.bits(other.start)
        if int(taken["mask"][at]) & bits:
            continue
        for name in ("", "outside_"):
            taken[f"{name}mask"][at] |= bits
            taken[f"{name}compute"][at] += profile.compute
        taken["starts"][at] |= 1 << other.start
    return taken, clashing | _excluding(layout, taken)


def _excluding(layout: Layout, taken: Mapping[str, Column]) -> Flags:
    """Shared and carved at once, or of what is carved for good something that it is not carved into."""
    fixed = layout.carving > 0
    mask, compute = layout.parts[layout.carving, taken["starts"]].T
    other = (taken["mask"] != mask) | (taken["compute"] != compute)
    carved = taken["mask"] > 0
    found: Flags = (taken["units"] > 0) & (carved | fixed) | (fixed & other)
    return found if layout.carvable else found | (carved & ~fixed)


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
    """One node: CPUs (thousandths of a core) and memory (MiB) in use, its present devices with holders, its jobs.

    `outside` is the work there that was not submitted here; what it takes is in use too.
    """

    node: Node
    cpus: int
    memory_mb: int
    devices: Sequence[tuple[Device, Sequence[Allocation]]]
    jobs: int
    outside: Sequence[Outside]


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
    outside = list(Outside.objects.filter(node=node).order_by("since", "name"))
    return NodeDetail(
        node=node,
        cpus=sum(cpus for _, cpus, _ in workers) + sum(work.cpus for work in outside),
        memory_mb=sum(memory_mb for _, _, memory_mb in workers) + sum(work.memory_mb for work in outside),
        devices=[(device, held.get(device.pk, [])) for device in devices],
        jobs=len({attempt for attempt, _, _ in workers}),
        outside=outside,
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
