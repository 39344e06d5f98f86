"""What quotas mean for one job: refused at submit, inside the guarantee or borrowed, and why it waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from haein.lib.errors import Invalid
from haein.placement.queueing import Account
from haein.tenants.models import Team
from haein.tenants.scope import Scope
from jobs import quotas, wording
from jobs.models import Job, Quota
from jobs.spec import Preemption, Spec
from jobs.uses import Use, Uses

OVER = frozenset({"over_most", "over_jobs", "over_hours"})
# Asked at every submit, and a queryset takes longer to be made than the question to be answered.
_FALLS_UNDER = """
    SELECT * FROM jobs_quota
    WHERE organization_id = %s AND (team_id IS NULL OR team_id = %s AND (member_id IS NULL OR member_id = %s))
        AND pool IN ('', %s)
"""
CODES = OVER | {"not_lent", "promised"}


def check(scope: Scope, spec: Spec) -> None:
    """Refuse what no quota would ever let start, and an array that a month's GPU-hours would not see through.

    Raises Invalid with the nearest that is allowed.
    """
    faults: dict[str, str] = {}
    for quota in _of(scope, spec):
        for field, fault in _faults(quota, spec):
            faults.setdefault(field, fault)
    if faults:
        raise Invalid(faults)


def _of(scope: Scope, spec: Spec) -> Iterable[Quota]:
    """All the quotas that a job of this spec falls under: the member's, the team's, the organization's."""
    found: Iterable[Quota] = Quota.objects.raw(
        _FALLS_UNDER, [scope.team.organization_id, scope.team.pk, scope.user.pk, spec.pool]
    )
    return found


def _faults(quota: Quota, spec: Spec) -> Iterator[tuple[str, str]]:
    asked, whose = _units(spec), _whose(quota)
    most = None if quota.borrow is None else quota.guaranteed + quota.borrow
    if quota.gpus_per_job is not None and asked > quota.gpus_per_job:
        yield (
            "gpus",
            _("%(whose)s: one job may take at most %(most)s GPUs, and this asks for %(asked)s.")
            % {"whose": whose, "most": quotas.gpus(quota.gpus_per_job), "asked": quotas.gpus(asked)},
        )
    elif most is not None and asked > most:
        yield (
            "gpus",
            _("%(whose)s: at most %(most)s GPUs may be held at once, and this asks for %(asked)s.")
            % {"whose": whose, "most": quotas.gpus(most), "asked": quotas.gpus(asked)},
        )
    if quota.time_limit_s is not None and spec.time_limit_s > quota.time_limit_s:
        yield (
            "time_limit_s",
            _("%(whose)s: a job’s time limit is at most %(most)s.")
            % {"whose": whose, "most": clock_text(quota.time_limit_s)},
        )
    elif quota.gpu_hours is not None and asked * spec.jobs * spec.time_limit_s > quota.gpu_hours * quotas.HOUR:
        yield "time_limit_s", _too_many_hours(whose, quota.gpu_hours, asked * spec.jobs, spec.time_limit_s)


def _too_many_hours(whose: str, hours: int, asked: int, limit_s: int) -> str:
    told = _("%(whose)s: there are %(hours)s GPU-hours a month, and by its time limit this could use %(need)s.") % {
        "whose": whose,
        "hours": hours,
        "need": _hours(asked * limit_s),
    }
    return f"{told} {_would_fit(hours * quotas.HOUR // asked)}"


def _would_fit(seconds: int) -> str:
    if seconds < 60:
        return _("Ask for fewer GPUs, or for less of each.")
    return _("A time limit of at most %(limit)s would fit.") % {"limit": clock_text(seconds // 60 * 60)}


def clock_text(seconds: int) -> str:
    """Hours and minutes, as in 18:45, with seconds where there are some."""
    minutes, rest = divmod(seconds, 60)
    text = f"{minutes // 60}:{minutes % 60:02}"
    return f"{text}:{rest:02}" if rest else text


def _hours(unit_seconds: float) -> str:
    return f"{unit_seconds / quotas.HOUR:,.1f}".removesuffix(".0")


def _units(asked: Job | Spec) -> int:
    return quotas.units(asked.gpus, asked.share, asked.profile, asked.workers)


def _whose(quota: Quota) -> str:
    return _name(quotas.id_of(quota), quota.member or quota.team or quota.organization)


def _name(account: quotas.Name, who: object) -> str:
    """As the beginning of a sentence: what the account is, and whose."""
    told = _KINDS[account[0]] % {"name": who}
    return f"{told} ({account[-1]})" if account[-1] else str(told)


_KINDS = {
    "organization": gettext_lazy("Quota of the organization %(name)s"),
    "team": gettext_lazy("Quota of the team %(name)s"),
    "member": gettext_lazy("Quota of %(name)s"),
}


def outlook(scope: Scope, spec: Spec, *, now: datetime) -> str:
    """Where the team stands with such a job: inside its guarantee, or borrowed; "" for one without GPUs."""
    asked = _units(spec)
    if not asked:
        return ""
    accounts = quotas.Accounts([scope.team.pk], now=now)
    name = accounts.of(scope.team.pk, scope.user.pk, spec.pool)[0]
    guaranteed = accounts.accounts[name].guaranteed
    used = Uses([scope.team.pk], now=now).of(name).inside
    inside = 0 if spec.preemption == Preemption.SPOT else min(spec.jobs, max(0, guaranteed - used) // asked)
    if 0 < inside < spec.jobs:
        return _partly(inside, spec, used, guaranteed)
    if inside:
        return _("Inside the team’s guarantee: %(used)s of %(all)s GPUs are used.") % _used(used, guaranteed)
    return f"{_borrowed(spec, asked, used, guaranteed)} {_may_leave(spec)}"


def _partly(inside: int, spec: Spec, used: int, guaranteed: int) -> str:
    told = _(
        "%(inside)s of the %(jobs)s jobs fit inside the team’s guarantee at once: %(used)s of %(all)s GPUs are used. "
        "More than these are borrowed."
    ) % {"inside": inside, "jobs": spec.jobs, **_used(used, guaranteed)}
    return f"{told} {_may_leave(spec)}"


def _borrowed(spec: Spec, asked: int, used: int, guaranteed: int) -> str:
    if spec.preemption == Preemption.SPOT:
        return _("Borrowed, as spot work always is.")
    if not guaranteed:
        return _("Borrowed: the team has no guarantee.")
    told = _("Borrowed: of the team’s guarantee %(used)s of %(all)s GPUs are used, and this takes %(asked)s.")
    return told % {**_used(used, guaranteed), "asked": quotas.gpus(asked)}


def _may_leave(spec: Spec) -> str:
    if spec.preemption == Preemption.NEVER:
        return _("As it may not be preempted, it starts only in room that is guaranteed to nobody.")
    notice = {"notice": settings.HAEIN_PREEMPTION_NOTICE_SECONDS}
    return _("It may be asked to leave, with %(notice)s s notice.") % notice


def _used(used: int, guaranteed: int) -> dict[str, str]:
    return {"used": quotas.gpus(used), "all": quotas.gpus(guaranteed)}


def explain_account(job: Job, *, now: datetime) -> str:
    """Why a job waits that an account keeps from starting (its reason is of CODES), with the numbers of this moment."""
    of_organization = Team.objects.filter(organization__teams=job.team_id).values_list("pk", flat=True)
    accounts, held = quotas.Accounts([job.team_id], now=now), Uses(list(of_organization), now=now)
    names = accounts.of(job.team_id, job.submitted_by_id, job.pool)
    if job.reason in OVER:
        told = (_over(job, accounts.accounts[name], held.of(name), now) for name in names)
        again = _("Its quota has room for it again: it starts with the next look at the queue.")
        return next(filter(None, told), again)
    account = accounts.accounts[names[0]]
    return f"{wording.sentence(job.reason, {})} {_instead(job, account, held.of(names[0]))}".strip()


def _over(job: Job, account: Account, use: Use, now: datetime) -> str:
    """Whether this account is what the job's reason speaks of, in numbers; "" if it is not."""
    asked, whose = _units(job), _name(quotas.parts(account.id), _holder(job, account))
    match job.reason:
        case "over_most" if account.most is not None and use.held + asked > account.most:
            numbers = {"held": use.held, "most": account.most, "asked": asked, "more": use.held + asked - account.most}
            return _(
                "%(whose)s: %(held)s of at most %(most)s GPUs are held, and this asks for %(asked)s. It may start when "
                "%(more)s of them are given back."
            ) % {"whose": whose, **{name: quotas.gpus(units) for name, units in numbers.items()}}
        case "over_jobs" if account.most_jobs is not None and use.jobs >= account.most_jobs:
            return _("%(whose)s: %(jobs)s jobs run, and at most %(most)s may. It may start when one of them ends.") % {
                "whose": whose,
                "jobs": use.jobs,
                "most": account.most_jobs,
            }
        case "over_hours" if account.left is not None:
            return _out_of_hours(job, account, account.left, use, whose, now)
    return ""


def _holder(job: Job, account: Account) -> object:
    kind = quotas.parts(account.id)[0]
    return {"member": job.submitted_by, "team": job.team, "organization": job.team.organization}[kind]


def _out_of_hours(job: Job, account: Account, left: int, use: Use, whose: str, now: datetime) -> str:
    """Of the month's hours: what is used, what running jobs may yet use, and the longest limit that would fit."""
    asked = _units(job)
    this_month = min(job.time_limit_s, max(0.0, account.month_ends - now.timestamp()))
    free = left - use.reserved
    if asked * this_month <= free:
        return ""
    told = _(
        "%(whose)s: of %(all)s GPU-hours this month %(used)s are used and %(reserved)s are kept for what runs; by its "
        "time limit this could use %(need)s."
    ) % {
        "whose": whose,
        "all": _hours(left + use.ended),
        "used": _hours(use.ended),
        "reserved": _hours(use.reserved),
        "need": _hours(asked * this_month),
    }
    return f"{told} {_would_fit(max(0, free) // asked)}"


def _instead(job: Job, account: Account, use: Use) -> str:
    """What would let a borrower start although others' idle room is not for it."""
    if account.guaranteed:
        told = _("Of the team’s guarantee %(used)s of %(all)s GPUs are used, and this asks for %(asked)s.") % {
            **_used(use.inside, account.guaranteed),
            "asked": quotas.gpus(_units(job)),
        }
    else:
        told = _("The team has no guarantee of its own.")
    if job.reason != "promised":
        return told
    if job.preemption == Preemption.NEVER:
        return f"{told} {_('If it may be preempted, it may start sooner.')}"
    times = _("It was preempted %(times)s times, and is not asked to leave again.") % {"times": job.preemptions}
    return f"{times} {told}"
