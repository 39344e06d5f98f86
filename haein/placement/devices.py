"""The states a device can be in, numbered as they are met, and what a slice makes of each: a multiplication table.

A cluster has thousands of devices and a few hundred states, and queues repeat few asks: a question is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from haein.placement import mig
from haein.placement.model import WHOLE, DeviceState, Request

UNMASKED = -1
NOTHING = 0  # the number of the state of a device that is not there: it takes nothing
REFUSED, UNKNOWN = -1, -2


class State(NamedTuple):
    """What is free of one device. Untouched, it has all its units and no mask; a mask says that it is carved.

    One that is carved for good has a layout, and a mask even when nothing of it is held.
    """

    model: str
    memory_mb: int  # in all; 0 where nobody counts it
    units: int = WHOLE  # thousandths free; 0 when carved
    free_mb: int = 0
    mask: int = UNMASKED
    compute: int = 0  # compute slices held, when carved
    layout: mig.Layout = ()
    carvable: bool = True

    @property
    def untouched(self) -> bool:
        return self.units == WHOLE and self.free_mb == self.memory_mb

    @property
    def idle(self) -> int:
        """Thousandths of its compute that nobody holds; of one carved for good never all, since it is no whole one."""
        if self.mask == UNMASKED:
            return self.units
        return min((mig.COMPUTE_SLICES - self.compute) * WHOLE // mig.COMPUTE_SLICES, WHOLE - 1)

    @property
    def reachable(self) -> tuple[int, int]:
        """Of a carved one the compute slices, and the memory slices, that something could still take."""
        if self.layout:
            return mig.left_of(self.model, self.layout, self.mask)
        return mig.reachable(self.mask)

    @property
    def remainder(self) -> int:
        """Thousandths of its compute that something could still take."""
        if self.mask != UNMASKED:
            return self.reachable[0] * WHOLE // mig.COMPUTE_SLICES
        return self.units if self.free_mb or not self.memory_mb else 0

    def without(self, units: int, memory: int, profile: str, start: int) -> State:
        """The device when this, as in a grant, is given back."""
        if not profile:
            return self._replace(units=self.units + units, free_mb=self.free_mb + memory)
        instance = mig.profiles(self.model)[profile]
        mask = self.mask & ~instance.bits(start)
        if not mask and not self.layout:
            return State(self.model, self.memory_mb, free_mb=self.memory_mb)
        return self._replace(mask=mask, compute=self.compute - instance.compute)


class Ask(NamedTuple):
    """What one slice must be: the part of a request that a device can answer."""

    share: int
    model: str
    memory_mb: int
    profile: str

    def takes(self, model: str) -> bool:
        return not self.model or model in self.model.split("|")

    def memory_of(self, state: State) -> int:
        """A share has the same share of the device's memory, unless more or less was asked for; all of a whole one."""
        if self.share == WHOLE:
            return state.memory_mb
        return self.memory_mb or state.memory_mb * self.share // WHOLE


def ask_of(request: Request) -> Ask:
    return Ask(request.share, request.model, request.gpu_memory_mb, request.profile)


def state_of(device: DeviceState) -> State:
    """A device in MIG mode with nothing on it is a free device: it may be carved anew, or given whole.

    Unless it has a layout.
    """
    if device.slices or device.layout:
        table = mig.profiles(device.model)
        held = [(table[each.profile], each.start) for each in device.slices]
        mask = sum(profile.bits(start) for profile, start in held)
        compute = sum(profile.compute for profile, _ in held)
        return State(device.model, device.memory_mb, 0, 0, mask, compute, _layout(device))
    if device.capacity == mig.UNITS:
        return emptied(device)
    return State(device.model, device.memory_mb, device.free, device.free_memory_mb, carvable=device.carvable)


def emptied(device: DeviceState) -> State:
    """The device with nobody on it."""
    if device.layout:
        return State(device.model, device.memory_mb, 0, 0, 0, 0, _layout(device))
    return State(device.model, device.memory_mb, WHOLE, device.memory_mb, carvable=device.carvable)


def _layout(device: DeviceState) -> mig.Layout:
    return tuple([(each.profile, each.start) for each in device.layout])


def offers(state: State, ask: Ask) -> bool:
    """Whether it is such a device: by its model, and by how it may be carved, whatever is held of it."""
    if not ask.takes(state.model):
        return False
    if not ask.profile:
        return not state.layout
    if state.layout:
        return any(name == ask.profile for name, _ in state.layout)
    return state.carvable and ask.profile in mig.profiles(state.model)


def outcomes(state: State, ask: Ask) -> list[tuple[int, State]]:
    """Every (start, state after) in which the device could give the slice; the start of what is no instance is -1."""
    if not offers(state, ask):
        return []
    if ask.profile:
        profile = mig.profiles(state.model)[ask.profile]
        if not (state.untouched or state.mask != UNMASKED):
            return []
        mask = max(state.mask, 0)
        starts = profile.free_starts(mask)
        if state.layout:
            starts = tuple(start for start in starts if (ask.profile, start) in state.layout)
        return [
            (
                start,
                state._replace(
                    units=0, free_mb=0, mask=mask | profile.bits(start), compute=state.compute + profile.compute
                ),
            )
            for start in starts
        ]
    memory = ask.memory_of(state)
    if state.mask != UNMASKED or state.units < ask.share or state.free_mb < memory or state.memory_mb < ask.memory_mb:
        return []
    return [(-1, state._replace(units=state.units - ask.share, free_mb=state.free_mb - memory))]


def room(state: State, ask: Ask) -> int:
    """How many slices of this kind the device could give."""
    found = outcomes(state, ask)
    if not found:
        return 0
    if ask.profile:
        return len(found)  # starts of one profile never overlap
    memory = ask.memory_of(state)
    return min(state.units // ask.share, state.free_mb // memory if memory else WHOLE)


Chooser = Callable[[Sequence[State]], int]


class Devices:
    """The table. `choose` says which of several outcomes (starts of one profile) is taken: the index of the best."""

    def __init__(self, choose: Chooser) -> None:
        self._choose = choose
        self.states: list[State] = [State("", 0, 0)]
        self.numbers: dict[State, int] = {self.states[0]: NOTHING}
        self.idle = np.zeros(64, dtype=np.int64)
        self.full_first: list[tuple[int, State]] = [(0, self.states[0])]  # the order of devices within a node's kind
        self._after: dict[Ask, NDArray[np.int32]] = {}
        self._takes: dict[Ask, dict[int, bool]] = {}
        self._rooms: dict[Ask, NDArray[np.int64]] = {}

    def number(self, state: State) -> int:
        known = self.numbers.get(state)
        if known is not None:
            return known
        number = self.numbers[state] = len(self.states)
        self.states.append(state)
        self.full_first.append((state.idle, state))
        if number == len(self.idle):
            self.idle = np.concatenate([self.idle, np.zeros_like(self.idle)])
        self.idle[number] = state.idle
        return number

    def start(self, number: int, ask: Ask) -> tuple[int, int]:
        """Where the slice starts on a device in this state, and the number of the state after; it must fit."""
        found = outcomes(self.states[number], ask)
        start, after = found[self._choose([state for _, state in found]) if len(found) > 1 else 0]
        return start, self.number(after)

    def fits(self, numbers: Sequence[int], ask: Ask) -> list[int]:
        """Which of these devices could give the slice, by their place in the list."""
        after = self.after(np.array(numbers, dtype=np.int32), ask)
        return np.flatnonzero(after >= 0).tolist()

    def rooms(self, ask: Ask) -> NDArray[np.int64]:
        """How many such slices a device could give, by the number of its state."""
        known = self._rooms.get(ask, np.zeros(0, dtype=np.int64))
        if len(known) < len(self.states):
            new = [room(state, ask) for state in self.states[len(known) :]]
            known = self._rooms[ask] = np.concatenate([known, np.array(new, dtype=np.int64)])
        return known

    def count(self, numbers: Sequence[int], ask: Ask) -> int:
        """How many of these devices could give the slice; for a handful of them this is faster than an array."""
        known = self._takes.setdefault(ask, {})
        able = 0
        for number in numbers:
            if number not in known:
                known[number] = bool(outcomes(self.states[number], ask))
            able += known[number]
        return able

    def after(self, numbers: NDArray[np.int32], ask: Ask) -> NDArray[np.int32]:
        """The state that each of these devices would be in with the slice taken, REFUSED where it does not fit."""
        table = self._after.get(ask)
        if table is None or len(table) < len(self.states):
            grown = np.full(2 * len(self.states), UNKNOWN, dtype=np.int32)
            if table is not None:
                grown[: len(table)] = table
            table = self._after[ask] = grown
        found: NDArray[np.int32] = table[numbers]
        if found.size and found.min() == UNKNOWN:
            for number in np.unique(numbers[found == UNKNOWN]).tolist():
                table[number] = self.start(number, ask)[1] if outcomes(self.states[number], ask) else REFUSED
            found = table[numbers]
        return found
