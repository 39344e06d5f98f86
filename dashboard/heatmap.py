"""The cluster as the page's canvas draws it: once what stands where, then a frame of three bytes a device.

A frame is the number of its layout (4 bytes, the lowest first), then three columns of one byte for each device in the
layout's order:

1. flags: FREE, PARTLY or FULL, with CARVED, BROKEN and DRAINED;
2. of a carved device the mask of its memory slices that are held, else how much of it is held, in 250ths;
3. of a carved device the memory slices at which instances start, else how many hold it (255: as many or more).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haein.placement.model import WHOLE
from jobs.occupancy import FREE, FULL, PARTLY, Layout, Occupancy

CARVED, BROKEN, DRAINED = 4, 8, 16
STATES = {"free": FREE, "partly": PARTLY, "full": FULL}
_STEPS = 250
_LAST = 255


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The cluster at one moment, as rows were and as bytes."""

    occupancy: Occupancy
    layout: str  # JSON
    frame: bytes

    @property
    def number(self) -> bytes:
        """Of the layout: it changes when the layout does."""
        return self.frame[:4]


def picture(occupancy: Occupancy) -> Picture:
    layout = json.dumps({"models": occupancy.layout.models, "nodes": _nodes(occupancy)}, separators=(",", ":"))
    number = zlib.crc32(layout.encode()).to_bytes(4, "little")
    return Picture(occupancy, layout, number + _columns(occupancy))


def flags(occupancy: Occupancy) -> NDArray[np.uint8]:
    """The first column."""
    state = occupancy.states
    state |= CARVED * (occupancy.mask > 0) | BROKEN * occupancy.broken | DRAINED * occupancy.drained
    column: NDArray[np.uint8] = state.astype(np.uint8)
    return column


def _columns(occupancy: Occupancy) -> bytes:
    carved = occupancy.mask > 0
    share = np.minimum(occupancy.units, WHOLE)
    # Whoever holds a little of it is seen to.
    filled = np.where(share > 0, np.maximum(1, share * _STEPS // WHOLE), 0)
    second = np.where(carved, occupancy.mask, filled).astype(np.uint8)
    third = np.where(carved, occupancy.starts, np.minimum(occupancy.holders, _LAST)).astype(np.uint8)
    return bytes(flags(occupancy)) + bytes(second) + bytes(third)


def _nodes(occupancy: Occupancy) -> list[Any]:
    """Each node's name, pod, rack, pool, and its devices in runs of one model: [model, first index, how many]."""
    runs = _runs(occupancy.layout)
    return [
        [node.name, node.pod, node.rack, node.pool, next(runs) if count else []]
        for node, count in zip(
            occupancy.nodes, occupancy.by_node(np.ones(len(occupancy.node), dtype=np.bool_)).tolist(), strict=True
        )
    ]


def _runs(layout: Layout) -> Iterator[list[list[int]]]:
    """For each node that has devices."""
    rows = zip(layout.node_ids.tolist(), layout.model.tolist(), layout.index.tolist(), strict=True)
    for _node, devices in groupby(rows, key=lambda row: row[0]):
        runs: list[list[int]] = []
        for _, model, index in devices:
            if runs and runs[-1][0] == model and runs[-1][1] + runs[-1][2] == index:
                runs[-1][2] += 1
            else:
                runs.append([model, index, 1])
        yield runs
