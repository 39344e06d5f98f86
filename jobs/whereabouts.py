"""Keeps the rows of what runs where it runs: an engine that chooses devices itself says where only afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog
from django.db import connection, transaction

from haein.cluster.backends.base import Phase, Place, Sight, SliceGrant
from haein.cluster.models import Device, Node
from haein.lib import live
from haein.placement.model import Grant, Placement
from jobs import moves, scheduling, shifts
from jobs.models import Allocation, Attempt, Worker
from jobs.shifts import Slice, Spot

log = structlog.get_logger(__name__)

# While rows change places each instance that moves is parked beyond the memory slices that there are: the table lets no
# two begin at one, not even for the length of a statement.
_PARKED = 1000
_PARK = """
    UPDATE jobs_allocation AS held SET start = %(parked)s + given.number
    FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS given(id, number) WHERE held.id = given.id
"""
_MOVE = """
    UPDATE jobs_allocation AS held SET device_id = given.device, start = given.start
    FROM unnest(%(ids)s::bigint[], %(devices)s::bigint[], %(starts)s::smallint[]) AS given(id, device, start)
    WHERE held.id = given.id
"""
_FIRST = """
    UPDATE jobs_attempt AS attempt SET node_id = given.node
    FROM unnest(%(ids)s::uuid[], %(nodes)s::bigint[]) AS given(id, node) WHERE attempt.id = given.id
"""
_FURTHER = """
    UPDATE jobs_worker AS worker SET node_id = given.node
    FROM unnest(%(ids)s::uuid[], %(ranks)s::int[], %(nodes)s::bigint[]) AS given(id, rank, node)
    WHERE worker.attempt_id = given.id AND worker.rank = given.rank
"""


@dataclass(slots=True)
class _Book:
    """The attempts as their rows have them: nodes by rank, and slices."""

    attempts: Mapping[UUID, Attempt]
    nodes: dict[UUID, list[int]] = field(default_factory=dict)
    slices: dict[UUID, list[Slice]] = field(default_factory=lambda: defaultdict(list))

    @property
    def all(self) -> list[Slice]:
        return [each for own in self.slices.values() for each in own]


@dataclass(slots=True)
class _Found:
    """What was found, in keys: new spots by the key of the slice, and new nodes by rank."""

    spots: dict[int, Spot] = field(default_factory=dict)
    nodes: dict[UUID, list[int]] = field(default_factory=dict)


def elsewhere(attempts: Collection[UUID], sights: Mapping[UUID, Sight]) -> list[UUID]:
    """Those of the attempts that run somewhere else than their rows say, in three queries at most."""
    told = [pk for pk in attempts if sights[pk].places and sights[pk].phase is not Phase.ENDED]
    if not told:
        return []
    rows: dict[UUID, list[list[tuple[str, int]]]] = {}
    names: dict[UUID, list[str]] = {}
    for pk, node in Attempt.objects.filter(pk__in=told).values_list("pk", "node__name"):
        names[pk] = [node]
    for pk, node in Worker.objects.filter(attempt__in=told).values_list("attempt", "node__name"):
        names[pk].append(node)
    for pk, nodes in names.items():
        rows[pk] = [[] for _ in nodes]
    held = Allocation.objects.filter(attempt__in=told, ended_at=None).order_by()
    for pk, rank, uuid, start in held.values_list("attempt", "rank", "device__uuid", "start"):
        rows[pk][rank].append((uuid, -1 if start is None else start))
    return [pk for pk in names if _known(names[pk], rows[pk]) != _seen(sights[pk].places)]


def _known(nodes: Sequence[str], slices: Sequence[list[tuple[str, int]]]) -> list[tuple[str, list[tuple[str, int]]]]:
    return [(node, sorted(own)) for node, own in zip(nodes, slices, strict=True)]


def _seen(places: Sequence[Place]) -> list[tuple[str, list[tuple[str, int]]]]:
    return [(place.node, sorted((each.device_uuid, each.start) for each in place.slices)) for place in places]


@transaction.atomic
def follow(attempts: Collection[UUID], sights: Mapping[UUID, Sight], *, now: datetime) -> None:
    """Move the rows of these attempts to where they were found, with a fixed number of queries, and note it.

    Whoever has not begun and has the same place on paper is given what they gave up, where it is of the same kind. What
    can't be followed yet (a device not yet reported, an instance in the way) stays as it is until it is seen again.
    """
    if not attempts:
        return
    # A pass that ran meanwhile would place others where these are going.
    scheduling.lock()
    devices = _devices(sights[pk] for pk in attempts)
    book = _read({*attempts, *_beside(attempts, devices.values())}, ended=False)
    found = _found({pk: sights[pk] for pk in attempts if pk in book.attempts}, book, devices)
    loose = {pk for pk, attempt in book.attempts.items() if _is_loose(attempt, sights.get(pk))}
    shift = shifts.plan(book.all, found.spots, loose, _kinds(book.all, found.spots.values()))
    for pk in shift.stuck:
        log.warning("it runs where another instance is on paper", attempt=str(pk))
        found.nodes.pop(pk, None)
    _write(book, {**shift.found, **shift.displaced}, found.nodes)
    _note(book, {**shift.found, **shift.displaced}, found.nodes, loose, now)


def follow_ended(attempts: Iterable[Attempt], sights: Mapping[UUID, Sight], *, now: datetime) -> None:
    """The same for attempts whose end is being written, in that transaction: history says where they were.

    They are in nobody's way any more, and nobody is in theirs.
    """
    told = {attempt.pk: sights[attempt.pk] for attempt in attempts if sights[attempt.pk].places}
    if not told:
        return
    book = _read(told, ended=True)
    found = _found(told, book, _devices(told.values()))
    moved = {each.id: found.spots[each.id] for each in book.all if found.spots.get(each.id, each.spot) != each.spot}
    _write(book, moved, found.nodes)
    _note(book, moved, found.nodes, frozenset(), now)


def _is_loose(attempt: Attempt, sight: Sight | None) -> bool:
    """It has not begun, as far as anybody knows, so that it may still be given another place."""
    began = sight is not None and (sight.phase is not Phase.UNKNOWN or sight.places)
    return attempt.state == Attempt.State.STARTING and not began


def _devices(sights: Iterable[Sight]) -> Mapping[str, Device]:
    uuids = {each.device_uuid for sight in sights for place in sight.places for each in place.slices}
    return {device.uuid: device for device in Device.objects.filter(uuid__in=uuids).order_by()}


def _beside(attempts: Collection[UUID], devices: Iterable[Device]) -> Iterable[UUID]:
    """Who else holds something of these devices, and of those that the attempts have on paper."""
    held = Allocation.objects.filter(ended_at=None)
    touched = {device.pk for device in devices} | set(
        held.filter(attempt__in=attempts).values_list("device", flat=True)
    )
    beside: Iterable[UUID] = held.filter(device__in=touched).values_list("attempt", flat=True)
    return beside


def _read(attempts: Collection[UUID], *, ended: bool) -> _Book:
    """Locked; of attempts that are open, those that have ended meanwhile are left out."""
    rows = Attempt.objects.select_for_update(of=("self",)).filter(pk__in=attempts).select_related("job").order_by("pk")
    book = _Book({row.pk: row for row in rows if (row.state == Attempt.State.ENDED) is ended})
    book.nodes = {pk: [row.node_id] for pk, row in book.attempts.items()}
    for pk, node in Worker.objects.filter(attempt__in=book.attempts).values_list("attempt", "node"):
        book.nodes[pk].append(node)
    names = ("pk", "attempt_id", "rank", "device_id", "start", "units", "memory", "profile")
    held = Allocation.objects.filter(attempt__in=book.attempts).order_by("device__index", "start", "pk")
    for key, attempt_id, rank, device_id, start, *rest in held.values_list(*names):
        book.slices[attempt_id].append(Slice(key, attempt_id, rank, Spot(device_id, start), *rest))
    return book


def _found(sights: Mapping[UUID, Sight], book: _Book, devices: Mapping[str, Device]) -> _Found:
    names = {place.node for sight in sights.values() for place in sight.places}
    node_ids = dict(Node.objects.filter(name__in=names).values_list("name", "pk"))
    found = _Found()
    for pk, sight in sights.items():
        nodes = [node_ids.get(place.node) for place in sight.places]
        spots = _matched(book.slices[pk], sight.places, devices)
        if spots is None or None in nodes or len(nodes) != len(book.nodes[pk]):
            log.warning("it runs where nothing is known to be", attempt=str(pk), nodes=_names(sight.places))
            continue
        found.spots |= spots
        if nodes != book.nodes[pk]:
            found.nodes[pk] = [node for node in nodes if node is not None]
    return found


def _names(places: Iterable[Place]) -> list[str]:
    return [place.node for place in places]


def _matched(slices: Sequence[Slice], places: Sequence[Place], devices: Mapping[str, Device]) -> dict[int, Spot] | None:
    """A spot for each slice; None where they are others than these, or on a device that nobody has reported yet.

    Units stay as they are: what was asked for is what is held, and a slice that is where it was put stays its own.
    """
    spots: dict[int, Spot] = {}
    ranks = {each.rank for each in slices} | set(range(len(places)))
    for rank in ranks:
        there = list(places[rank].slices) if rank < len(places) else []
        own = [each for each in slices if each.rank == rank]
        for profile in {each.profile for each in own} | {each.profile for each in there}:
            mine = [each for each in own if each.profile == profile]
            left = [_spot(each, devices) for each in there if each.profile == profile]
            if None in left or not len(set(left)) == len(left) == len(mine):
                return None
            stay = {each.id: each.spot for each in mine if each.spot in left}
            free = [spot for spot in left if spot is not None and spot not in stay.values()]
            spots |= stay | dict(zip((each.id for each in mine if each.id not in stay), free, strict=True))
    return spots


def _spot(grant: SliceGrant, devices: Mapping[str, Device]) -> Spot | None:
    device = devices.get(grant.device_uuid)
    return Spot(device.pk, grant.start if grant.profile else None) if device else None


def _kinds(slices: Iterable[Slice], spots: Iterable[Spot]) -> Mapping[int, shifts.Device]:
    keys = {each.spot.device_id for each in slices} | {spot.device_id for spot in spots}
    rows = Device.objects.filter(pk__in=keys).order_by().select_related("model")
    return {row.pk: shifts.Device(row.node_id, row.model.name, row.model.memory_mb) for row in rows}


def _write(book: _Book, spots: Mapping[int, Spot], nodes: Mapping[UUID, Sequence[int]]) -> None:
    further = [(pk, rank, node) for pk, own in nodes.items() for rank, node in enumerate(own) if rank]
    with connection.cursor() as cursor:
        if parked := [each.id for each in book.all if each.id in spots and each.profile]:
            cursor.execute(_PARK, {"parked": _PARKED, "ids": parked})
        if spots:
            devices, starts = zip(*spots.values(), strict=True)
            cursor.execute(_MOVE, {"ids": list(spots), "devices": list(devices), "starts": list(starts)})
        if nodes:
            cursor.execute(_FIRST, {"ids": list(nodes), "nodes": [own[0] for own in nodes.values()]})
        if further:
            ids, ranks, at = zip(*further, strict=True)
            cursor.execute(_FURTHER, {"ids": list(ids), "ranks": list(ranks), "nodes": list(at)})


def _note(
    book: _Book, spots: Mapping[int, Spot], nodes: Mapping[UUID, Sequence[int]], loose: Collection[UUID], now: datetime
) -> None:
    changed = {each.attempt_id for each in book.all if each.id in spots} | nodes.keys()
    if not changed:
        return
    at = {pk: list(nodes.get(pk, book.nodes[pk])) for pk in sorted(changed)}
    held = {pk: [each._replace(spot=spots.get(each.id, each.spot)) for each in book.slices[pk]] for pk in at}
    both = [*held.values(), *(book.slices[pk] for pk in at)]
    devices = Device.objects.in_bulk({each.spot.device_id for own in both for each in own})
    rows = Node.objects.in_bulk({node for pk in at for node in (*at[pk], *book.nodes[pk])})
    notes = []
    for pk, attempt in ((pk, book.attempts[pk]) for pk in at):
        where = scheduling.where(_placements(at[pk], held[pk]), rows, devices)
        # Another instance of the same device is the same place to a reader, who was told of it already.
        if where == scheduling.where(_placements(book.nodes[pk], book.slices[pk]), rows, devices):
            continue
        code = "gave_way" if pk in loose else "found_at"
        notes.append((attempt.job, moves.Why(code, {"where": where}, attempt=attempt.number)))
    moves.note_all(notes, now=now)
    live.push(live.CLUSTER)


def _placements(nodes: Sequence[int], slices: Sequence[Slice]) -> list[Placement]:
    """As they would have been placed, to be said in the same words."""
    grants: dict[int, list[Grant]] = defaultdict(list)
    for each in slices:
        grants[each.rank].append(Grant(each.spot.device_id, each.units, each.memory, each.profile))
    return [Placement(None, node, tuple(grants[rank]), rank) for rank, node in enumerate(nodes)]
