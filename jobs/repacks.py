"""The verbs on repacks: propose one while somebody waits for want of room, approve or reject it, and see it through."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from haein.cluster.models import Device, Node
from haein.lib import live
from haein.lib.errors import NotFound, Problem
from haein.placement import repack
from haein.placement.model import WHOLE, Gang, Grant, Placement
from haein.placement.queueing import Places
from haein.placement.turns import Scene
from haein.tenants import audit
from haein.tenants.models import User
from jobs import preempting, scenes, scheduling, settling, wakeup
from jobs.models import Attempt, Claim, Job, Repack
from jobs.states import State

AUDIENCE = live.group("repack", "all")
# Reasons of jobs that more room in one place would help.
_WANTS_ROOM = frozenset({"no_capacity", "kept", "its_turn", "reclaiming"})
# For a job whose repack was rejected or failed none is proposed again for so long.
SPARED_FOR = timedelta(hours=1)
# Those who move have ended and started again long before: what takes longer keeps room from others for nothing.
MOST_TIME = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Move:
    """One attempt and its job: from where, to where (as people read it, and by key), and GPU-seconds that it loses."""

    attempt: str
    job: str
    old: str
    new: str
    places: list[list[Any]]
    lost_s: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The moves, and where the job that waits then starts."""

    where: str
    places: list[list[Any]]
    moves: list[Move]

    @classmethod
    def of(cls, row: Repack) -> Plan:
        found = row.moves
        return cls(found["where"], found["places"], [Move(**each) for each in found["moves"]])

    @property
    def by_attempt(self) -> dict[UUID, Move]:
        return {UUID(move.attempt): move for move in self.moves}


class Step(enum.StrEnum):
    """How far one job of a repack is."""

    LEAVES = "leaves"  # it was told, and saves its work
    WAITS = "waits"  # for its new place
    STARTS = "starts"
    RUNS = "runs"  # at its new place
    ENDED = "ended"  # by itself, with success: its room is as free
    STOPPED = "stopped"  # it failed or was cancelled
    LOST = "lost"  # what was kept for it is gone

    @property
    def done(self) -> bool:
        return self in {Step.RUNS, Step.ENDED}


def newest(*, by: User) -> QuerySet[Repack]:
    """All of them, newest first; none for anybody who is no operator."""
    found = Repack.objects.select_related("job__team__organization", "job__submitted_by", "decided_by")
    return found.order_by("-made_at") if by.is_operator else found.none()


def get(repack_id: UUID, *, by: User) -> Repack:
    """Raises NotFound, also for anybody who is no operator."""
    found = newest(by=by).filter(pk=repack_id).first()
    if found is None:
        raise NotFound(_("There is no such repack."))
    return found


def moving(plan: Plan) -> dict[UUID, Attempt]:
    """The attempts that move, with their jobs and teams. For operators."""
    found: dict[UUID, Attempt] = Attempt.objects.select_related("job__team").in_bulk(list(plan.by_attempt))
    return found


# Propose.


def look(*, now: datetime) -> Repack | None:
    """The proposal as it is now; the one before is outdated when it is another. None while one is under way."""
    if Repack.objects.filter(state=Repack.State.MOVING).exists():
        return None
    found = _propose(now)
    with transaction.atomic():
        scheduling.lock()
        if Repack.objects.filter(state=Repack.State.MOVING).exists():
            return None
        return _renew(found, now)


def _propose(now: datetime) -> repack.Proposal | None:
    if not Job.objects.filter(state=State.QUEUED, reason__in=_WANTS_ROOM).exists():
        return None
    movable = Attempt.objects.filter(
        state=Attempt.State.RUNNING, preempt_at=None, job__checkpoints=True, job__requeue=True
    )
    given_up = Repack.objects.filter(
        state__in=[Repack.State.REJECTED, Repack.State.FAILED], ended_at__gt=now - SPARED_FOR
    )
    policy, mix = settling.current()
    return repack.propose(
        _scene(now),
        scenes.rules(),
        frozenset(movable.values_list("pk", flat=True)),
        frozenset(given_up.values_list("job_id", flat=True)),
        policy,
        mix,
    )


def _scene(now: datetime) -> Scene:
    rows = [row for row in scenes.queue() if row.reason in _WANTS_ROOM]
    return scenes.scene(rows, scenes.shares(now), now=now)


def _renew(found: repack.Proposal | None, now: datetime) -> Repack | None:
    plan = _plan(found) if found else None
    old: Repack | None = Repack.objects.filter(state=Repack.State.PROPOSED).first()
    if old and found and plan and old.job_id == found.job.id and _same(Plan.of(old), plan):
        return old
    if old:
        _close(old, Repack.State.OUTDATED, now)
    if not found or not plan:
        return None
    live.push(AUDIENCE)
    made: Repack = Repack.objects.create(
        made_at=now,
        job_id=cast(UUID, found.job.id),
        moves=asdict(plan),
        lost_s=round(found.lost / WHOLE),
        gained_s=round(found.gained / WHOLE),
    )
    return made


def _same(old: Plan, new: Plan) -> bool:
    """What is lost grows by the second, which makes it no other plan."""
    return old.places == new.places and [(each.attempt, each.places) for each in old.moves] == [
        (each.attempt, each.places) for each in new.moves
    ]


def _plan(found: repack.Proposal) -> Plan:
    going = [(found.job.request, found.places), *((move.running.request, move.places) for move in found.moves)]
    placed = [_placements(places, (each.each if isinstance(each, Gang) else each).profile) for each, places in going]
    left = [move.running.placements for move in found.moves]
    every = [placement for placements in (*placed, *left) for placement in placements]
    nodes = Node.objects.in_bulk({placement.node_id for placement in every})
    devices = Device.objects.in_bulk({grant.device_id for placement in every for grant in placement.grants})

    def said(placements: Sequence[Placement]) -> str:
        return scheduling.where(placements, nodes, devices)

    moves = [
        Move(
            str(move.running.id),
            str(move.running.job),
            said(move.running.placements),
            said(new),
            _json(move.places),
            round(move.lost / WHOLE),
        )
        for move, new in zip(found.moves, placed[1:], strict=True)
    ]
    return Plan(said(placed[0]), _json(found.places), moves)


def _placements(places: Places, profile: str) -> list[Placement]:
    return [
        Placement(None, node, tuple(Grant(device, 0, 0, profile) for device in devices)) for node, devices in places
    ]


def _json(places: Places) -> list[list[Any]]:
    return [[node, list(devices)] for node, devices in places]


def _places(found: Sequence[Sequence[Any]]) -> Places:
    return tuple((node, tuple(devices)) for node, devices in found)


# Decide.


def approve(repack_id: UUID, *, by: User, now: datetime) -> Repack:
    """Tell those who move, and keep the room. Raises NotFound, Problem."""
    with transaction.atomic():
        scheduling.lock()
        row = _open(repack_id, by)
        if Repack.objects.filter(state=Repack.State.MOVING).exists():
            raise Problem(_("Another repack is under way: wait for its end."))
        started = _begin(row, by, now)
        if not started:
            _close(row, Repack.State.OUTDATED, now)
    if not started:
        raise Problem(
            _("The cluster has changed since it was proposed, and nothing was moved. See what is proposed now.")
        )
    wakeup.soon()
    return row


@transaction.atomic
def reject(repack_id: UUID, *, by: User, now: datetime) -> Repack:
    """Nothing is moved, and for this job nothing is proposed for an hour. Raises NotFound, Problem."""
    scheduling.lock()
    row = _open(repack_id, by)
    row.decided_by, row.decided_at = by, now
    _close(row, Repack.State.REJECTED, now)
    audit.record("repack.reject", str(row.pk), by=by, job=str(row.job_id))
    return row


def _open(repack_id: UUID, by: User) -> Repack:
    row = get(repack_id, by=by)  # for operators alone
    if row.state != Repack.State.PROPOSED:
        raise Problem(_("It is not proposed any more. See what is proposed now."))
    return row


def _begin(row: Repack, by: User, now: datetime) -> bool:
    """False, and nothing is written, where it does not hold any more."""
    plan = Plan.of(row)
    moves = plan.by_attempt
    where: dict[Hashable, Places] = {pk: _places(move.places) for pk, move in moves.items()}
    if not repack.holds(_scene(now), scenes.rules(), row.job_id, _places(plan.places), where):
        return False
    at = now + timedelta(seconds=settings.HAEIN_PREEMPTION_NOTICE_SECONDS)
    notices = {
        pk: preempting.Yield("moved", {"old": move.old, "new": move.new}, at, for_job=row.job_id)
        for pk, move in moves.items()
    }
    with transaction.atomic():
        if len(preempting.warn(notices, now=now)) < len(notices):
            transaction.set_rollback(True)
            return False
    ready = at + timedelta(seconds=settings.HAEIN_GRACE_SECONDS)
    kept = [(row.job_id, Claim.Kind.RECLAIM, plan.places)]
    kept += [(UUID(move.job), Claim.Kind.MOVE, move.places) for move in plan.moves]
    Claim.objects.bulk_create(
        [Claim(job_id=job, kind=kind, made_at=now, starts_at=ready, places=places) for job, kind, places in kept],
        update_conflicts=True,
        unique_fields=["job"],
        update_fields=["kind", "made_at", "starts_at", "places"],
    )
    row.state, row.decided_by, row.decided_at = Repack.State.MOVING, by, now
    row.save(update_fields=["state", "decided_by", "decided_at"])
    audit.record("repack.approve", str(row.pk), by=by, job=str(row.job_id), moved=[move.job for move in plan.moves])
    live.push(AUDIENCE)
    return True


# See it through.


def steps(row: Repack) -> dict[UUID, Step]:
    """How far the job that waits and each that moves is, by job, the former first. Three queries."""
    plan = Plan.of(row)
    moved = {UUID(move.job): UUID(move.attempt) for move in plan.moves}
    jobs = Job.objects.in_bulk([row.job_id, *moved])
    claims = set(
        Claim.objects.filter(job__in=list(jobs)).exclude(kind=Claim.Kind.TURN).values_list("job_id", flat=True)
    )
    leaving = set(
        Attempt.objects.filter(pk__in=moved.values())
        .exclude(state=Attempt.State.ENDED)
        .values_list("job_id", flat=True)
    )
    return {pk: Step.LEAVES if pk in leaving else _step(jobs[pk], claimed=pk in claims) for pk in (row.job_id, *moved)}


def _step(job: Job, *, claimed: bool) -> Step:
    match job.state:
        case State.QUEUED:
            return Step.WAITS if claimed else Step.LOST
        case State.STARTING:
            return Step.STARTS
        case State.RUNNING:
            return Step.RUNS
        case State.SUCCEEDED:
            return Step.ENDED
    return Step.STOPPED


def follow(*, now: datetime) -> None:
    """Whether the repack that is under way has come to its end; one query while there is none."""
    if not Repack.objects.filter(state=Repack.State.MOVING).exists():
        return
    with transaction.atomic():
        scheduling.lock()  # a pass takes the claim with the start: half of that must not look like a loss
        row = Repack.objects.filter(state=Repack.State.MOVING).select_related("job").first()
        if row is None:
            return
        live.push(AUDIENCE)
        found = steps(row)
        if all(step.done for step in found.values()):
            _close(row, Repack.State.DONE, now)
        elif problem := _problem(row, found, now):
            _let_go(row, now)
            row.problem = problem
            _close(row, Repack.State.FAILED, now)


def _problem(row: Repack, found: Mapping[UUID, Step], now: datetime) -> str:
    names = dict(Job.objects.filter(pk__in=list(found)).values_list("pk", "name"))
    for job_id, step in found.items():
        if step is Step.STOPPED:
            return _("%(job)s ended before it ran at its new place.") % {"job": names[job_id]}
        if step is Step.LOST:
            return _("%(job)s lost the room that was kept for it, and waits in the queue.") % {"job": names[job_id]}
    assert row.decided_at is not None
    if now - row.decided_at > MOST_TIME:
        return _("It took longer than %(minutes)d minutes.") % {"minutes": MOST_TIME.total_seconds() // 60}
    return ""


def _let_go(row: Repack, now: datetime) -> None:
    """Whoever still may stay stays, and the room is anybody's again."""
    assert row.decided_at is not None
    plan = Plan.of(row)
    preempting.withdraw(plan.by_attempt, now=now)
    jobs = [row.job_id, *(UUID(move.job) for move in plan.moves)]
    Claim.objects.filter(job__in=jobs, made_at=row.decided_at).delete()


def _close(row: Repack, state: Repack.State, now: datetime) -> None:
    row.state, row.ended_at = state, now
    row.save(update_fields=["state", "ended_at", "problem", "decided_by", "decided_at"])
    live.push(AUDIENCE)
