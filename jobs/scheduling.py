"""One decision pass: locks, takes a snapshot, asks for a decision, and writes it down by compare-and-swap."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from haein.cluster.models import Device, Node
from haein.lib import clock
from haein.lib.garbage import uncollected
from haein.placement import turns, weights
from haein.placement.allowances import BORROWED
from haein.placement.model import Carving, Grant, Placement
from haein.placement.queueing import Keeping, Kept
from haein.placement.turns import Decision, Order, Scene, Start
from jobs import moves, preempting, scenes, settling
from jobs.models import Allocation, Attempt, Claim, Job, Share, Worker
from jobs.scenes import Row
from jobs.states import Event as Kind
from jobs.states import State

# All that a start needs of a job: whole rows, commands and variables included, would take twice the time.
_STARTED = ("team", "attempts_made", "cpus", "memory_mb")
# Any number that nothing else in this database locks.
_PASS_LOCK = 0x4A0B5
# How many workers of a gang, and carved devices, an event names one by one.
MOST_NAMED = 8


@transaction.atomic
@uncollected()
def run_pass(*, now: datetime, ready: frozenset[str]) -> int:
    """Place what can be placed; returns how many. `ready` are the environments that can be used now."""
    lock()
    queue, shares = scenes.queue(), scenes.shares(now)
    if not queue and not Claim.objects.exists():
        _settle(scenes.held(), shares, now)
        return 0
    gated = {row.id: code for row in queue if (code := _gate(row, ready, now))}
    scene = scenes.scene([row for row in queue if row.id not in gated], shares, now=now)
    policy, mix = settling.current()
    decision = turns.decide(scene, scenes.rules(), policy, mix)
    placed = _write(decision, scene, now)
    _write_reasons({**gated, **decision.refusals}, {row.id: row for row in queue})
    _settle(_held(scene, decision), shares, now)
    return placed


def lock() -> None:
    """Keep every pass out until this transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_PASS_LOCK])


def _gate(row: Row, ready: frozenset[str], now: datetime) -> str:
    """Why the job may not be looked at yet, as a code of wording; "" when it may."""
    if row.suspended:
        return "suspended"
    if row.environment not in ready:
        return "environment"
    if row.not_before is not None and row.not_before > now.timestamp():
        # The engine's own words say why it rests.
        return row.reason if row.reason == "not_taken" else "resting"
    return ""


def _write(decision: Decision, scene: Scene, now: datetime) -> int:
    Attempt.objects.filter(pk__in=_ids(decision.promoted)).exclude(state=Attempt.State.ENDED).update(guaranteed=True)
    placed = _start(decision, now)
    _write_claims(decision, now)
    _tell(decision.orders, scene, now)
    return placed


def _tell(orders: Sequence[Order], scene: Scene, now: datetime) -> None:
    """Those who must leave: told why, and by when."""
    if not orders:
        return
    at = now + timedelta(seconds=settings.HAEIN_PREEMPTION_NOTICE_SECONDS)
    units = {job.id: job.units for job in scene.waiting}
    preempting.warn(
        {
            cast(UUID, order.attempt): preempting.Yield(
                "reclaimed", {"gpus": f"{units[order.job] / 1000:g}"}, at, for_job=cast(UUID, order.job)
            )
            for order in orders
        },
        now=now,
    )


def _write_claims(decision: Decision, now: datetime) -> None:
    """What is kept for whom; who was told to leave for somebody who needs it no more may stay."""
    started = {start.job for start in decision.starts}
    gone = _ids(decision.dropped | started)
    if gone:
        Claim.objects.filter(job_id__in=gone).delete()
        told = Attempt.objects.exclude(state=Attempt.State.ENDED).filter(
            preempted_for__in=gone, preempt_code="reclaimed"
        )
        preempting.withdraw(list(told.values_list("pk", flat=True)), now=now)
    Claim.objects.bulk_create(_claim(kept) for kept in decision.keeps if kept.job not in started)


def _ids(opaque: Iterable[Hashable]) -> list[UUID]:
    """Ids are opaque to placement; here they are those of our own rows."""
    return [cast(UUID, each) for each in opaque]


def _claim(kept: Kept) -> Claim:
    return Claim(
        job_id=cast(UUID, kept.job),
        kind=Claim.Kind.TURN if kept.keeping is Keeping.TURN else Claim.Kind.RECLAIM,
        made_at=clock.from_epoch(kept.made),
        starts_at=clock.from_epoch(kept.starts),
        places=[[node_id, list(device_ids)] for node_id, device_ids in kept.places],
    )


def _held(scene: Scene, decision: Decision) -> Iterator[tuple[UUID, int]]:
    """Teams and what they hold when the decision is written, in thousandths of GPUs."""
    for each in scene.running:
        yield cast(UUID, each.team), each.units
    if decision.starts:
        jobs = {job.id: job for job in scene.waiting}
        for start in decision.starts:
            yield cast(UUID, jobs[start.job].team), jobs[start.job].units


def _settle(held: Iterable[tuple[UUID, int]], shares: scenes.Shares, now: datetime) -> None:
    """Fair share counts on from here with what each team holds now; only those whose hold has changed are written."""
    rates: dict[UUID, int] = dict.fromkeys(shares.rows, 0)
    for team, units in held:
        rates[team] = rates.get(team, 0) + units
    changed = []
    for team, rate in rates.items():
        row = shares.rows.get(team)
        if row is None or row.rate != rate:
            used = shares.at(row, scenes.rules().half_life_s) if row else 0.0
            changed.append(Share(team_id=team, used=used, rate=rate, at=now))
    Share.objects.bulk_create(
        changed, update_conflicts=True, unique_fields=["team"], update_fields=["used", "rate", "at"]
    )


def _start(decision: Decision, now: datetime) -> int:
    """Attempt and allocations are made with the move, in this transaction, only for the jobs that moved."""
    starts = {cast(UUID, start.job): start for start in decision.starts}
    if not starts:
        return 0
    placed = [placement for start in starts.values() for placement in start.placements]
    devices = Device.objects.select_related("node", "model").in_bulk(
        {grant.device_id for placement in placed for grant in placement.grants}
    )
    nodes = Node.objects.in_bulk({placement.node_id for placement in placed})
    jobs = Job.objects.only(*_STARTED).in_bulk(starts)
    carved = {carving.device_id: carving for carving in decision.carvings}
    reasons = {
        job_id: _why_placed(start.placements, nodes, devices, carved, attempt=jobs[job_id].attempts_made + 1)
        for job_id, start in starts.items()
    }
    winners = [row.id for row in moves.apply(Kind.PLACE, reasons, now=now)]
    attempts = {job_id: _attempt(jobs[job_id], starts[job_id], now) for job_id in winners}
    won = [(attempts[job_id], placement) for job_id in winners for placement in starts[job_id].placements]
    Attempt.objects.bulk_create(attempts.values())
    Worker.objects.bulk_create(
        Worker(attempt=attempt, rank=placement.member, node_id=cast(int, placement.node_id))
        for attempt, placement in won
        if placement.member
    )
    Allocation.objects.bulk_create(
        allocation(attempt, placement, grant, devices[cast(int, grant.device_id)], now)
        for attempt, placement in won
        for grant in placement.grants
    )
    Job.objects.filter(pk__in=winners).update(attempts_made=F("attempts_made") + 1, not_before=None)
    return len(winners)


def _attempt(job: Job, start: Start, now: datetime) -> Attempt:
    return Attempt(
        job=job,
        number=job.attempts_made + 1,
        node_id=cast(int, start.placements[0].node_id),
        guaranteed=start.tier != BORROWED,
        cpus=job.cpus,
        memory_mb=job.memory_mb,
        placed_at=now,
    )


def allocation(attempt: Attempt, placement: Placement, grant: Grant, device: Device, now: datetime) -> Allocation:
    """What was granted of the device, as it is written down."""
    return Allocation(
        attempt=attempt,
        rank=placement.member,
        device=device,
        units=grant.units,
        memory=grant.memory,
        profile=grant.profile,
        start=grant.start if grant.profile else None,
        weight=weights.of_grant(grant, device.model.name, device.model.memory_mb),
        held_from=now,
    )


def _why_placed(
    workers: Sequence[Placement],
    nodes: Mapping[int, Node],
    devices: Mapping[int, Device],
    carved: Mapping[Any, Carving],
    *,
    attempt: int,
) -> moves.Why:
    """Where it goes, and what is carved for it."""
    values = {"where": where(workers, nodes, devices)}
    # A device that is carved for two of its workers is said once.
    held = dict.fromkeys(grant.device_id for placement in workers for grant in placement.grants)
    touched = [device_id for device_id in held if device_id in carved]
    if not touched:
        return moves.Why("placed", values, attempt=attempt)
    sentences_of = [carved[device_id].sentence for device_id in touched[:MOST_NAMED]]
    return moves.Why("placed_carving", {**values, "carved": "; ".join(sentences_of)}, attempt=attempt)


def where(workers: Sequence[Placement], nodes: Mapping[Any, Node], devices: Mapping[Any, Device]) -> str:
    """The nodes and slices that the workers were given; of a large gang only the first few."""
    named = [_where(nodes, devices, placement) for placement in workers[:MOST_NAMED]]
    more = [f"(+{len(workers) - MOST_NAMED})"] if len(workers) > MOST_NAMED else []
    return "; ".join([*named, *more])


def _where(nodes: Mapping[Any, Node], devices: Mapping[Any, Device], placement: Placement) -> str:
    """n017, n017/gpu3, n017/gpu0-7, or n017/gpu3 (3g.90gb)."""
    node = nodes[placement.node_id].name
    profile = next((grant.profile for grant in placement.grants), "")
    indexes = sorted({devices[grant.device_id].index for grant in placement.grants})
    if not indexes:
        return node
    where = f"{node}/gpu{','.join(_spans(indexes))}"
    return f"{where} ({profile})" if profile else where


def _spans(numbers: Sequence[int]) -> list[str]:
    """0-2, 5 for 0, 1, 2, 5: `numbers` sorted, each once."""
    # Numbers that follow each other are all as far from their places in the list.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def _write_reasons(codes: Mapping[Any, str], rows: Mapping[UUID, Row]) -> None:
    """Only when the class of reason changes: a thousand waiting jobs cost nothing while they wait."""
    changed: dict[str, list[UUID]] = {}
    for job_id, code in codes.items():
        if rows[job_id].reason != code:
            changed.setdefault(code, []).append(job_id)
    for code, job_ids in changed.items():
        Job.objects.filter(pk__in=job_ids, state=State.QUEUED).update(reason=code, reason_values={})
    moves.announce((pk, rows[pk].team_id) for job_ids in changed.values() for pk in job_ids)
