"""The cluster while decisions are made: the only thing in placement that changes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from haein.placement import devices, mig
from haein.placement.devices import NOTHING, Devices
from haein.placement.kinds import Class, Kinds, Node, admits
from haein.placement.mix import Mix, Shape, shape_of
from haein.placement.model import (
    WHOLE,
    DeviceState,
    Gang,
    Grant,
    Instance,
    Near,
    NodeState,
    Placement,
    Request,
    Snapshot,
)
from haein.placement.policies import FULLEST, Policy


@dataclass(slots=True)
class _Column:
    """What is known of every kind for one shape of request: its keys (inf: no room; NaN: not asked yet), its pick."""

    keys: list[NDArray[np.float64]]
    pick: NDArray[np.int32]
    seen: int = 0  # how many arrivals of kinds have been looked at

    @classmethod
    def blank(cls, keys: int) -> _Column:
        return cls([np.zeros(0)] * keys, np.zeros(0, dtype=np.int32))

    def keep(self, rows: NDArray[np.intp]) -> None:
        self.grow(max(len(self.pick), int(rows.max(initial=-1)) + 1))
        self.keys = [key[rows] for key in self.keys]
        self.pick = self.pick[rows]
        self.seen = 0

    def grow(self, size: int) -> None:
        more = size - len(self.pick)
        self.keys = [np.concatenate([key, np.full(more, np.nan)]) for key in self.keys]
        self.pick = np.concatenate([self.pick, np.zeros(more, dtype=np.int32)])


@dataclass(slots=True)
class _Device:
    """One device beside its state's number: what of it does not change, and the instances on it."""

    given: DeviceState
    usable: bool
    state: int
    slices: list[Instance] = field(default_factory=list)
    withheld: int = 0  # by how many

    @property
    def shown(self) -> int:
        """The state's number as whoever asks for room sees it."""
        return self.state if self.usable and not self.withheld else NOTHING


@dataclass(frozen=True, slots=True)
class Look:
    """What one node has free now. `states` by device; None for one that takes nothing."""

    class_: Class
    cpus: int
    memory_mb: int
    states: tuple[devices.State | None, ...]


class Cluster:
    """Places, finishes, fails and restores, one thing at a time.

    Scores are kept for each pair of (shape of request, kind of node) and made for those that are new: a queue repeats
    few shapes, a placement makes one node of another kind, and most nodes are of a kind with others.
    """

    def __init__(self, snapshot: Snapshot, policy: Policy, mix: Mix) -> None:
        self._given = snapshot.nodes
        self._scorer = policy.scorer(mix)
        self._table = Devices(self._scorer.choose)
        self._order = {node.id: order for order, node in enumerate(snapshot.nodes)}
        self._where = {
            device.id: (order, index)
            for order, node in enumerate(snapshot.nodes)
            for index, device in enumerate(node.devices)
        }
        self._devices = [
            [
                _Device(device, device.usable, self._table.number(devices.state_of(device)), list(device.slices))
                for device in node.devices
            ]
            for node in snapshot.nodes
        ]
        self._usable = [node.usable for node in snapshot.nodes]
        classes: dict[Class, int] = {}
        self._nodes = [
            Node(
                class_=classes.setdefault(Class(node.pool, node.labels), len(classes)),
                cpus=node.free_cpus,
                memory_mb=node.free_memory_mb,
                devices=[device.shown for device in self._devices[order]],
            )
            for order, node in enumerate(snapshot.nodes)
        ]
        self._classes = tuple(classes)
        self._largest = (
            max((node.cpus for node in snapshot.nodes), default=0),
            max((len(node.devices) for node in snapshot.nodes), default=0),
        )
        self._domains: dict[Near, NDArray[np.int64]] = {}
        self._kinds = Kinds(self._table, self._nodes, self._usable, self._classes, self._largest)
        self._columns: dict[Shape, _Column] = {}

    # Places.

    def place(self, request: Request) -> Placement | None:
        """Give the request what it asks for on the node that the policy likes best; None where it fits nowhere."""
        shape = shape_of(request)
        column = self._column(shape)
        kinds = self._kinds
        keys = column.keys[0][: kinds.rows] + kinds.gone[: kinds.rows]
        if not len(keys):
            return None
        least = keys.min()
        if least == np.inf:
            return None
        best = (keys == least).nonzero()[0]
        for key in column.keys[1:]:
            if len(best) > 1:
                best = best[key[best] == key[best].min()]
        kind = int(best[0] if len(best) == 1 else best[kinds.lead[best].argmin()])
        return self._take(request, shape, int(kinds.lead[kind]), int(column.pick[kind]))

    def start(self, asked: Request | Gang) -> tuple[Placement, ...]:
        """Place a request or a whole gang: one placement a worker, none where it fits nowhere."""
        if isinstance(asked, Gang):
            return self.place_gang(asked) or ()
        placement = self.place(asked)
        return (placement,) if placement else ()

    def start_at(
        self, asked: Request | Gang, places: Iterable[tuple[Hashable, tuple[Hashable, ...]]]
    ) -> tuple[Placement, ...]:
        """The same on these nodes and devices, one for each worker, and nowhere else."""
        each = asked.each if isinstance(asked, Gang) else asked
        placed: list[Placement] = []
        for member, (node_id, device_ids) in enumerate(places):
            order = self._order[node_id]
            others = [device.given.id for device in self._devices[order] if device.given.id not in device_ids]
            self.withhold(node_id, others, 0, 0)
            placement = self.place_among(each, np.array([order]))
            self.give_back(node_id, others, (0, 0))
            if placement is None:
                self.end(asked, placed)
                return ()
            placed.append(replace(placement, member=member))
        return tuple(placed)

    def place_among(self, request: Request, orders: NDArray[np.int64]) -> Placement | None:
        """The same, with a choice of these nodes alone."""
        shape = shape_of(request)
        column = self._column(shape)
        orders = orders[self._kinds.of[orders] >= 0]
        of = self._kinds.of[orders]
        for at, key in enumerate(column.keys):
            keys = key[of]
            if not len(keys) or (not at and keys.min() == np.inf):
                return None
            here = keys == keys.min()
            orders, of = orders[here], of[here]
        return self._take(request, shape, int(orders.min()), int(column.pick[of[orders.argmin()]]))

    def place_gang(self, gang: Gang) -> tuple[Placement, ...] | None:
        """All of its members, as near each other as asked for, or none.

        Of the domains (nodes, racks, pods) with room for all, the one with the least room is tried first.
        """
        bounds = self._bounds(shape_of(gang.each))
        for near in (gang.near,) if gang.required else list(Near)[gang.near :]:
            domain_of = self._domain(near)
            known = domain_of >= 0
            if not known.any():
                continue
            room = np.bincount(domain_of[known], weights=bounds[known])
            able = np.flatnonzero(room >= gang.members)
            for domain in able[np.argsort(room[able], kind="stable")].tolist():
                placed = self._place_members(gang, np.flatnonzero((domain_of == domain) & (bounds > 0)))
                if placed:
                    return placed
        return None

    def most_members(self, gang: Gang) -> int:
        """How many members one domain of the nearness asked for could take at most (anywhere, unless required)."""
        bounds = self._bounds(shape_of(gang.each))
        domain_of = self._domain(gang.near if gang.required else Near.ANYWHERE)
        known = domain_of >= 0
        return int(np.bincount(domain_of[known], weights=bounds[known]).max()) if known.any() else 0

    def _place_members(self, gang: Gang, orders: NDArray[np.int64]) -> tuple[Placement, ...] | None:
        placed: list[Placement] = []
        for member in range(gang.members):
            placement = self.place_among(gang.each, orders)
            if placement is None:
                for each in placed:
                    self.finish(gang.each, each)
                return None
            placed.append(replace(placement, member=member))
        return tuple(placed)

    def _bounds(self, shape: Shape) -> NDArray[np.float64]:
        """How many requests of the shape each node could take, by each of its resources alone; 0 out of service."""
        kinds = self._kinds
        rows = kinds.living()
        able = self._table.rooms(shape.ask)[kinds.devices[rows]]
        most = np.full(len(rows), np.inf)
        if shape.gpus == 1:
            most = able.sum(1).astype(float)
        elif shape.gpus:
            # Each device serves a request once: m requests of k devices need sum(min(room, m)) >= k * m. The devices'
            # rooms, added up, are a bound, and for whole devices exact.
            most = np.where((able > 0).sum(1) >= shape.gpus, able.sum(1) // shape.gpus, 0).astype(float)
        for free, asked in ((kinds.cpus[rows], shape.cpus), (kinds.memory_mb[rows], shape.memory_mb)):
            if asked:
                most = np.minimum(most, free // asked)
        most[~kinds.admits(rows, shape)] = 0
        by_row = np.zeros(kinds.rows + 1)  # the last is for nodes of no kind: -1
        by_row[rows] = np.minimum(most, 2**30)
        return by_row[kinds.of]

    def _domain(self, near: Near) -> NDArray[np.int64]:
        """The number of each node's domain; -1 where nobody knows its rack or pod."""
        if near not in self._domains:
            names: list[Hashable] = [
                {Near.NODE: node.id, Near.RACK: (node.pod, node.rack) if node.rack else "", Near.POD: node.pod}.get(
                    near, "anywhere"
                )
                for node in self._given
            ]
            numbers: dict[Hashable, int] = {"": -1}
            self._domains[near] = np.array(
                [numbers.setdefault(name, len(numbers) - 1) for name in names], dtype=np.int64
            )
        return self._domains[near]

    def _column(self, shape: Shape) -> _Column:
        """The shape's column, with an answer for every kind that has nodes."""
        kinds = self._kinds
        column = self._columns.get(shape)
        if column is None:
            column = self._columns[shape] = _Column.blank(self._scorer.keys)
        if len(column.pick) < len(kinds.cpus):
            column.grow(len(kinds.cpus))
        if column.seen == len(kinds.arrived):
            return column
        # A handful as a rule, for which numpy's own way takes four times as long.
        rows = np.array(sorted(set(kinds.arrived[column.seen :])), dtype=np.intp)
        column.seen = len(kinds.arrived)
        rows = rows[np.isnan(column.keys[0][rows] + kinds.gone[rows])]
        if not len(rows):
            return column
        column.keys[0][rows] = np.inf
        fits = (kinds.cpus[rows] >= shape.cpus) & (kinds.memory_mb[rows] >= shape.memory_mb)
        fits &= kinds.admits(rows, shape)
        after = self._table.after(kinds.devices[rows], shape.ask)
        if shape.gpus:
            fits &= (after >= 0).sum(1) >= shape.gpus
        if not fits.all():
            rows, after = rows[fits], after[fits]
        if len(rows):
            scores = self._scorer.score(kinds, rows, shape, after)
            for mine, made in zip(column.keys, scores.keys, strict=True):
                mine[rows] = made
            column.pick[rows] = scores.pick
        return column

    def _take(self, request: Request, shape: Shape, order: int, pick: int) -> Placement:
        node = self._nodes[order]
        grants = tuple(self._grant(order, index, request, shape) for index in sorted(self._picked(node, shape, pick)))
        node.cpus -= request.cpus
        node.memory_mb -= request.memory_mb
        self._changed(order)
        return Placement(request.id, self._given[order].id, grants)

    def _picked(self, node: Node, shape: Shape, pick: int) -> Sequence[int]:
        if not shape.gpus:
            return ()
        if pick >= 0:
            return (node.devices.index(pick),)
        fits = self._table.fits(node.devices, shape.ask)
        if pick == FULLEST:
            fits.sort(key=lambda index: self._table.full_first[node.devices[index]])
        return fits[: shape.gpus]

    def _grant(self, order: int, index: int, request: Request, shape: Shape) -> Grant:
        device = self._devices[order][index]
        before = self._table.states[device.state]
        start, device.state = self._table.start(device.state, shape.ask)
        self._nodes[order].devices[index] = device.state
        if not request.profile:
            return Grant(device.given.id, request.share, shape.ask.memory_of(before))
        device.slices.append(Instance(request.profile, start))
        profile = mig.profiles(device.given.model)[request.profile]
        return Grant(
            device.given.id,
            profile.compute * mig.COMPUTE_UNITS,
            profile.memory * mig.MEMORY_UNITS,
            request.profile,
            start,
        )

    def has_room(self, node_id: Hashable, shape: Shape) -> bool:
        """Whether the node could take one request of the shape; nothing is scored for it."""
        order = self._order[node_id]
        node = self._nodes[order]
        return (
            self._usable[order]
            and node.cpus >= shape.cpus
            and node.memory_mb >= shape.memory_mb
            and admits(self._classes[node.class_], shape)
            and self._table.count(node.devices, shape.ask) >= shape.gpus
        )

    # Finishes, fails, restores.

    def end(self, asked: Request | Gang, placements: Iterable[Placement]) -> None:
        """Take back what start() gave."""
        each = asked.each if isinstance(asked, Gang) else asked
        for placement in placements:
            self.finish(each, placement)

    def finish(self, request: Request, placement: Placement) -> None:
        """Give back what the placement took."""
        order = self._order[placement.node_id]
        for grant in placement.grants:
            index = self._where[grant.device_id][1]
            device = self._devices[order][index]
            state = self._table.states[device.state]
            device.state = self._table.number(state.without(grant.units, grant.memory, grant.profile, grant.start))
            if grant.profile:
                device.slices.remove(Instance(grant.profile, grant.start))
            self._nodes[order].devices[index] = device.shown
        self._nodes[order].cpus += request.cpus
        self._nodes[order].memory_mb += request.memory_mb
        self._changed(order)

    def set_usable(self, device_id: Hashable, usable: bool) -> None:
        """Take a device out of service, or put it back; who is on it stays."""
        order, index = self._where[device_id]
        device = self._devices[order][index]
        device.usable = usable
        self._nodes[order].devices[index] = device.shown
        self._changed(order)

    def set_node_usable(self, node_id: Hashable, usable: bool) -> None:
        """Drain a node, or put it back; who is on it stays."""
        order = self._order[node_id]
        self._usable[order] = usable
        self._changed(order)

    def withhold(self, node_id: Hashable, device_ids: Iterable[Hashable], cpus: int, memory_mb: int) -> tuple[int, int]:
        """Offer nothing of these devices, nor so much CPU and memory as far as it is free; returns how much was."""
        node = self._nodes[self._order[node_id]]
        taken = min(cpus, node.cpus), min(memory_mb, node.memory_mb)
        self._withheld(node_id, device_ids, 1, (-taken[0], -taken[1]))
        return taken

    def give_back(self, node_id: Hashable, device_ids: Iterable[Hashable], taken: tuple[int, int]) -> None:
        """Offer again what withhold() took: `taken` is what that returned."""
        self._withheld(node_id, device_ids, -1, taken)

    def _withheld(self, node_id: Hashable, device_ids: Iterable[Hashable], by: int, back: tuple[int, int]) -> None:
        order = self._order[node_id]
        node = self._nodes[order]
        for device_id in device_ids:
            index = self._where[device_id][1]
            device = self._devices[order][index]
            device.withheld += by
            node.devices[index] = device.shown
        node.cpus += back[0]
        node.memory_mb += back[1]
        self._changed(order)

    def look(self, node_id: Hashable) -> Look | None:
        """What the node has free; None while it is out of service."""
        order = self._order[node_id]
        if not self._usable[order]:
            return None
        node = self._nodes[order]
        states = tuple(None if number == NOTHING else self._table.states[number] for number in node.devices)
        return Look(self._classes[node.class_], node.cpus, node.memory_mb, states)

    def _changed(self, order: int) -> None:
        if self._usable[order]:
            self._kinds.change(order)
        else:
            self._kinds.leave(order)
        if self._kinds.crowded():
            kept = self._kinds.compact()
            self._scorer.keep(kept)
            for column in self._columns.values():
                column.keep(kept)

    # Tells.

    def rooms(self) -> Iterable[tuple[Class, int, int, tuple[devices.State, ...]]]:
        """Each kind of node in service once: its class, free CPUs, free memory, and its devices' states."""
        kinds = self._kinds
        for row in kinds.living().tolist():
            states = tuple(self._table.states[number] for number in kinds.devices[row].tolist() if number != NOTHING)
            yield self._classes[kinds.class_[row]], int(kinds.cpus[row]), int(kinds.memory_mb[row]), states

    def snapshot(self) -> Snapshot:
        """The cluster as it is now."""
        return Snapshot(tuple(self._node(order, node) for order, node in enumerate(self._given)))

    def _node(self, order: int, node: NodeState) -> NodeState:
        return replace(
            node,
            free_cpus=self._nodes[order].cpus,
            free_memory_mb=self._nodes[order].memory_mb,
            usable=self._usable[order],
            devices=tuple(self._device(device) for device in self._devices[order]),
        )

    def _device(self, device: _Device) -> DeviceState:
        state = self._table.states[device.state]
        if state.mask == devices.UNMASKED:
            return replace(
                device.given,
                capacity=WHOLE,
                free=state.units,
                free_memory_mb=state.free_mb,
                slices=(),
                usable=device.usable,
            )
        return replace(
            device.given,
            capacity=mig.UNITS,
            free=(mig.COMPUTE_SLICES - state.compute) * mig.COMPUTE_UNITS,
            free_memory_mb=0,
            slices=tuple(device.slices),
            usable=device.usable,
        )
