"""Which devices a reservation is given: whole nodes first, as few nodes as can be, those that are free soonest."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """A node and those of its devices that may be reserved: each with when it is free at the latest (epoch seconds).

    `whole` says that the node has no others.
    """

    node: Hashable
    name: str
    devices: tuple[tuple[Hashable, float], ...]
    whole: bool = True

    def late(self, gpus: int, at: float) -> float:
        """By how much the latest of so many devices, soonest free first, is free after `at`; in seconds."""
        ends = sorted(end for _, end in self.devices)[:gpus]
        return max(0.0, ends[-1] - at)

    def soonest(self, gpus: int) -> list[Hashable]:
        return [device for device, _ in sorted(self.devices, key=lambda each: each[1])[:gpus]]


def choose(rooms: Sequence[Room], gpus: int, at: float) -> list[Hashable] | None:
    """So many devices for a time that begins `at`, or None where there are not as many.

    Among nodes that serve equally well those come first that nobody has to leave early, then by name.
    """
    if sum(len(room.devices) for room in rooms) < gpus:
        return None
    left, chosen = gpus, list[Hashable]()
    rest = [room for room in rooms if room.devices]
    while left:
        room = _next(rest, left, at)
        rest.remove(room)
        taken = room.soonest(left)
        chosen += taken
        left -= len(taken)
    return chosen


def _next(rooms: Sequence[Room], left: int, at: float) -> Room:
    """One that has all that is left, best as a whole node; else the one that has most."""
    enough = [room for room in rooms if len(room.devices) >= left]
    if enough:
        return min(
            enough,
            key=lambda room: (not _exact(room, left), room.late(left, at), len(room.devices), room.name),
        )
    return min(rooms, key=lambda room: (-len(room.devices), not room.whole, room.late(left, at), room.name))


def _exact(room: Room, left: int) -> bool:
    return room.whole and len(room.devices) == left
