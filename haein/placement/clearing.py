"""Where room for a request would come from if others left: whom it costs least to send away, or who goes first by
himself. Both are one question with two weights."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from haein.placement import devices
from haein.placement.cluster import Cluster, Look
from haein.placement.devices import State
from haein.placement.kinds import admits
from haein.placement.mix import Shape, shape_of
from haein.placement.model import Gang, Grant, Near, NodeState, Placement, Request
from haein.placement.queueing import Places, Running

# What it weighs to send one away; None for whoever stays.
Weight = Callable[[Running], float | None]
# How the weights of several add up: sum for what is lost by sending them away, max for when the last of them is gone.
Combine = Callable[[Iterable[float]], float]


@dataclass(frozen=True, slots=True)
class Cleared:
    """Who has to leave, what that weighs in all, and the places that the request then has."""

    weight: float
    leaving: tuple[Running, ...]
    places: Places


@dataclass(frozen=True, slots=True)
class _Slot:
    """Room for one worker on one node."""

    weight: float
    leaving: tuple[Running, ...]
    devices: tuple[int, ...]


class Clearing:
    """Asked many questions about one moment: it keeps who is where."""

    def __init__(self, nodes: Sequence[NodeState], cluster: Cluster, running: Iterable[Running]) -> None:
        self._nodes = nodes
        self._cluster = cluster
        self._on: dict[Hashable, list[tuple[Running, Placement]]] = defaultdict(list)
        for each in running:
            for placement in each.placements:
                self._on[placement.node_id].append((each, placement))

    def clear(self, request: Request | Gang, weight: Weight, combine: Combine) -> Cleared | None:
        """The lightest way to room for the request, or None where not even that is enough."""
        each, members = (request.each, request.members) if isinstance(request, Gang) else (request, 1)
        shape = shape_of(each)
        found = [
            cleared
            for nodes in self._domains(request)
            if (cleared := _Domain(self, nodes, shape, weight, combine).clear(members))
        ]
        return min(found, key=lambda cleared: cleared.weight, default=None)

    def would_fit(self, request: Request | Gang, places: Places, leaves: Callable[[Running], bool]) -> bool:
        """Whether each of the places' devices has room for its worker once those who leave have left."""
        shape = shape_of(request.each if isinstance(request, Gang) else request)
        known = {node.id: node for node in self._nodes}
        for node_id, device_ids in places:
            node = self.node(known[node_id], shape)
            if node is None or not node.would_fit(device_ids, lambda each: 0.0 if leaves(each) else None):
                return False
        return True

    def _domains(self, request: Request | Gang) -> list[list[NodeState]]:
        if not isinstance(request, Gang) or not request.required or request.near is Near.ANYWHERE:
            return [list(self._nodes)]
        groups: dict[Hashable, list[NodeState]] = defaultdict(list)
        for node in self._nodes:
            name: Hashable = {Near.NODE: node.id, Near.RACK: (node.pod, node.rack), Near.POD: node.pod}[request.near]
            if request.near is Near.NODE or (node.rack if request.near is Near.RACK else node.pod):
                groups[name].append(node)
        return list(groups.values())

    def node(self, node: NodeState, shape: Shape) -> _Node | None:
        """The node as it stands, if it may take the shape at all."""
        look = self._cluster.look(node.id)
        if look is None or not admits(look.class_, shape):
            return None
        return _Node(node, look, self._on[node.id], shape)


@dataclass(slots=True)
class _Domain:
    """Nodes among which the workers may be spread."""

    clearing: Clearing
    nodes: list[NodeState]
    shape: Shape
    weight: Weight
    combine: Combine
    gone: dict[Hashable, Running] = field(default_factory=dict)

    def clear(self, members: int) -> Cleared | None:
        able: dict[int, _Node] = {}
        heap: list[tuple[float, int, _Slot]] = []
        for order, state in enumerate(self.nodes):
            node = self.clearing.node(state, self.shape)
            slot = node and node.slot(self.weight, self.combine, self.gone)
            if node and slot:
                able[order] = node
                heap.append((slot.weight, order, slot))
        heapq.heapify(heap)
        places: list[tuple[Hashable, tuple[Hashable, ...]]] = []
        weights: list[float] = []
        while heap and len(places) < members:
            _, order, _ = heapq.heappop(heap)
            node = able[order]
            # Those who left for an earlier worker may have left this node too: then it is lighter now, never heavier.
            slot = node.slot(self.weight, self.combine, self.gone)
            if slot is None:
                continue
            if heap and slot.weight > heap[0][0]:
                heapq.heappush(heap, (slot.weight, order, slot))
                continue
            node.take(slot)
            self.gone |= {each.id: each for each in slot.leaving}
            weights.append(slot.weight)
            places.append((node.state.id, tuple(node.state.devices[index].id for index in slot.devices)))
            again = node.slot(self.weight, self.combine, self.gone)
            if again:
                heapq.heappush(heap, (again.weight, order, again))
        if len(places) < members:
            return None
        return Cleared(self.combine(weights), tuple(self.gone.values()), tuple(places))


class _Node:
    """One node while workers are put there in thought."""

    def __init__(self, state: NodeState, look: Look, holders: list[tuple[Running, Placement]], shape: Shape) -> None:
        self.state = state
        self._look = look
        self._holders = holders
        self._shape = shape
        self._index = {device.id: index for index, device in enumerate(state.devices)}
        self._taken: set[int] = set()
        self._workers = 0
        self._on: dict[int, list[tuple[Running, Grant]]] = defaultdict(list)
        for each, placement in holders:
            for grant in placement.grants:
                self._on[self._index[grant.device_id]].append((each, grant))

    def take(self, slot: _Slot) -> None:
        self._taken.update(slot.devices)
        self._workers += 1

    def slot(self, weight: Weight, combine: Combine, gone: dict[Hashable, Running]) -> _Slot | None:
        """The lightest room for one more worker, when those who are gone have left."""
        leaving: dict[Hashable, tuple[float, Running]] = {}
        chosen: tuple[int, ...] = ()
        if self._shape.gpus:
            found = self._devices(weight, combine, gone)
            if found is None:
                return None
            chosen, leaving = found
        if not self._clear_host(weight, gone, leaving):
            return None
        total = combine([each for each, _ in leaving.values()] or [0.0])
        return _Slot(total, tuple(each for _, each in leaving.values()), chosen)

    def would_fit(self, device_ids: Iterable[Hashable], weight: Weight) -> bool:
        """Whether the worker fits on each of these devices when whoever has a weight has left."""
        for index in (self._index[device_id] for device_id in device_ids):
            state = self._look.states[index]
            if state is None or self._device(index, state, weight, {}) is None:
                return False
        return True

    def _devices(
        self, weight: Weight, combine: Combine, gone: dict[Hashable, Running]
    ) -> tuple[tuple[int, ...], dict[Hashable, tuple[float, Running]]] | None:
        able = []
        for index, state in enumerate(self._look.states):
            if state is None or index in self._taken or not self._shape.ask.takes(state.model):
                continue
            found = self._device(index, state, weight, gone)
            if found is not None:
                able.append((combine([each for each, _ in found] or [0.0]), index, found))
        if len(able) < self._shape.gpus:
            return None
        able.sort(key=lambda each: each[:2])
        best = able[: self._shape.gpus]
        leaving = {running.id: (each, running) for _, _, found in best for each, running in found}
        return tuple(sorted(index for _, index, _ in best)), leaving

    def _device(
        self, index: int, state: State, weight: Weight, gone: dict[Hashable, Running]
    ) -> list[tuple[float, Running]] | None:
        """Who must leave the device before the slice fits, lightest first; None if it never does."""
        left: list[tuple[float, Running, Grant]] = []
        for each, grant in self._on[index]:
            if each.id in gone:
                state = state.without(grant.units, grant.memory, grant.profile, grant.start)
            elif (heavy := weight(each)) is not None:
                left.append((heavy, each, grant))
        left.sort(key=lambda each: each[0])
        leaving: list[tuple[float, Running]] = []
        while not devices.outcomes(state, self._shape.ask):
            if not left:
                return None
            heavy, each, grant = left.pop(0)
            leaving.append((heavy, each))
            state = state.without(grant.units, grant.memory, grant.profile, grant.start)
        return leaving

    def _clear_host(
        self, weight: Weight, gone: dict[Hashable, Running], leaving: dict[Hashable, tuple[float, Running]]
    ) -> bool:
        """Whether CPUs and memory are enough, with more leaving where it must be."""
        cpus = self._look.cpus - self._shape.cpus * (self._workers + 1)
        memory_mb = self._look.memory_mb - self._shape.memory_mb * (self._workers + 1)
        stays = []
        for each, _ in self._holders:
            if each.id in gone or each.id in leaving:
                host = _each(each)
                cpus, memory_mb = cpus + host.cpus, memory_mb + host.memory_mb
            elif (heavy := weight(each)) is not None:
                stays.append((heavy, each))
        stays.sort(key=lambda pair: pair[0])
        for heavy, each in stays:
            if cpus >= 0 and memory_mb >= 0:
                break
            if each.id not in leaving:
                leaving[each.id] = heavy, each
            host = _each(each)
            cpus, memory_mb = cpus + host.cpus, memory_mb + host.memory_mb
        return cpus >= 0 and memory_mb >= 0


def _each(running: Running) -> Request:
    return running.request.each if isinstance(running.request, Gang) else running.request
