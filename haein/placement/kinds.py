"""Nodes grouped by identical state, so that a question is asked once of each kind of node and not of each node."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from haein.placement.devices import NOTHING, Devices
from haein.placement.mix import Shape


class Class(NamedTuple):
    """What of a node a placement never changes and a request may ask for."""

    pool: str
    labels: frozenset[str]


def admits(class_: Class, shape: Shape) -> bool:
    return shape.pool in ("", class_.pool) and shape.labels <= class_.labels


@dataclass(slots=True)
class Node:
    """One node's state now: the numbers of its devices' states, by index; NOTHING where one can't be used."""

    class_: int
    cpus: int
    memory_mb: int
    devices: list[int]


_ARRAYS = ("class_", "cpus", "memory_mb", "devices", "gone", "lead")


class Kinds:
    """Kind number k is row k of every array. A kind without nodes keeps its row, and what is known of it, for a while.

    A node out of service is of no kind (-1).
    """

    def __init__(
        self,
        devices: Devices,
        nodes: Sequence[Node],
        usable: Sequence[bool],
        classes: Sequence[Class],
        largest: tuple[int, int],
    ) -> None:
        """`largest` are the most CPUs, and the most devices, that one node has in all."""
        self.table = devices
        self.nodes = nodes
        self.classes = classes
        self.largest_cpus, self.width = largest
        self.rows = 0  # of the arrays, how many are in use
        size = 256
        self.class_ = np.zeros(size, dtype=np.int32)
        self.cpus = np.zeros(size, dtype=np.int64)
        self.memory_mb = np.zeros(size, dtype=np.int64)
        self.devices = np.full((size, self.width), NOTHING, dtype=np.int32)
        self.gone = np.full(
            size, np.inf
        )  # 0 where the kind has nodes: added to a score, it leaves out what is not there
        self.lead = np.zeros(size, dtype=np.int64)  # the first of its nodes
        self.count: list[int] = []
        self._queues: list[list[int]] = []
        self._rows: dict[tuple[int, int, int, tuple[int, ...]], int] = {}
        self.arrived: list[
            int
        ] = []  # the rows of kinds that got their first node, in order: what may have to be scored
        self.of = np.full(len(nodes), -1, dtype=np.int64)
        for order, (node, used) in enumerate(zip(nodes, usable, strict=True)):
            if used:
                self._enter(order, self._row(node))

    def change(self, order: int) -> None:
        """The node is not what it was."""
        self.leave(order)
        self._enter(order, self._row(self.nodes[order]))

    def leave(self, order: int) -> None:
        kind = int(self.of[order])
        if kind < 0:
            return
        self.of[order] = -1
        self.count[kind] -= 1
        if not self.count[kind]:
            self.gone[kind] = np.inf
            self._queues[kind].clear()
        elif self.lead[kind] == order:
            queue = self._queues[kind]
            # A node may have left and come back, and stands in the queue for each time.
            while queue[0] == order or self.of[queue[0]] != kind:
                heapq.heappop(queue)
            self.lead[kind] = queue[0]

    def _enter(self, order: int, kind: int) -> None:
        self.of[order] = kind
        self.count[kind] += 1
        queue = self._queues[kind]
        heapq.heappush(queue, order)
        if self.count[kind] == 1:
            self.gone[kind] = 0.0
            self.arrived.append(kind)
        if self.count[kind] == 1 or order < self.lead[kind]:
            self.lead[kind] = order

    def _row(self, node: Node) -> int:
        devices = tuple(sorted(node.devices, key=self.table.full_first.__getitem__))
        key = (node.class_, node.cpus, node.memory_mb, devices)
        known = self._rows.get(key)
        if known is not None:
            return known
        row = self._rows[key] = self.rows
        if row == len(self.cpus):
            self._grow()
        self.class_[row], self.cpus[row], self.memory_mb[row] = node.class_, node.cpus, node.memory_mb
        self.devices[row, self.width - len(devices) :] = devices
        self.gone[row] = np.inf
        self.count.append(0)
        self._queues.append([])
        self.rows += 1
        return row

    def _grow(self) -> None:
        for name in _ARRAYS:
            array = getattr(self, name)
            more = np.zeros((max(256, len(array)), *array.shape[1:]), dtype=array.dtype)
            setattr(self, name, np.concatenate([array, more]))

    def admits(self, rows: NDArray[np.intp], shape: Shape) -> NDArray[np.bool_]:
        """Which of the kinds the request may go to at all."""
        if not shape.pool and not shape.labels:
            return np.ones(len(rows), dtype=np.bool_)
        return np.array([admits(each, shape) for each in self.classes])[self.class_[rows]]

    def crowded(self) -> bool:
        """Most rows are of kinds that no node is of any more, and they are many enough to slow things down."""
        return self.rows > 4096 and self.rows > 2 * len(self.nodes)

    def compact(self) -> NDArray[np.intp]:
        """Keep only the rows of kinds that have nodes; returns which they were, in their new order."""
        kept = self.living()
        new = {int(row): at for at, row in enumerate(kept)}
        for name in _ARRAYS:
            setattr(self, name, getattr(self, name)[kept])
        self.count = [self.count[row] for row in kept]
        self._queues = [self._queues[row] for row in kept]
        self._rows = {key: new[row] for key, row in self._rows.items() if row in new}
        self.of = np.array([new.get(row, -1) for row in self.of.tolist()], dtype=np.int64)
        self.arrived = list(range(len(kept)))  # some were not scored yet for some shapes
        self.rows = len(kept)
        return kept

    def living(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.gone[: self.rows] == 0)
