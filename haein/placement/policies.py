"""Policies: which of the kinds of nodes that could take a request should, written as sort keys (the least wins)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from haein.placement import mig
from haein.placement.devices import State, room
from haein.placement.kinds import Kinds, admits
from haein.placement.mix import Mix, Shape, units
from haein.placement.model import WHOLE

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Numbers = NDArray[np.int32]

# What a pick says besides the number of a device's state.
FULLEST, FIRST = -1, -2


class Scores(NamedTuple):
    """For each kind asked about: sort keys, the first decides; and which devices are taken.

    Sums in a key are of whole numbers and divisions are element by element, so that equals are equal to the last bit
    whichever kinds are asked about together: ties then fall to the first node, always the same.
    """

    keys: tuple[Floats, ...]
    pick: Numbers


class Scorer(Protocol):
    keys: int  # how many there are

    def choose(self, outcomes: Sequence[State]) -> int:
        """Which of several starts of a MIG instance is best, by what each would make of the device."""

    def score(self, kinds: Kinds, rows: Rows, shape: Shape, after: Numbers) -> Scores:
        """Score kinds that fit. `after` has for each of their devices the state with a slice taken, or REFUSED."""

    def keep(self, rows: Rows) -> None:
        """Of what is known of kinds by their row, these rows are left, in this order."""


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    scorer: Callable[[Mix], Scorer]


def _roomiest(outcomes: Sequence[State]) -> int:
    """The start that leaves the most legal instances possible; of equals the last, which keeps 0 free for 4g and 7g."""
    return max(range(len(outcomes)), key=lambda at: (_possible(outcomes[at]), at))


def fullest(after: Numbers, gpus: int) -> NDArray[np.bool_]:
    """Which devices are taken when the fullest that fit are: a kind has its devices fullest first."""
    fits = after >= 0
    return fits & (fits.cumsum(1) <= gpus)


class _FirstFit:
    """The first node, the first device, the first start."""

    keys = 1

    def choose(self, outcomes: Sequence[State]) -> int:
        return 0

    def score(self, kinds: Kinds, rows: Rows, shape: Shape, after: Numbers) -> Scores:
        return Scores((np.zeros(len(rows)),), np.full(len(rows), FIRST, dtype=np.int32))

    def keep(self, rows: Rows) -> None:
        return


class _BestFit:
    """The node with the least left, CPUs and GPUs weighing the same, in parts of the largest node's.

    This is the best fit that placement research compares with (Weng et al., USENIX ATC '23, section 6).
    """

    keys = 1

    def choose(self, outcomes: Sequence[State]) -> int:
        return _roomiest(outcomes)

    def score(self, kinds: Kinds, rows: Rows, shape: Shape, after: Numbers) -> Scores:
        idle = kinds.table.idle[kinds.devices[rows]].sum(1)
        key = tightness(kinds, kinds.cpus[rows] - shape.cpus, idle - units(shape), cpu_part=0.5)
        return Scores((key,), np.full(len(rows), FULLEST, dtype=np.int32))

    def keep(self, rows: Rows) -> None:
        return


class _Packed:
    """Break up few whole devices, leave little on those taken, then few whole devices, then little of all, on the node.

    A fraction thus goes where one already is and fills it; whole devices and jobs without GPUs go to the fullest node,
    which keeps empty nodes for those who ask for many. It needs no mix.
    """

    keys = 2

    def choose(self, outcomes: Sequence[State]) -> int:
        return _roomiest(outcomes)

    def score(self, kinds: Kinds, rows: Rows, shape: Shape, after: Numbers) -> Scores:
        idle = kinds.table.idle
        units = idle[kinds.devices[rows]]
        take = fullest(after, shape.gpus)
        left = np.where(take, idle[after], 0).sum(1)
        opened = (take & (units == WHOLE)).sum(1)
        whole = (units == WHOLE).sum(1) - opened
        rest = np.where(take, idle[after], units).sum(1)
        # opened and whole < 2**8, left and rest < 2**18, memory < 2**24 MiB: exact in the 53 bits of a float.
        first = (((opened * 2**18 + left) * 2**8 + whole) * 2**18 + rest).astype(np.float64)
        second = (kinds.cpus[rows] - shape.cpus) * 2**24 + (kinds.memory_mb[rows] - shape.memory_mb)
        return Scores((first, second.astype(np.float64)), np.full(len(rows), FULLEST, dtype=np.int32))

    def keep(self, rows: Rows) -> None:
        return


def tightness(kinds: Kinds, cpus: NDArray[np.int64], units: NDArray[np.int64], cpu_part: float) -> Floats:
    """How much is left on a node, as a part of the largest node: 0 is nothing, 1 all of it."""
    most_cpus, most_units = max(kinds.largest_cpus, 1), max(kinds.width, 1) * WHOLE
    key: Floats = cpu_part * cpus / most_cpus + (1 - cpu_part) * units / most_units
    return key


@dataclass(frozen=True, slots=True)
class Weighing:
    """How the measure of what is lost is made into a key.

    `fill` is the part of the multi-copy measure, the rest is fragmentation; `tight` is how much the least left counts
    beside it; `quantised` rounds it to a hundredth, as FGD does.
    """

    fill: float = 0.0
    tight: float = 0.0
    quantised: bool = False


class _Measured:
    """The least loss of what the mix could still use.

    Two measures of a node, each the sum over the mix's shapes, weighted:
    - fragmentation gradient descent, FGD (Weng et al., "Beware of Fragmentation", USENIX ATC '23, section 4): the idle
      units of the devices that could take the shape, or nothing where the node could not take even one of it;
    - the multi-copy measure: what the node would give if it were filled with copies of the shape, as many as its
      devices, its CPUs and its memory allow, so that CPUs are seen to run out before they have.
    """

    keys = 1

    def __init__(self, mix: Mix, weighing: Weighing) -> None:
        self.weighing = weighing
        # A request without GPUs loses the same wherever it goes: it says nothing of where GPUs are of use.
        weights = {shape: weight for shape, weight in mix.weights.items() if shape.gpus}
        self.shapes = tuple(weights)
        self.count = len(weights)
        self.weights = np.array(list(weights.values()), dtype=np.float64)
        self.total = max(1.0, float(self.weights.sum()))
        self.gpus = np.array([shape.gpus for shape in self.shapes], dtype=np.float64)
        self.several = bool((self.gpus > 1).any())
        self.units = self.weights * [units(shape) for shape in self.shapes]
        self.per_cpu = 1 / np.array([max(shape.cpus, 1e-6) for shape in self.shapes])
        self.per_mb = 1 / np.array([max(shape.memory_mb, 1e-6) for shape in self.shapes])
        self.bound = any(shape.pool or shape.labels for shape in self.shapes)
        self.worth = np.zeros((0, 2 * self.count))  # by the number of a device's state
        self.sums = np.zeros((0, 2 * self.count))  # by the row of a kind: its devices' worth
        self.value = np.zeros(0)

    def keep(self, rows: Rows) -> None:
        known = rows[rows < len(self.value)]  # later rows were not met yet
        self.sums, self.value = self.sums[known], self.value[known]

    def choose(self, outcomes: Sequence[State]) -> int:
        values = [self._worth(state) for state in outcomes]
        scores = [
            float((1 - self.weighing.fill) * (each[: self.count] @ self.weights))
            + float(self.weighing.fill * (each[self.count :] @ self.units))
            for each in values
        ]
        return max(range(len(outcomes)), key=lambda at: (scores[at], _possible(outcomes[at]), at))

    def score(self, kinds: Kinds, rows: Rows, shape: Shape, after: Numbers) -> Scores:
        self._keep_up(kinds, rows)
        devices = kinds.devices[rows]
        if shape.gpus == 1:
            return self._score_one(kinds, rows, shape, devices, after)
        sums = self.sums[rows]
        if shape.gpus:
            sums = self.worth[np.where(fullest(after, shape.gpus), after, devices)].sum(1)
        key = self._key(kinds, rows, shape, kinds.table.idle[devices].sum(1), sums)
        return Scores((key,), np.full(len(rows), FULLEST, dtype=np.int32))

    def _score_one(self, kinds: Kinds, rows: Rows, shape: Shape, devices: Numbers, after: Numbers) -> Scores:
        """Each different device of a node is a choice; the best speaks for the node."""
        choice = after >= 0
        choice[:, 1:] &= devices[:, 1:] != devices[:, :-1]
        at, column = choice.nonzero()
        before, then = devices[at, column], after[at, column]
        sums = self.sums[rows[at]] + (self.worth[then] - self.worth[before])
        key = self._key(kinds, rows[at], shape, kinds.table.idle[devices].sum(1)[at], sums)
        if len(at) == len(rows):
            return Scores((key,), before)
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        best = np.minimum.reduceat(key, starts)
        hits = np.flatnonzero(key == best[at])
        return Scores((best,), before[hits[np.searchsorted(hits, starts)]])

    def _key(self, kinds: Kinds, rows: Rows, shape: Shape, idle: NDArray[np.int64], sums: Floats) -> Floats:
        cpus, memory_mb = kinds.cpus[rows] - shape.cpus, kinds.memory_mb[rows] - shape.memory_mb
        loss = (self.value[rows] - self._value(sums, cpus, memory_mb, kinds.class_[rows], kinds)) / self.total
        if self.weighing.quantised:
            # As in the authors' simulator: 100 steps of a sigmoid of the fragmentation added, in GPUs.
            steps: Floats = -np.floor(100 / (1 + np.exp((loss - units(shape)) / WHOLE)))
            return steps
        key: Floats = loss / WHOLE
        if self.weighing.tight:
            key = key + self.weighing.tight * tightness(kinds, cpus, idle - units(shape), cpu_part=0.8)
        return key

    def _value(
        self, sums: Floats, cpus: NDArray[np.int64], memory_mb: NDArray[np.int64], class_: Numbers, kinds: Kinds
    ) -> Floats:
        """What the mix could use of each, in units times weights."""
        copies = np.minimum(np.multiply.outer(cpus, self.per_cpu), np.multiply.outer(memory_mb, self.per_mb))
        copies += 1e-9  # 3 times a third is one
        if self.several:
            np.minimum(copies, sums[:, self.count :] / self.gpus, out=copies)
        else:
            np.minimum(copies, sums[:, self.count :], out=copies)
        if self.bound:
            copies *= np.array([[admits(each, shape) for shape in self.shapes] for each in kinds.classes])[class_]
        usable: Floats = np.where(copies >= 1, sums[:, : self.count], 0) @ self.weights
        if not self.weighing.fill:
            return usable
        filled: Floats = np.floor(copies, out=copies) @ self.units
        return (1 - self.weighing.fill) * usable + self.weighing.fill * filled

    def _keep_up(self, kinds: Kinds, rows: Rows) -> None:
        """Know the states and the kinds met since the last time."""
        states = kinds.table.states
        if len(self.worth) < len(states):
            new = np.array([self._worth(state) for state in states[len(self.worth) :]])
            self.worth = np.concatenate([self.worth, new])
        if len(self.value) < len(kinds.cpus):
            more = len(kinds.cpus) - len(self.value)
            self.sums = np.concatenate([self.sums, np.zeros((more, 2 * self.count))])
            self.value = np.concatenate([self.value, np.full(more, np.nan)])
        new = rows[np.isnan(self.value[rows])]
        if len(new):
            self.sums[new] = self.worth[kinds.devices[new]].sum(1)
            self.value[new] = self._value(
                self.sums[new], kinds.cpus[new], kinds.memory_mb[new], kinds.class_[new], kinds
            )

    def _worth(self, state: State) -> Floats:
        """For each shape the units of the device that it could use, then how many of its slices the device could give.

        A device gives a request of several devices one slice, however many it has room for.
        """
        rooms = [room(state, shape.ask) for shape in self.shapes]
        usable = [state.idle if each else 0 for each in rooms]
        slices = [each if shape.gpus == 1 else min(each, 1) for each, shape in zip(rooms, self.shapes, strict=True)]
        return np.array(usable + slices, dtype=np.float64)


def _possible(state: State) -> int:
    if state.layout:
        return 0  # which of its instances of one profile is taken is all the same
    return sum(mig.copies(profile, max(0, state.mask)) * profile.memory for profile in mig.PROFILES)


FIRST_FIT = Policy("firstfit", lambda mix: _FirstFit())
BEST_FIT = Policy("bestfit", lambda mix: _BestFit())
PACKED = Policy("packed", lambda mix: _Packed())
FGD = Policy("fgd", lambda mix: _Measured(mix, Weighing(quantised=True)))


def _default(mix: Mix) -> Scorer:
    """Fragmentation, and of what is equal the tightest; copies count where devices are carved into instances.

    docs/placement.md has what was measured. Where it can be rehearsed (rehearsal.py), that settles the weighing.
    """
    carved = any(shape.ask.profile for shape in mix.weights if shape.gpus)
    return _Measured(mix, Weighing(fill=0.7, tight=0.02) if carved else Weighing(tight=0.05))


HAEIN = Policy("haein", _default)
FILLING = Policy("filling", lambda mix: _Measured(mix, Weighing(fill=0.7, tight=0.02)))
# What the default can be settled to; it is the first where several are as good.
CANDIDATES = (HAEIN, FILLING, FGD, PACKED)
POLICIES: Mapping[str, Policy] = {policy.name: policy for policy in (FIRST_FIT, BEST_FIT, PACKED, FGD, HAEIN)}
