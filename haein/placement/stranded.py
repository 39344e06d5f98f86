"""What of the free GPUs a request can't use, and why: a report over what is free, for each shape of request.

Counted in 7000ths of a device (`GPU`), in which a thousandth and a compute slice are both whole numbers: nothing is
rounded, and for each shape what is usable and what is stranded add up to what is free.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haein.placement import devices, mig
from haein.placement.devices import UNMASKED, Ask, State
from haein.placement.kinds import Class, admits
from haein.placement.mix import shape_of
from haein.placement.model import WHOLE, Request, Snapshot
from haein.placement.rooms import Room

GPU = WHOLE * mig.COMPUTE_SLICES
_THOUSANDTH, _COMPUTE_SLICE = GPU // WHOLE, GPU // mig.COMPUTE_SLICES


class Why(enum.Enum):
    """Why free units are of no use to a request. Each unit has one reason: the first of these that holds."""

    ELSEWHERE = "the model, the pool or a label is another"
    OTHERWISE = "carved where a share is asked for, or shared where an instance is"
    GPU_MEMORY = "too little GPU memory is left beside them"
    LITTLE = "too little is left on each device"
    NO_START = "no legal start is left for the instance"
    FEW_DEVICES = "too few devices of one node have it"
    CPUS = "too few CPUs are left on the node"
    MEMORY = "too little memory is left on the node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """For one request: how many more like it fit now, and what becomes of the free units (in 7000ths of a device).

    `why` has only the reasons that there are. usable + stranded = free, and the sum of `why` is `stranded`.
    """

    request: Request
    fits: int
    free: int
    usable: int
    why: Mapping[Why, int]

    @property
    def stranded(self) -> int:
        return self.free - self.usable


def standard(models: Iterable[str]) -> tuple[Request, ...]:
    """What is always worth knowing: one whole device, eight of one node, half of one, and a 1g and a 3g instance.

    They ask for no CPUs and no memory. The instances are those of the first of these models, by name, that has any.
    """
    asked = [
        Request(id=f"{gpus} x {share}", gpus=gpus, share=share, cpus=0, memory_mb=0)
        for gpus, share in ((1, WHOLE), (8, WHOLE), (1, WHOLE // 2))
    ]
    table = next((table for model in sorted(models) if (table := mig.profiles(model))), {})
    small = [name for name in table if name.startswith(("1g.", "3g."))]
    # Of the two of 1g the first has one memory slice.
    shown = small[:1] + [name for name in small if name.startswith("3g.")]
    return (*asked, *(Request(id=name, gpus=1, profile=name, cpus=0, memory_mb=0) for name in shown))


def of(snapshot: Snapshot, requests: Iterable[Request]) -> tuple[Report, ...]:
    """One report a request, in their order. Raises ValueError for a request without GPUs: it strands none."""
    rooms = Counter(
        Room(
            Class(node.pool, node.labels),
            node.free_cpus,
            node.free_memory_mb,
            tuple(sorted(devices.state_of(device) for device in node.devices if device.usable)),
        )
        for node in snapshot.nodes
        if node.usable
    )
    return tuple(map(Kinds(rooms).report, requests))


class Kinds:
    """The same from the kinds of nodes in service and how many nodes are of each: it costs what there are of kinds.

    What was asked once is known: many readers look at one cluster, and most ask the same. A row of the arrays is a
    kind: the numbers of its devices' states (0: no device), CPUs, memory, how many nodes.
    """

    def __init__(self, rooms: Mapping[Room, int]) -> None:
        self._known: dict[Request, Report] = {}
        numbers: dict[State, int] = {State("", 0, 0): 0}
        rows = [[numbers.setdefault(state, len(numbers)) for state in room.states] for room in rooms]
        width = max(map(len, rows), default=0)
        self.rooms, self.states = tuple(rooms), tuple(numbers)
        self.numbers = np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.intp)
        self.numbers = self.numbers.reshape(len(rows), width)
        self.count = np.array(list(rooms.values()), dtype=np.int64)
        self.beside = [
            (Why.CPUS, np.array([room.cpus for room in rooms], dtype=np.int64)),
            (Why.MEMORY, np.array([room.memory_mb for room in rooms], dtype=np.int64)),
        ]
        self.free = self._each(_free(state) for state in self.states)

    def report(self, request: Request) -> Report:
        """Raises ValueError for a request without GPUs."""
        if request not in self._known:
            self._known[request] = self._report(request)
        return self._known[request]

    def _report(self, request: Request) -> Report:
        if not request.gpus:
            raise ValueError("gpus: a request without GPUs leaves none stranded; ask about one that has some.")
        shape = shape_of(request)
        here = np.array([admits(room.class_, shape) for room in self.rooms], dtype=np.int64)
        why = Counter({Why.ELSEWHERE: self._total(self.free * (1 - here))})
        lost = [_lost(state, shape.ask) for state in self.states]
        for reason in {reason for part in lost for reason in part}:
            why[reason] += self._total(self._each(part.get(reason, 0) for part in lost) * here)
        slices = np.array([devices.room(state, shape.ask) for state in self.states], dtype=np.int64)[self.numbers]
        slices *= here[:, None]
        fits = _fitting(slices, shape.gpus)
        each = _units(shape.ask)
        why[Why.FEW_DEVICES] = self._total(slices.sum(1) - fits * shape.gpus) * each
        for (reason, left), asked in zip(self.beside, (shape.cpus, shape.memory_mb), strict=True):
            fewer = np.minimum(fits, left // asked) if asked else fits
            why[reason] = self._total(fits - fewer) * shape.gpus * each
            fits = fewer
        fitting = self._total(fits)
        return Report(
            request=request,
            fits=fitting,
            free=self._total(self.free),
            usable=fitting * shape.gpus * each,
            why={reason: why[reason] for reason in Why if why[reason]},
        )

    def _each(self, of_states: Iterable[int]) -> NDArray[np.int64]:
        """The sum over each kind's devices."""
        sums: NDArray[np.int64] = np.array(list(of_states), dtype=np.int64)[self.numbers].sum(1)
        return sums

    def _total(self, of_kinds: NDArray[np.int64]) -> int:
        return int(of_kinds @ self.count)


def _fitting(slices: NDArray[np.int64], gpus: int) -> NDArray[np.int64]:
    """How many requests of so many devices each kind's devices could serve, each device once for a request.

    `slices` are how many each device could give, a row a kind. As many requests fit as m when the devices' slices, none
    counted for more than m, are m times the devices asked for; and when m fit, so do fewer.
    """
    low, high = np.zeros(len(slices), dtype=np.int64), slices.sum(1) // gpus
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = np.minimum(slices, middle[:, None]).sum(1) >= middle * gpus
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def _units(ask: Ask) -> int:
    """What one slice takes; a profile's compute slices are the same on every model."""
    if not ask.profile:
        return ask.share * _THOUSANDTH
    return int(ask.profile.partition("g.")[0]) * _COMPUTE_SLICE


def _free(state: State) -> int:
    """Of what nobody holds, what some slice could still take: the free term of Law 2."""
    if state.mask != UNMASKED:
        return state.reachable[0] * _COMPUTE_SLICE
    return state.remainder * _THOUSANDTH


def _lost(state: State, ask: Ask) -> Mapping[Why, int]:
    """What of a device's free units this ask can't have, if it had the device to itself."""
    free = _free(state)
    if not ask.takes(state.model) or (ask.profile and ask.profile not in mig.profiles(state.model)):
        return {Why.ELSEWHERE: free}
    rest = free - devices.room(state, ask) * _units(ask)
    if state.layout or (ask.profile and not state.carvable):
        return {Why.OTHERWISE: rest}
    if ask.profile:
        return {Why.NO_START if state.untouched or state.mask != UNMASKED else Why.OTHERWISE: rest}
    if state.mask != UNMASKED:
        return {Why.LITTLE if ask.share == WHOLE else Why.OTHERWISE: rest}
    little = free % _units(ask)
    return {Why.LITTLE: little, Why.GPU_MEMORY: rest - little}
