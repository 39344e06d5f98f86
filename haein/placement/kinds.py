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
        for name in ("class_", "cpus", "memory_mb", "devices", "gone", "lead"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array)]))

    def admits(self, rows: NDArray[np.intp], shape: Shape) -> NDArray[np.bool_]:
        """Which of the kinds the request may go to at all."""
        if not shape.pool and not shape.labels:
            return np.ones(len(rows), dtype=np.bool_)
        return np.array([admits(each, shape) for each in self.classes])[self.class_[rows]]

    def crowded(self) -> bool:
        """Most rows are of kinds that no node is of any more, and they are many enough to slow things down."""
        return self.rows > 4096 and self.rows > 4 * len(self.nodes)

    def living(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.gone[: self.rows] == 0)
