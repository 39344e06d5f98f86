"""What is left on each node while a plan is being made: the only thing in placement that changes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from haein.placement.model import WHOLE, DeviceState, Grant, NodeState, Placement, Request, Snapshot

Slot = tuple[int, int]  # free units, index of the device in its node


class Room:
    """One node's room. `slots[model]` are its devices by free units, the fullest first; `slots[""]` are all of them."""

    __slots__ = ("cpus", "devices", "memory_mb", "node", "order", "slots", "units", "whole")

    def __init__(self, order: int, node: NodeState, cpus: int, memory_mb: int, free: Iterable[int | None]) -> None:
        """`free` has the free units of each device of the node, None where the device can't be used."""
        self.order = order
        self.node = node
        self.cpus = cpus
        self.memory_mb = memory_mb
        self.devices: tuple[DeviceState, ...] = node.devices
        self._rank((units, index) for index, units in enumerate(free) if units is not None)

    def _rank(self, slots: Iterable[Slot]) -> None:
        ranked = sorted(slots)
        self.slots: dict[str, list[Slot]] = {}
        for slot in ranked:
            self.slots.setdefault(self.devices[slot[1]].model, []).append(slot)
        self.slots[""] = ranked
        self.units = sum(units for units, _ in ranked)
        self.whole = len(ranked) - bisect_left(ranked, (WHOLE,))

    def candidates(self, request: Request) -> list[Slot]:
        """All devices of the model asked for, the fullest first."""
        return self.slots.get(request.model, [])

    def fitting(self, request: Request) -> list[Slot]:
        """The devices that have a slice of the size asked for, the fullest first."""
        slots = self.candidates(request)
        return slots[bisect_left(slots, (request.share,)) :]

    def tally(self, request: Request) -> tuple[int, int]:
        """How many devices have a slice of the size asked for, and the most units left on one that has not."""
        slots = self.candidates(request)
        short = bisect_left(slots, (request.share,))
        return len(slots) - short, slots[short - 1][0] if short else 0

    def has_gpus(self, request: Request) -> bool:
        return not request.gpus or self.tally(request)[0] >= request.gpus

    def fits(self, request: Request) -> bool:
        return request.cpus <= self.cpus and request.memory_mb <= self.memory_mb and self.has_gpus(request)

    def take(self, request: Request, slots: list[Slot]) -> Placement:
        """Give the request a slice of each of these devices, and its CPUs and memory."""
        self.cpus -= request.cpus
        self.memory_mb -= request.memory_mb
        taken = {index for _, index in slots}
        self._rank([(units - request.share * (index in taken), index) for units, index in self.slots[""]])
        grants = (Grant(self.devices[index].id, request.share) for index in sorted(taken))
        return Placement(request.id, self.node.id, tuple(grants))


def current(snapshot: Snapshot) -> list[Room]:
    """The room that is free now on the nodes and devices in service."""
    return [
        Room(
            order,
            node,
            node.free_cpus,
            node.free_memory_mb,
            [device.free if device.usable else None for device in node.devices],
        )
        for order, node in enumerate(snapshot.nodes)
        if node.usable
    ]


def empty(snapshot: Snapshot, *, in_service: bool) -> list[Room]:
    """The room there would be if nobody held anything; with everything repaired too, unless `in_service`."""
    return [
        Room(
            order,
            node,
            node.cpus,
            node.memory_mb,
            [device.capacity if device.usable or not in_service else None for device in node.devices],
        )
        for order, node in enumerate(snapshot.nodes)
        if node.usable or not in_service
    ]
