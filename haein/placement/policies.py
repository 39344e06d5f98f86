"""Policies: which of the nodes and devices that could take a request should, written as sort keys (the least wins)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from haein.placement.model import WHOLE, Request
from haein.placement.rooms import Room, Slot

Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """`node` ranks the nodes that fit a request, `device` the devices that fit on the node chosen.

    Both keys end in the order of the snapshot, so that the same question always has the same answer.
    """

    node: Callable[[Room, Request], Key]
    device: Callable[[Slot], Key]


def _in_order(room: Room, request: Request) -> Key:
    return (room.order,)


def _index(slot: Slot) -> Key:
    return (slot[1],)


def _least_left(room: Room, request: Request) -> Key:
    """Break up few whole devices, leave little on those taken, then few whole devices, then little of all, on the node.

    A fraction thus goes where one already is and fills it; whole devices and jobs without GPUs go to the fullest node,
    which keeps empty nodes for those who ask for many.
    """
    opened = slack = 0
    if request.gpus:
        for units, _ in room.fitting(request)[: request.gpus]:
            opened += units == WHOLE
            slack += units - request.share
    return (
        opened,
        slack,
        room.whole - opened,
        room.units - request.gpus * request.share,
        room.cpus - request.cpus,
        room.memory_mb - request.memory_mb,
        room.order,
    )


def _fullest(slot: Slot) -> Key:
    return slot


FIRST_FIT = Policy(node=_in_order, device=_index)
BEST_FIT = Policy(node=_least_left, device=_fullest)
