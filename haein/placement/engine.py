"""Decides where requests go: a snapshot and requests in, a plan out; nothing is read or written besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from haein.placement import refusals, rooms
from haein.placement.model import Placement, Plan, Refusal, Request, Snapshot, require_distinct
from haein.placement.policies import BEST_FIT, FIRST_FIT, Key, Policy
from haein.placement.rooms import Room

__all__ = ["BEST_FIT", "FIRST_FIT", "Policy", "ever_fits", "plan"]

Shape = tuple[int, int, int, int, str]


def plan(snapshot: Snapshot, requests: Iterable[Request], policy: Policy = BEST_FIT) -> Plan:
    """Place the requests one by one in the order given, each wholly or not at all, each with what the ones before left.

    A request that does not fit is refused and holds nothing back: which request may pass which is the caller's to say.
    Raises ValueError when two requests have the same id.
    """
    requests = tuple(requests)
    require_distinct("requests", (request.id for request in requests))
    room_now = _Board(rooms.current(snapshot), policy)
    could = _Possible(snapshot)
    placements: list[Placement] = []
    refused: list[Refusal] = []
    for request in requests:
        placement = room_now.place(request)
        if placement:
            placements.append(placement)
        else:
            refused.append(could.refusal(request) or room_now.refusal(request))
    return Plan(tuple(placements), tuple(refused))


def ever_fits(snapshot: Snapshot, request: Request) -> Refusal | None:
    """None if an empty cluster could take the request, with the nodes and devices in service now; else why not.

    The reason OUT_OF_SERVICE says that the request would fit once everything is back, so it may as well wait.
    """
    return _Possible(snapshot).refusal(request)


def _shape(request: Request) -> Shape:
    return request.gpus, request.share, request.cpus, request.memory_mb, request.model


@dataclass(slots=True)
class _Board:
    """The scores of every node for every shape of request seen so far.

    A queue repeats few shapes and a placement changes one node, so only nodes changed since a shape was last asked for
    are scored again.
    """

    rooms: Sequence[Room]
    policy: Policy
    changed: list[int] = field(default_factory=list)
    scores: dict[Shape, tuple[int, list[Key | None]]] = field(default_factory=dict)
    refusals: dict[Shape, tuple[int, Refusal]] = field(default_factory=dict)

    def place(self, request: Request) -> Placement | None:
        best = min(((key, at) for at, key in enumerate(self._scored(request)) if key is not None), default=None)
        if best is None:
            return None
        at = best[1]
        room = self.rooms[at]
        devices = sorted(room.fitting(request), key=self.policy.device)[: request.gpus] if request.gpus else []
        self.changed.append(at)
        return room.take(request, devices)

    def refusal(self, request: Request) -> Refusal:
        """Why nothing has room for it now; the same words for the same shape until something is placed."""
        now, shape = len(self.changed), _shape(request)
        known = self.refusals.get(shape)
        if known and known[0] == now:
            return refusals.addressed(known[1], request.id)
        refusal = refusals.busy(self.rooms, request)
        self.refusals[shape] = now, refusal
        return refusal

    def _scored(self, request: Request) -> list[Key | None]:
        shape = _shape(request)
        since, scores = self.scores.get(shape, (0, None))
        if scores is None:
            scores = [self._score(room, request) for room in self.rooms]
        else:
            for at in set(self.changed[since:]):
                scores[at] = self._score(self.rooms[at], request)
        self.scores[shape] = len(self.changed), scores
        return scores

    def _score(self, room: Room, request: Request) -> Key | None:
        return self.policy.node(room, request) if room.fits(request) else None


class _Possible:
    """What could ever fit, answered once for each shape of request."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.in_service = rooms.empty(snapshot, in_service=True)
        self.repaired = rooms.empty(snapshot, in_service=False)
        self.known: dict[Shape, Refusal | None] = {}

    def refusal(self, request: Request) -> Refusal | None:
        shape = _shape(request)
        if shape not in self.known:
            self.known[shape] = self._refusal(request)
        known = self.known[shape]
        return refusals.addressed(known, request.id) if known else None

    def _refusal(self, request: Request) -> Refusal | None:
        if any(room.fits(request) for room in self.in_service):
            return None
        if any(room.fits(request) for room in self.repaired):
            return refusals.out_of_service(self.snapshot, self.in_service, request)
        return refusals.impossible(self.in_service, self.repaired, request)
