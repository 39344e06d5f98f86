"""The queue as the decision pass is shown it, made from the rows in a number of queries that does not grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection

from haein.placement.model import Gang, Grant, Placement, Request
from haein.placement.queueing import Keeping, Kept, Rules, Running, Waiting, units_of
from haein.placement.turns import Scene, decayed
from haein.tenants.models import Organization
from jobs import quotas, requests, snapshots, windows
from jobs.models import Claim, Share
from jobs.spec import Preemption

# From being placed to running takes seconds; a limit begins when it runs.
START_S = 30.0


class Row(NamedTuple):
    """What a pass needs of a job that waits; times in epoch seconds."""

    id: UUID
    team_id: UUID
    user_id: UUID
    priority: int
    queued: float
    limit_s: int
    preemption: str
    preemptions: int
    environment: str
    reason: str
    not_before: float | None
    suspended: bool
    pool: str
    asked: int


class Run(NamedTuple):
    """What a pass needs of an attempt that holds room; times in epoch seconds."""

    id: UUID
    job_id: UUID
    team_id: UUID
    user_id: UUID
    pool: str
    began: float
    unbegun: bool
    limit_s: int
    guaranteed: bool
    preemption: str
    preemptions: int
    ending: float | None
    yields_to: UUID | None
    saved: float | None
    saves: bool
    node_id: int
    asked: int


# What a request is made of as one number: a queue of 50,000 has few different ones, and each is made once. No value
# but a model's name may have a bar in it, so two that differ never read the same.
_ASKED = f"hashtextextended(concat_ws('|', {', '.join(f'job.{name}' for name in requests.COLUMNS)}), 0)"
_QUEUE = f"""
    SELECT job.id, job.team_id, job.submitted_by_id, job.priority,
           extract(epoch FROM job.queued_at)::float8, job.time_limit_s, job.preemption, job.preemptions,
           job.environment, job.reason, extract(epoch FROM job.not_before)::float8,
           organization.standing = %s, job.pool, {_ASKED}
    FROM jobs_job AS job
    JOIN tenants_team AS team ON team.id = job.team_id
    JOIN tenants_organization AS organization ON organization.id = team.organization_id
    WHERE job.state = 'queued'
    ORDER BY job.queued_at, job.id
"""
_RUNNING = f"""
    SELECT attempt.id, attempt.job_id, job.team_id, job.submitted_by_id, job.pool,
           extract(epoch FROM coalesce(attempt.started_at, attempt.placed_at))::float8, attempt.started_at IS NULL,
           job.time_limit_s, attempt.guaranteed, job.preemption, job.preemptions,
           extract(epoch FROM attempt.preempt_at)::float8, attempt.preempted_for_id,
           extract(epoch FROM attempt.checkpoint_at)::float8, job.checkpoints, attempt.node_id, {_ASKED}
    FROM jobs_attempt AS attempt
    JOIN jobs_job AS job ON job.id = attempt.job_id
    WHERE attempt.state <> 'ended'
"""
_known: dict[int, tuple[Request | Gang, int]] = {}
_MOST_KNOWN = 10_000


def rules() -> Rules:
    return Rules(
        half_life_s=settings.HAEIN_SHARE_HALF_LIFE_HOURS * 3600.0,
        entry_s=settings.HAEIN_SHARE_ENTRY_MINUTES * 60.0,
        min_run_s=settings.HAEIN_PREEMPTION_MIN_RUN_SECONDS,
        notice_s=settings.HAEIN_PREEMPTION_NOTICE_SECONDS,
        grace_s=settings.HAEIN_GRACE_SECONDS,
    )


def queue() -> list[Row]:
    """Every job that waits, the longest wait first."""
    with connection.cursor() as cursor:
        cursor.execute(_QUEUE, [Organization.Standing.SUSPENDED])
        return [Row._make(row) for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Shares:
    """The teams' rows of fair share."""

    rows: Mapping[UUID, Share]
    now: datetime

    def used(self, half_life_s: float) -> dict[Hashable, float]:
        return {team: self.at(row, half_life_s) for team, row in self.rows.items()}

    def at(self, row: Share, half_life_s: float) -> float:
        return decayed(row.used, row.rate, max(0.0, (self.now - row.at).total_seconds()), half_life_s)


def shares(now: datetime) -> Shares:
    return Shares({share.team_id: share for share in Share.objects.all()}, now)


def scene(rows: Sequence[Row], shares: Shares, *, now: datetime) -> Scene:
    """The cluster, who runs and those of the queue that may be looked at. Fifteen queries or so."""
    held = snapshots.held()
    snapshot = snapshots.of(held)
    runs = _runs()
    accounts = quotas.Accounts({row.team_id for row in rows} | {run.team_id for run in runs}, now=now)
    asked = _asked({row.asked for row in rows} | {run.asked for run in runs})
    return Scene(
        snapshot=snapshot,
        running=_running(runs, held, accounts, asked),
        waiting=[_waiting(row, accounts, asked) for row in rows],
        accounts=accounts.accounts,
        used=shares.used(rules().half_life_s),
        weights=accounts.weights,
        kept=kept(),
        asides=windows.asides(now),
        now=now.timestamp(),
    )


def held() -> list[tuple[UUID, int]]:
    """The team of each run, and the thousandths of GPUs that it holds; two queries."""
    runs = _runs()
    asked = _asked({run.asked for run in runs})
    return [(run.team_id, asked[run.asked][1]) for run in runs]


def _waiting(row: Row, accounts: quotas.Accounts, asked: Mapping[int, tuple[Request | Gang, int]]) -> Waiting:
    request, units = asked[row.asked]
    return Waiting(
        id=row.id,
        request=request,
        units=units,
        team=row.team_id,
        accounts=accounts.of(row.team_id, row.user_id, row.pool),
        priority=row.priority,
        queued=row.queued,
        limit_s=row.limit_s,
        never=_fixed(row.preemption, row.preemptions),
        spot=row.preemption == Preemption.SPOT,
    )


def _fixed(preemption: str, preemptions: int) -> bool:
    """Nobody may send it away: as it asked for, or because it was sent away often enough."""
    # Settings are slow to read, and 50,000 jobs wait.
    return preemption == Preemption.NEVER or (preemptions > 0 and preemptions >= settings.HAEIN_PREEMPTIONS_MOST)


def _runs() -> list[Run]:
    with connection.cursor() as cursor:
        cursor.execute(_RUNNING)
        return [Run._make(run) for run in cursor.fetchall()]


def _running(
    runs: Sequence[Run],
    held: snapshots.Held,
    accounts: quotas.Accounts,
    asked: Mapping[int, tuple[Request | Gang, int]],
) -> list[Running]:
    nodes: dict[UUID, dict[int, int]] = defaultdict(dict)
    for attempt_id, rank, node_id in held.workers:
        nodes[attempt_id][rank] = node_id
    grants: dict[tuple[UUID, int], list[Grant]] = defaultdict(list)
    for each in held.slices:
        grant = Grant(each.device_id, each.units, each.memory, each.profile, -1 if each.start is None else each.start)
        grants[each.attempt_id, each.rank].append(grant)
    grace = settings.HAEIN_GRACE_SECONDS
    found = []
    for run in runs:
        request, units = asked[run.asked]
        at = {0: run.node_id, **nodes[run.id]}
        found.append(
            Running(
                id=run.id,
                job=run.job_id,
                request=request,
                placements=tuple(
                    Placement(run.id, node_id, tuple(grants[run.id, rank]), rank)
                    for rank, node_id in sorted(at.items())
                ),
                units=units,
                team=run.team_id,
                accounts=accounts.of(run.team_id, run.user_id, run.pool),
                began=run.began,
                ends=run.began + run.limit_s + grace + (START_S if run.unbegun else 0.0),
                saved=run.saved,
                saves=run.saves,
                guaranteed=run.guaranteed,
                fixed=_fixed(run.preemption, run.preemptions),
                spot=run.preemption == Preemption.SPOT,
                ending=run.ending,
                yields_to=run.yields_to,
            )
        )
    return found


def _asked(keys: set[int]) -> Mapping[int, tuple[Request | Gang, int]]:
    """The request and its thousandths of GPUs by the number of what is asked; those not met before are read."""
    missing = list(keys - _known.keys())
    if missing:
        if len(_known) > _MOST_KNOWN:
            _known.clear()
            missing = list(keys)
        names = ", ".join(f"job.{name}" for name in requests.COLUMNS)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT DISTINCT ON ({_ASKED}) {_ASKED}, {names} FROM jobs_job AS job"
                f" WHERE job.state IN ('queued', 'starting', 'running') AND {_ASKED} = ANY(%s)",
                [missing],
            )
            for key, *values in cursor.fetchall():
                request = requests.of(dict(zip(requests.COLUMNS, values, strict=True)))
                _known[key] = request, units_of(request)
    return _known


def kept() -> list[Kept]:
    return [
        Kept(
            job=claim.job_id,
            keeping=Keeping.TURN if claim.kind == Claim.Kind.TURN else Keeping.CLEARED,
            made=claim.made_at.timestamp(),
            starts=claim.starts_at.timestamp(),
            places=tuple((node_id, tuple(device_ids)) for node_id, device_ids in claim.places),
        )
        for claim in Claim.objects.all()
    ]
