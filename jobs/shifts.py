"""Which slices change places on paper when some are found elsewhere than where they were put: pure, without a database.

What is found is the truth. Whoever has not begun and was put where somebody else is found gets what that one gave up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from haein.placement import mig
from haein.placement.model import WHOLE


class Spot(NamedTuple):
    """A device, and the memory slice where an instance starts on it; None for a whole device or a share."""

    device_id: int
    start: int | None


class Slice(NamedTuple):
    """An open allocation by its key: units and memory as in its row."""

    id: int
    attempt_id: UUID
    rank: int
    spot: Spot
    units: int
    memory: int
    profile: str


class Device(NamedTuple):
    """What decides whether a slice may be on it; `memory_mb` is 0 where nobody counts it."""

    node_id: int
    model: str
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Shift:
    """New spots by the key of the slice: of those that were `found` there, and of those that gave way (`displaced`).

    `stuck` are attempts that were found where an instance is that can't give way: they stay on paper where they are.
    """

    found: Mapping[int, Spot]
    displaced: Mapping[int, Spot]
    stuck: frozenset[UUID]


def plan(
    slices: Sequence[Slice], found: Mapping[int, Spot], loose: Collection[UUID], devices: Mapping[int, Device]
) -> Shift:
    """`found` says where slices are, `loose` which attempts may be given another place; the others stay.

    `slices` are all that is held of the devices that anything leaves or comes to.
    """
    stuck: set[UUID] = set()
    while True:
        seen = {each.id: found[each.id] for each in slices if each.id in found and each.attempt_id not in stuck}
        table = _Table(slices, seen, devices)
        displaced, late = table.give_way(loose)
        if not late:
            return Shift({s.id: table.spots[s.id] for s in table.moved}, displaced, frozenset(stuck))
        stuck |= late


class _Table:
    """The devices with everything at its new spot."""

    def __init__(self, slices: Sequence[Slice], found: Mapping[int, Spot], devices: Mapping[int, Device]) -> None:
        self.devices = devices
        self.spots = {each.id: found.get(each.id, each.spot) for each in slices}
        self.known = frozenset(found)
        self.moved = [each for each in slices if self.spots[each.id] != each.spot]
        self.on: defaultdict[int, list[Slice]] = defaultdict(list)
        for each in slices:
            self.on[self.spots[each.id].device_id].append(each)

    def give_way(self, loose: Collection[UUID]) -> tuple[dict[int, Spot], set[UUID]]:
        """Where those go who must give way, and the attempts that were found where somebody can't."""
        given: dict[int, Spot] = {}
        spare = list(self.moved)
        out = list(self._in_the_way(loose))
        for each in out:
            self.on[each.spot.device_id].remove(each)
        for each in out:
            left = next((one for one in spare if self._may_have(each, one)), None)
            if left is not None:
                spare.remove(left)
                given[each.id] = self.spots[each.id] = left.spot
            self.on[self.spots[each.id].device_id].append(each)
        return given, {each.attempt_id for each in self.moved if self._overlaps(each)}

    def _in_the_way(self, loose: Collection[UUID]) -> Iterator[Slice]:
        """Of each device that something has come to, the loose slices that it leaves no room for; the newest go."""
        for device_id in dict.fromkeys(self.spots[each.id].device_id for each in self.moved):
            stays = [each for each in self.on[device_id] if self._stays(each, loose)]
            for each in sorted(self.on[device_id], key=lambda each: each.id):
                if self._stays(each, loose):
                    continue
                if self._fits(each, each.spot, stays):
                    stays.append(each)
                else:
                    yield each

    def _stays(self, each: Slice, loose: Collection[UUID]) -> bool:
        return each.id in self.known or each.attempt_id not in loose

    def _may_have(self, each: Slice, left: Slice) -> bool:
        """Whether what `left` gave up is of the same kind, on the same node, and still free."""
        old, new = self.devices[each.spot.device_id], self.devices[left.spot.device_id]
        there = self.on[left.spot.device_id]
        # Of one device a worker has one share at most (a constraint of the table), but as many instances as there are.
        own = not each.profile and any((one.attempt_id, one.rank) == (each.attempt_id, each.rank) for one in there)
        alike = (old.node_id, old.model, each.profile) == (new.node_id, new.model, left.profile)
        return alike and not own and self._fits(each, left.spot, there)

    def _fits(self, each: Slice, spot: Spot, beside: Sequence[Slice]) -> bool:
        if any(bool(one.profile) != bool(each.profile) for one in beside):
            return False
        if each.profile:
            bits = self._bits(each, spot)
            return not any(bits & self._bits(one, self.spots[one.id]) for one in beside)
        most = self.devices[spot.device_id].memory_mb
        units, memory = sum(one.units for one in (*beside, each)), sum(one.memory for one in (*beside, each))
        return units <= WHOLE and (memory <= most or not most)

    def _overlaps(self, moved: Slice) -> bool:
        """Two instances at one place are never written down: nothing could be placed beside them."""
        spot = self.spots[moved.id]
        beside = [one for one in self.on[spot.device_id] if one.id != moved.id and one.profile]
        return bool(moved.profile) and not self._fits(moved, spot, beside)

    def _bits(self, each: Slice, spot: Spot) -> int:
        """The memory slices that the instance covers at the spot; of a profile that nobody knows, the first alone."""
        assert spot.start is not None  # a constraint of the table
        profile = mig.profiles(self.devices[spot.device_id].model).get(each.profile)
        return profile.bits(spot.start) if profile else 1 << spot.start
