"""Who may use how much: the quotas as the pass needs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable
from datetime import UTC, date, datetime
from uuid import UUID

from django.db.models import Q, Sum

from haein.placement.queueing import Account
from haein.tenants.models import Team
from jobs.models import Quota, Spent

HOUR = 3600 * 1000  # a GPU-hour in unit-seconds


class Accounts:
    """The accounts of these teams, and which of them a job is charged to; three queries.

    There is one for each quota, ("organization", organization, pool), ("team", team, pool) or ("member", team, user,
    pool), and always one for each team as a whole. A quota for pool "" covers all jobs of its owner, another those that
    name its pool.
    """

    def __init__(self, team_ids: Collection[UUID], *, now: datetime) -> None:
        self._organization_of = dict(Team.objects.filter(pk__in=team_ids).values_list("pk", "organization_id"))
        theirs = Q(organization_id__in=set(self._organization_of.values()))
        # What others are guaranteed counts although nothing of theirs waits or runs: it may not be lent, or promised.
        guarantees = Q(team__isnull=False, member=None, guaranteed__gt=0)
        quotas = list(Quota.objects.filter(theirs | guarantees))
        month = now.astimezone(UTC).date().replace(day=1)
        began = datetime(month.year, month.month, 1, tzinfo=UTC)
        ends = began.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
        spent = _spent(month, quotas)
        self.accounts: dict[Hashable, Account] = {
            ("team", team, ""): Account(id=("team", team, "")) for team in self._organization_of
        }
        self.weights: dict[Hashable, int] = {}
        for quota in quotas:
            name = id_of(quota)
            self.accounts[name] = Account(
                id=name,
                pool=quota.pool,
                guaranteed=quota.guaranteed,
                lends=quota.lends,
                most=None if quota.borrow is None else quota.guaranteed + quota.borrow,
                most_jobs=quota.running_jobs,
                left=None if quota.gpu_hours is None else quota.gpu_hours * HOUR - spent[name],
                month_began=began.timestamp(),
                month_ends=ends.timestamp(),
            )
            if quota.team_id and not quota.member_id and not quota.pool:
                self.weights[quota.team_id] = quota.weight
        self._of: dict[tuple[UUID, int, str], tuple[Hashable, ...]] = {}

    def of(self, team: UUID, user: int, pool: str) -> tuple[Hashable, ...]:
        """The accounts of a job, the one whose guarantee it may use first; the same object for all like it."""
        key = team, user, pool
        if key not in self._of:
            self._of[key] = self._names(team, user, pool)
        return self._of[key]

    def _names(self, team: UUID, user: int, pool: str) -> tuple[Hashable, ...]:
        organization = self._organization_of[team]
        pools = [pool, ""] if pool else [""]
        names: list[Hashable] = [("team", team, each) for each in pools]
        names += [("member", team, user, each) for each in pools]
        names += [("organization", organization, each) for each in pools]
        return tuple(name for name in names if name in self.accounts)


def id_of(quota: Quota) -> Hashable:
    if quota.member_id:
        return "member", quota.team_id, quota.member_id, quota.pool
    if quota.team_id:
        return "team", quota.team_id, quota.pool
    return "organization", quota.organization_id, quota.pool


def _spent(month: date, quotas: Collection[Quota]) -> defaultdict[Hashable, int]:
    """Unit-seconds of this month's ended runs, by account; read only where somebody's hours are limited."""
    spent: defaultdict[Hashable, int] = defaultdict(int)
    limited = {quota.organization_id for quota in quotas if quota.gpu_hours is not None}
    if not limited:
        return spent
    rows = Spent.objects.filter(month=month, team__organization_id__in=limited)
    sums = rows.values_list("team__organization_id", "team_id", "member_id", "pool").annotate(Sum("unit_seconds"))
    for organization, team, member, pool, seconds in sums:
        for each in {"", pool}:
            spent["organization", organization, each] += seconds
            spent["team", team, each] += seconds
            spent["member", team, member, each] += seconds
    return spent
