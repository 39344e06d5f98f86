"""The cluster as the page's canvas draws it: once what stands where, then a frame of four bytes a device.

A frame is the number of its layout (4 bytes, the lowest first), then four columns of one byte for each device in the
layout's order:

1. flags: FREE, PARTLY or FULL, with CARVED, BROKEN and DRAINED;
2. of a carved device the mask of its memory slices that are taken, else how much of it is taken, in 250ths;
3. of a carved device the memory slices at which those instances start, else how many jobs hold it (255: as many or
   more);
4. what of the second is taken by work that was not submitted here.
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
    state |= CARVED * occupancy.carved | BROKEN * occupancy.broken | DRAINED * occupancy.drained
    column: NDArray[np.uint8] = state.astype(np.uint8)
    return column


def _columns(occupancy: Occupancy) -> bytes:
    carved = occupancy.carved
    second = np.where(carved, occupancy.mask, _filled(occupancy.units)).astype(np.uint8)
    third = np.where(carved, occupancy.starts, np.minimum(occupancy.holders, _LAST)).astype(np.uint8)
    fourth = np.where(carved, occupancy.outside_mask, _filled(occupancy.outside_units)).astype(np.uint8)
    return bytes(flags(occupancy)) + bytes(second) + bytes(third) + bytes(fourth)


def _filled(units: NDArray[np.int64]) -> NDArray[np.int64]:
    share = np.minimum(units, WHOLE)
    # Whoever holds a little of it is seen to.
    return np.where(share > 0, np.maximum(1, share * _STEPS // WHOLE), 0)


def _nodes(occupancy: Occupancy) -> list[Any]:
    """Each node's name, pod, rack, pool, and its devices in runs of one kind.

    A run is [model, first index, how many], and of those that are carved for good, further, the mask of the memory
    slices of their instances and where these start.
    """
    runs = _runs(occupancy.layout)
    return [
        [node.name, node.pod, node.rack, node.pool, next(runs) if count else []]
        for node, count in zip(
            occupancy.nodes, occupancy.by_node(np.ones(len(occupancy.node), dtype=np.bool_)).tolist(), strict=True
        )
    ]


def _runs(layout: Layout) -> Iterator[list[list[int]]]:
    """For each node that has devices."""
    columns = (layout.node_ids, layout.model, layout.index, layout.fixed_mask, layout.fixed_starts)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for _node, devices in groupby(rows, key=lambda row: row[0]):
        runs: list[list[int]] = []
        for _, model, index, mask, starts in devices:
            fixed = [mask, starts] if mask else []
            if runs and runs[-1][0] == model and runs[-1][3:] == fixed and runs[-1][1] + runs[-1][2] == index:
                runs[-1][2] += 1
            else:
                runs.append([model, index, 1, *fixed])
        yield runs
