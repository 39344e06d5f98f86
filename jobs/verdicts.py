"""Where the end of an attempt leads its job: done, tried again, yielded, or failed, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from haein.cluster.backends.base import Cause, Sight
from haein.lib import clock
from jobs import failures, moves, preempting
from jobs.failures import Failure
from jobs.models import Attempt, Job
from jobs.states import MOST_LOST
from jobs.states import Event as Kind


@dataclass(frozen=True, slots=True)
class Verdict:
    """The move and its reason. `counts` says that it is one of the failures that `retries` allows, `yielded` that the
    attempt ended because it had to yield; the job rests until `not_before`. The operator bears the attempt's last
    `credited_s` seconds."""

    kind: Kind
    why: moves.Why
    counts: bool = False
    yielded: bool = False
    not_before: datetime | None = None
    credited_s: int = 0


def of(attempt: Attempt, sight: Sight) -> Verdict:
    """The verdict on an attempt that has ended; its row says when."""
    job = attempt.job
    match sight.cause:
        case Cause.EXITED if sight.exit_code == 0:
            return Verdict(Kind.SUCCEED, _why(attempt, "succeeded"))
        case Cause.TIME_LIMIT:
            return Verdict(Kind.TIME_OUT, _why(attempt, "time_limit", limit=str(timedelta(seconds=job.time_limit_s))))
        case _ if job.cancel_requested_at:
            return Verdict(Kind.CANCEL, _why(attempt, "cancelled", by=_canceller(job)))
        case Cause.LOST:
            return _lost(attempt, sight)
        case _ if _yielded(attempt, sight):
            return _yield(attempt)
    return _failed(attempt, sight)


def _why(attempt: Attempt, code: str, **values: object) -> moves.Why:
    return moves.Why(code, values, attempt=attempt.number, at=attempt.ended_at)


def _canceller(job: Job) -> str:
    last = job.events.filter(reason="cancel_asked").order_by("-id").values_list("actor_name", flat=True).first()
    return last or "haein"


def _lost(attempt: Attempt, sight: Sight) -> Verdict:
    lost = attempt.job.attempts.filter(cause=Cause.LOST.value).count() + 1
    if lost > MOST_LOST:
        return Verdict(Kind.FAIL, _why(attempt, "lost_too_often", times=lost))
    # The first time the machine was at fault; whoever loses every machine it is given may be what breaks them.
    until = _rested(attempt, lost - 1)
    return Verdict(Kind.REQUEUE, _why(attempt, "lost", detail=[sight.detail, *_from(until)]), not_before=until)


def _from(until: datetime | None) -> list[object]:
    return [{"code": "again_at", "values": {"at": preempting.said(until)}}] if until else []


def _rested(attempt: Attempt, failure: int) -> datetime | None:
    assert attempt.ended_at is not None
    rest = failures.rest_s(failure)
    return attempt.ended_at + timedelta(seconds=rest) if rest else None


def _yielded(attempt: Attempt, sight: Sight) -> bool:
    """It was asked to end, or ended in some other way after it was signalled to save its work."""
    if sight.cause is Cause.STOPPED:
        # Also where the notice was called off in the same moment: nobody else asks for an end.
        return True
    assert attempt.ended_at is not None
    told = attempt.preempt_at is not None and attempt.warned_at is not None and attempt.ended_at >= attempt.warned_at
    return told and sight.cause in {Cause.EXITED, Cause.SIGNALLED}


def _yield(attempt: Attempt) -> Verdict:
    credited_s = _credit(attempt)
    why: list[object] = [preempting.cause(attempt)]
    if attempt.checkpoint_at:
        why.append({"code": "saved", "values": {"at": preempting.said(attempt.checkpoint_at)}})
    if credited_s:
        why.append({"code": "credited", "values": {"span": str(timedelta(seconds=credited_s))}})
    kind, code = (Kind.PREEMPT, "preempted") if attempt.job.requeue else (Kind.CANCEL, "preempted_for_good")
    return Verdict(kind, _why(attempt, code, why=why), yielded=True, credited_s=credited_s)


def _credit(attempt: Attempt) -> int:
    """Whole seconds of work that were lost inside the team's own guarantee, up to the most that is credited.

    On the grid of metering, so that what is left to pay ends with the second of the checkpoint.
    """
    if not attempt.guaranteed or attempt.started_at is None or attempt.ended_at is None:
        return 0
    saved = max(attempt.checkpoint_at or attempt.started_at, attempt.started_at)
    lost = clock.whole_seconds(attempt.ended_at) - clock.whole_seconds(saved)
    return min(max(lost, 0), settings.HAEIN_PREEMPTION_CREDIT_MINUTES * 60)


def _failed(attempt: Attempt, sight: Sight) -> Verdict:
    job = attempt.job
    detail = sight.detail or f"The command ended with exit code {sight.exit_code}."
    left = job.failures < job.retries
    if not left:
        return Verdict(Kind.FAIL, _why(attempt, "explained", detail=detail), counts=True)
    if failures.classify(sight) is Failure.USER:
        return Verdict(Kind.FAIL, _why(attempt, "not_again", detail=detail), counts=True)
    failure = job.failures + 1
    until = _rested(attempt, failure)
    why = _why(attempt, "requeued", failure=failure, allowed=job.retries, detail=[detail, *_from(until)])
    return Verdict(Kind.REQUEUE, why, counts=True, not_before=until)
