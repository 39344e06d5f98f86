"""Decides where requests go: a snapshot and requests in, a plan out; nothing is read or written besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

from haein.placement import refusals, rooms, sentences
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix, Question, Shape, question_of, shape_of
from haein.placement.model import (
    Carving,
    Gang,
    Instance,
    Placement,
    Plan,
    Reason,
    Refusal,
    Request,
    Snapshot,
    require_distinct,
)
from haein.placement.policies import HAEIN, Policy
from haein.placement.sentences import Code


def plan(
    snapshot: Snapshot,
    requests: Iterable[Request | Gang],
    policy: Policy = HAEIN,
    mix: Mix | None = None,
) -> Plan:
    """Place the requests one by one in the order given, each wholly or not at all, each with what the ones before left.

    A request that does not fit is refused and holds nothing back: which request may pass which is the caller's to say.
    `mix` is what is expected to be asked for; without it, what these requests show of it.
    Raises ValueError when two requests have the same id.
    """
    requests = tuple(requests)
    require_distinct("requests", (request.id for request in requests))
    cluster = Cluster(snapshot, policy, mix or expected(requests))
    could = Possible(snapshot, policy)
    placements: list[Placement] = []
    refused: list[Refusal] = []
    known: dict[Question, Refusal] = {}  # why a shape has no room now, until something is placed
    for request in requests:
        made = cluster.start(request)
        if made:
            placements += made
            known.clear()
            continue
        question = question_of(request)
        if question not in known:
            never = could.refusal(request)
            known[question] = never or _refusal_now(cluster, snapshot, request)
        refused.append(refusals.addressed(known[question], request.id))
    return Plan(tuple(placements), tuple(refused), carvings(snapshot, placements))


def ever_fits(snapshot: Snapshot, request: Request | Gang) -> Refusal | None:
    """None if an empty cluster could take the request, with the nodes and devices in service now; else why not.

    The reason OUT_OF_SERVICE says that the request would fit once everything is back, so it may as well wait.
    """
    return Possible(snapshot, HAEIN).refusal(request)


def expected(requests: Sequence[Request | Gang]) -> Mix:
    """What a queue shows of what will be asked for, and as often, for all that it does not show, whole devices.

    Without them a queue of fractions would look as if nobody ever wanted a whole device, and be spread over all.
    """
    shown: Counter[Shape] = Counter()
    for each in requests:
        shown[shape_of(each.each if isinstance(each, Gang) else each)] += each.members if isinstance(each, Gang) else 1
    whole = shape_of(Request(id=None, gpus=1, cpus=0, memory_mb=0))
    return Mix(shown + Counter({whole: max(1, sum(shown.values()))}))


def _refusal_now(cluster: Cluster, snapshot: Snapshot, request: Request | Gang) -> Refusal:
    if not isinstance(request, Gang):
        return refusals.busy(rooms.current(cluster), request)
    most = min(cluster.most_members(request), request.members - 1)
    if not most:
        return refusals.busy(rooms.current(cluster), request.each)
    return refusals.gang(Reason.NO_CAPACITY_NOW, snapshot, request, most, _fewer(cluster, request, most))


def _fewer(cluster: Cluster, gang: Gang, most: int) -> Gang | None:
    """The largest part of the gang that fits: `most` is by each resource alone, so it is tried."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        fewer = replace(gang, members=middle)
        placed = cluster.start(fewer)
        if placed:
            cluster.end(fewer, placed)
            low = middle
        else:
            high = middle - 1
    return replace(gang, members=low) if low else None


def carvings(snapshot: Snapshot, placements: Sequence[Placement]) -> tuple[Carving, ...]:
    """What has to be carved for the plan, by device, in the snapshot's order; nothing of what is carved for good."""
    new: dict[Hashable, list[tuple[Instance, Hashable]]] = {}
    for placement in placements:
        for grant in placement.grants:
            if grant.profile:
                new.setdefault(grant.device_id, []).append((Instance(grant.profile, grant.start), placement.request_id))
    carvings = []
    for node in snapshot.nodes:
        for index, device in enumerate(node.devices):
            if device.id not in new or device.layout:
                continue
            instances = tuple(sorted((each for each, _ in new[device.id]), key=lambda each: each.start))
            jobs = len({request_id for _, request_id in new[device.id]})
            code = Code.CARVE_REST if device.slices else Code.CARVE
            params: dict[str, str | int] = {
                "device": f"{node.name}/gpu{index}",
                "profiles": " + ".join(each.profile for each in instances),
                "jobs": "1 waiting job" if jobs == 1 else f"{jobs} waiting jobs",
            }
            carvings.append(Carving(device.id, instances, code, params, sentences.english(code, params)))
    return tuple(carvings)


class Possible:
    """What could ever fit, answered once for each shape of request."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.snapshot = snapshot
        self.policy = policy
        self.in_service = rooms.empty(snapshot, in_service=True)
        self.repaired = rooms.empty(snapshot, in_service=False)
        self.known: dict[Question, Refusal | None] = {}

    def refusal(self, request: Request | Gang) -> Refusal | None:
        question = question_of(request)
        if question not in self.known:
            self.known[question] = self._of_gang(request) if isinstance(request, Gang) else self._of_one(request)
        known = self.known[question]
        return refusals.addressed(known, request.id) if known else None

    def _of_one(self, request: Request) -> Refusal | None:
        if any(room.fits(request) for room in self.in_service):
            return None
        if any(room.fits(request) for room in self.repaired):
            return refusals.out_of_service(self.snapshot, self.in_service, request)
        return refusals.impossible(self.in_service, self.repaired, request)

    def _of_gang(self, gang: Gang) -> Refusal | None:
        alone = self._of_one(gang.each)
        if alone:
            return alone
        in_service = self._emptied(in_service=True)
        if in_service.place_gang(gang):
            return None
        most = min(in_service.most_members(gang), gang.members - 1)
        near = _fewer(in_service, gang, most)
        repaired = self._emptied(in_service=False)
        if repaired.place_gang(gang):
            return refusals.gang(Reason.OUT_OF_SERVICE, self.snapshot, gang, most, near)
        most = min(repaired.most_members(gang), gang.members - 1)
        return refusals.gang(Reason.NEVER_FITS, self.snapshot, gang, most, near)

    def _emptied(self, *, in_service: bool) -> Cluster:
        """A cluster in which nobody holds anything."""
        nodes = tuple(
            replace(
                node,
                free_cpus=node.cpus,
                free_memory_mb=node.memory_mb,
                usable=node.usable or not in_service,
                devices=tuple(device.emptied(usable=device.usable or not in_service) for device in node.devices),
            )
            for node in self.snapshot.nodes
        )
        return Cluster(Snapshot(nodes), self.policy, Mix({}))
