"""What a node, or many of one kind, has free, as refusals look at it."""

from __future__ import annotations

from dataclasses import dataclass

from haein.placement import devices
from haein.placement.cluster import Cluster
from haein.placement.devices import State
from haein.placement.kinds import Class, admits
from haein.placement.mix import shape_of
from haein.placement.model import Request, Snapshot


@dataclass(frozen=True, slots=True)
class Room:
    """One kind of node. Each is there once, however many nodes are of it."""

    class_: Class
    cpus: int
    memory_mb: int
    states: tuple[State, ...]

    def admits(self, request: Request) -> bool:
        return admits(self.class_, shape_of(request))

    def candidates(self, request: Request) -> list[State]:
        """All devices of the model asked for that can be carved as asked for, the fullest first."""
        ask = devices.ask_of(request)
        able = [state for state in self.states if devices.offers(state, ask)]
        return sorted(able, key=lambda state: state.idle)

    def tally(self, request: Request) -> tuple[int, int]:
        """How many devices have a slice as asked for, and the most thousandths left on one that has not."""
        ask = devices.ask_of(request)
        able = self.candidates(request)
        left = [state.units for state in able if not devices.room(state, ask)]
        return len(able) - len(left), max(left, default=0)

    def has_gpus(self, request: Request) -> bool:
        return not request.gpus or self.tally(request)[0] >= request.gpus

    def fits(self, request: Request) -> bool:
        enough = request.cpus <= self.cpus and request.memory_mb <= self.memory_mb
        return enough and self.admits(request) and self.has_gpus(request)


def current(cluster: Cluster) -> list[Room]:
    """The room that is free now on the nodes and devices in service."""
    return [Room(*each) for each in cluster.rooms()]


def empty(snapshot: Snapshot, *, in_service: bool) -> list[Room]:
    """The room there would be if nobody held anything; with everything repaired too, unless `in_service`."""
    rooms = (
        Room(
            Class(node.pool, node.labels),
            node.cpus,
            node.memory_mb,
            tuple([devices.emptied(device) for device in node.devices if device.usable or not in_service]),
        )
        for node in snapshot.nodes
        if node.usable or not in_service
    )
    return list(dict.fromkeys(rooms))
