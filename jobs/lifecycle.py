"""Moves what was decided: launches, observes, ends. Each function loads, then talks to the backend, then applies."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q

from haein.cluster.backends.base import Backend, BackendDown, Cause, Launch, Phase, Place, Refused, Sight, SliceGrant
from haein.lib import clock
from jobs import arrays, moves, spending, uploads, verdicts, whereabouts, wording
from jobs.models import Allocation, Attempt, Job
from jobs.states import ACTIVE
from jobs.states import Event as Kind
from jobs.verdicts import Verdict

log = structlog.get_logger(__name__)

# Whoever leased a launch and was killed is taken for dead after this; launching again is safe by the contract.
LAUNCH_LEASE = timedelta(seconds=10)
MOST_AT_ONCE = 100
_ENDED_WITH = (
    "state",
    "started_at",
    "ended_at",
    "cause",
    "exit_code",
    "signal",
    "detail",
    "checkpoint_at",
    "waits_for",
)

_OBSERVED = (
    *("state", "launched_at", "preempt_at", "warned_at", "checkpoint_at", "waits_for"),
    *("job__team_id", "job__checkpoints", "job__cancel_requested_at"),
)
_WAITS = """
    UPDATE jobs_attempt AS attempt SET waits_for = given.told
    FROM unnest(%(ids)s::uuid[], %(told)s::text[]) AS given(id, told)
    WHERE attempt.id = given.id AND attempt.state = 'starting'
"""


def launch(backend: Backend, *, now: datetime) -> int:
    """Start the attempts that wait for it; returns how many are ours to start.

    When the lease is over the rest is left to whoever takes it next: each launch may wait long for an engine that is
    away, and a hundred of them one after another would keep everything else waiting for minutes.
    """
    over = time.monotonic() + LAUNCH_LEASE.total_seconds()
    attempts = _lease(now)
    if attempts:
        sizes = arrays.sizes(attempt.job.array for attempt in attempts)
        launches = [_launch_of(attempt, sizes) for attempt in attempts]
        with ThreadPoolExecutor(backend.launches_at_once, thread_name_prefix="launch") as pool:
            list(pool.map(lambda each: _talk(backend, each, over), launches))
    return len(attempts)


@transaction.atomic
def _lease(now: datetime) -> list[Attempt]:
    waiting = (
        Attempt.objects.filter(state=Attempt.State.STARTING, job__cancel_requested_at=None)
        .filter(Q(preempt_at=None) | Q(preempt_at__gt=now))
        .filter(Q(launched_at=None) | Q(launched_at__lt=now - LAUNCH_LEASE, waits_for=""))
        .order_by("placed_at")
        .values_list("pk", flat=True)[:MOST_AT_ONCE]
    )
    mine = list(
        Attempt.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(pk__in=list(waiting))
        .filter(Q(launched_at=None) | Q(launched_at__lt=now - LAUNCH_LEASE), state=Attempt.State.STARTING)
        .values_list("pk", flat=True)
    )
    Attempt.objects.filter(pk__in=mine).update(launched_at=now)
    return list(
        Attempt.objects.filter(pk__in=mine)
        .select_related("job__upload", "job__team", "node")
        .prefetch_related("allocations__device", "workers__node")
        .order_by("placed_at")
    )


def _launch_of(attempt: Attempt, sizes: Mapping[UUID, int]) -> Launch:
    job = attempt.job
    return Launch(
        attempt_id=attempt.pk,
        attempt_number=attempt.number,
        job_id=job.pk,
        job_name=job.name,
        team_id=job.team_id,
        organization_id=job.team.organization_id,
        command=job.command,
        environment=job.environment,
        places=_places(attempt),
        cpus=attempt.cpus,
        memory_mb=attempt.memory_mb,
        time_limit_s=job.time_limit_s,
        grace_s=settings.HAEIN_GRACE_SECONDS,
        variables=arrays.variables(job, sizes),
        upload=str(uploads.path(job.upload)) if job.upload else "",
        upload_name=job.upload.name if job.upload else "",
        checkpoints=job.checkpoints,
    )


def _places(attempt: Attempt) -> tuple[Place, ...]:
    nodes = [attempt.node, *(worker.node for worker in attempt.workers.all())]
    slices: list[list[SliceGrant]] = [[] for _ in nodes]
    for held in sorted(attempt.allocations.all(), key=lambda held: held.device.index):
        start = -1 if held.start is None else held.start
        slices[held.rank].append(
            SliceGrant(held.device.uuid, held.device.index, held.units, held.memory, held.profile, start)
        )
    return tuple(Place(node.name, tuple(own)) for node, own in zip(nodes, slices, strict=True))


def _talk(backend: Backend, launch: Launch, over: float) -> None:
    if time.monotonic() >= over:
        return
    try:
        backend.launch(launch)
    except Refused as refusal:
        log.info("launch refused", job=str(launch.job_id), why=str(refusal))
    except BackendDown as error:
        log.warning("launch must wait", job=str(launch.job_id), why=str(error))


def observe(backend: Backend, *, now: datetime) -> list[UUID]:
    """Bring the rows in step with what runs; returns the attempts that are running."""
    loaded = {attempt.pk: attempt for attempt in _open_attempts()}
    if not loaded:
        return []
    unwanted = [pk for pk, attempt in loaded.items() if _is_unwanted(attempt, now)]
    told = [pk for pk, attempt in loaded.items() if _is_to_be_told(attempt)]
    saving = [pk for pk in told if loaded[pk].job.checkpoints]

    if saving:
        backend.signal_checkpoint(saving)
    if unwanted:
        backend.stop(unwanted)
    sights = backend.observe(list(loaded))

    Attempt.objects.filter(pk__in=told, preempt_at__isnull=False, warned_at=None).update(warned_at=now)
    _note_checkpoints([loaded[s.attempt_id] for s in sights.values() if s.phase is Phase.RUNNING], sights, now)
    begun = [s for s in sights.values() if s.started_at is not None and loaded[s.attempt_id].state == "starting"]
    _begin(begun, now)
    _end([s for s in sights.values() if s.phase is Phase.ENDED], now)
    # After the ends: what those held is where others may be found.
    whereabouts.follow(whereabouts.elsewhere(list(sights), sights), sights, now=now)
    _write_waits([attempt for attempt in loaded.values() if attempt.launched_at], sights)
    _drop([pk for pk in unwanted if sights[pk].phase is Phase.UNKNOWN], now)
    return [pk for pk, sight in sights.items() if sight.phase is Phase.RUNNING]


def _is_unwanted(attempt: Attempt, now: datetime) -> bool:
    return bool(attempt.job.cancel_requested_at) or (attempt.preempt_at is not None and attempt.preempt_at <= now)


def _is_to_be_told(attempt: Attempt) -> bool:
    """Once, and not before it runs: a signal is for a process."""
    return attempt.state == Attempt.State.RUNNING and attempt.preempt_at is not None and attempt.warned_at is None


def _note_checkpoints(attempts: Sequence[Attempt], sights: Mapping[UUID, Sight], now: datetime) -> None:
    changed = [each for each in attempts if each.checkpoint_at != _saved(sights[each.pk], now)]
    for attempt in changed:
        attempt.checkpoint_at = _saved(sights[attempt.pk], now)
    Attempt.objects.bulk_update(changed, ["checkpoint_at"])
    moves.announce((attempt.job_id, attempt.job.team_id) for attempt in changed)


def _saved(sight: Sight, now: datetime) -> datetime | None:
    return None if sight.checkpointed_at is None else _moment(sight.checkpointed_at, now)


def _write_waits(launched: Sequence[Attempt], sights: Mapping[UUID, Sight]) -> None:
    """What the engine says of those that it was handed and has not begun; one it says nothing of is launched again."""
    told = {each.pk: sights[each.pk].detail[:300] for each in launched if sights[each.pk].phase is Phase.UNKNOWN}
    changed = [each for each in launched if told.get(each.pk, each.waits_for) != each.waits_for]
    if changed:
        with connection.cursor() as cursor:
            ids = [each.pk for each in changed]
            cursor.execute(_WAITS, {"ids": ids, "told": [told[pk] for pk in ids]})
    moves.announce((attempt.job_id, attempt.job.team_id) for attempt in changed)


def _open_attempts() -> Iterable[Attempt]:
    """With no more of their jobs than is asked of them every second: commands and variables are the most of a row."""
    return Attempt.objects.exclude(state=Attempt.State.ENDED).select_related("job").only(*_OBSERVED)


@transaction.atomic
def _begin(sights: Sequence[Sight], now: datetime) -> None:
    """Its process runs: from this moment it costs."""
    by_id = {sight.attempt_id: sight for sight in sights}
    won = list(_locked(by_id, [Attempt.State.STARTING]))
    reasons: dict[UUID, moves.Why] = {}
    for attempt in won:
        attempt.state = Attempt.State.RUNNING
        attempt.started_at, attempt.waits_for = _moment(by_id[attempt.pk].started_at, now), ""
        places = by_id[attempt.pk].places
        code, values = wording.runs(places[0].node if places else attempt.node.name, attempt.job.workers)
        reasons[attempt.job_id] = moves.Why(code, values, attempt=attempt.number, at=attempt.started_at)
    Attempt.objects.bulk_update(won, ["state", "started_at", "waits_for"])
    for attempt in won:
        Allocation.objects.filter(attempt=attempt, billable_from=None).update(billable_from=attempt.started_at)
    moves.apply(Kind.RUN, reasons, now=now)


@transaction.atomic
def _end(sights: Sequence[Sight], now: datetime) -> None:
    """The process tree is gone: what it held is free, and its job goes where the cause leads."""
    by_id = {sight.attempt_id: sight for sight in sights}
    won = list(_locked(by_id, [Attempt.State.STARTING, Attempt.State.RUNNING]))
    reasons: dict[Kind, dict[UUID, moves.Why]] = {}
    for attempt in won:
        verdict = _close(attempt, by_id[attempt.pk], now)
        reasons.setdefault(verdict.kind, {})[attempt.job_id] = verdict.why
    Attempt.objects.bulk_update(won, _ENDED_WITH)
    whereabouts.follow_ended(won, by_id, now=now)
    spending.record(won)
    Job.objects.bulk_update([attempt.job for attempt in won], ["failures", "preemptions", "not_before"])
    for kind, of_kind in reasons.items():
        moves.apply(kind, of_kind, now=now)


def _close(attempt: Attempt, sight: Sight, now: datetime) -> Verdict:
    """The end on the attempt and on what its job counts (both locked, and written by the caller), and what it held."""
    attempt.state = Attempt.State.ENDED
    attempt.ended_at = max(_moment(sight.ended_at, now), attempt.started_at or attempt.placed_at)
    attempt.cause = sight.cause.value if sight.cause else ""
    attempt.exit_code, attempt.signal, attempt.detail = sight.exit_code, sight.signal, sight.detail[:500]
    attempt.waits_for = ""
    attempt.checkpoint_at = _saved(sight, now) or attempt.checkpoint_at
    verdict = verdicts.of(attempt, sight)
    attempt.job.failures += verdict.counts
    attempt.job.preemptions += verdict.yielded
    attempt.job.not_before = verdict.not_before
    Allocation.objects.filter(attempt=attempt, ended_at=None).update(
        ended_at=attempt.ended_at, waived=sight.cause is Cause.LOST, credited_s=verdict.credited_s
    )
    return verdict


@transaction.atomic
def _drop(attempts: Sequence[UUID], now: datetime) -> None:
    """Unwanted before anything was launched. The lease is the fence: once it is taken the launch must be seen out."""
    dropped = [a.pk for a in _locked(dict.fromkeys(attempts), [Attempt.State.STARTING]) if _never_launched(a, now)]
    _end([Sight(pk, Phase.ENDED, ended_at=now.timestamp(), cause=Cause.STOPPED) for pk in dropped], now)


def _never_launched(attempt: Attempt, now: datetime) -> bool:
    return attempt.launched_at is None or attempt.launched_at < now - 3 * LAUNCH_LEASE


def _locked(ids: Mapping[UUID, object], states: Sequence[str]) -> Iterable[Attempt]:
    """The attempts still in one of these states, locked; the others were moved by somebody else.

    Their jobs are locked too: a cancel that comes between the verdict and the move would be forgotten.
    """
    return (
        Attempt.objects.select_for_update(of=("self", "job"))
        .filter(pk__in=list(ids), state__in=states, job__state__in=[str(state) for state in ACTIVE])
        .select_related("job", "node")
        .order_by("pk")
    )


def _moment(seconds: float | None, now: datetime) -> datetime:
    return clock.from_epoch(seconds) if seconds is not None else now
