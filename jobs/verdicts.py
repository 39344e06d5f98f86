"""Where the end of an attempt leads its job: done, tried again, yielded, or failed, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from django.conf import settings

from haein.cluster.backends.base import Cause, Sight
from haein.lib import clock
from jobs import failures, moves, preempting
from jobs.failures import Failure
from jobs.models import Attempt, Job
from jobs.states import MOST_LOST
from jobs.states import Event as Kind

# How somebody else may have ended what was asked to end anyway.
_FROM_BELOW = frozenset({Cause.PREEMPTED, Cause.ENDED_OUTSIDE})


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
        case Cause.NOT_TAKEN:
            return _taken_back(attempt, sight)
        case _ if _yielded(attempt, sight):
            return _yield(attempt, preempting.cause(attempt))
        case Cause.PREEMPTED:
            return _yield(attempt, sight.detail, below=True)
        case Cause.ENDED_OUTSIDE:
            return Verdict(Kind.CANCEL, _why(attempt, "explained", detail=sight.detail))
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


def _taken_back(attempt: Attempt, sight: Sight) -> Verdict:
    """It never ran: nothing is counted, and it rests a little longer each time in a row."""
    earlier = attempt.job.attempts.exclude(pk=attempt.pk).order_by("-number").values_list("cause", flat=True)
    row = takewhile(lambda cause: cause == Cause.NOT_TAKEN.value, earlier[: len(failures.NOT_TAKEN_RESTS_S)])
    assert attempt.ended_at is not None
    until = attempt.ended_at + timedelta(seconds=failures.not_taken_rest_s(1 + len(list(row))))
    return Verdict(Kind.TAKE_BACK, _why(attempt, "not_taken", why=[sight.detail, *_from(until)]), not_before=until)


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
    if attempt.preempt_at is None:
        return False
    if sight.cause in _FROM_BELOW and _is_by(attempt, attempt.preempt_at):
        return True
    told = attempt.warned_at is not None and _is_by(attempt, attempt.warned_at)
    return told and sight.cause in {Cause.EXITED, Cause.SIGNALLED, *_FROM_BELOW}


def _is_by(attempt: Attempt, moment: datetime) -> bool:
    """It ended then or later, as far as an engine can tell that knows whole seconds alone."""
    assert attempt.ended_at is not None
    return clock.whole_seconds(attempt.ended_at) >= clock.whole_seconds(moment)


def _yield(attempt: Attempt, cause: object, *, below: bool = False) -> Verdict:
    """To others in our queue, or to others `below` it, by the rules of the engine."""
    credited_s = _credit(attempt)
    why: list[object] = [cause]
    if attempt.checkpoint_at:
        why.append({"code": "saved", "values": {"at": preempting.said(attempt.checkpoint_at)}})
    if credited_s:
        why.append({"code": "credited", "values": {"span": str(timedelta(seconds=credited_s))}})
    code = "preempted_below" if below else "preempted"
    kind, code = (Kind.PREEMPT, code) if attempt.job.requeue else (Kind.CANCEL, f"{code}_for_good")
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
