"""What the accounts of quotas hold at this moment, wait for, and have used of the month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count

from haein.placement.queueing import Account
from haein.tenants.models import Team
from jobs import quotas
from jobs.models import Job, Quota
from jobs.states import State


@dataclass(slots=True)
class Use:
    """Of one account: thousandths of GPUs inside the guarantee and borrowed, jobs that hold them, thousandths waited
    for, and unit-seconds of this month: of ended runs, of what runs until now, and of that by its time limits.
    """

    inside: int = 0
    borrowed: int = 0
    jobs: int = 0
    waiting: int = 0
    ended: int = 0
    running: int = 0
    reserved: int = 0

    @property
    def held(self) -> int:
        return self.inside + self.borrowed

    @property
    def spent(self) -> int:
        return self.ended + self.running

    def idle(self, account: Account | None) -> int:
        """What of the account's guarantee is not used."""
        return max(0, account.guaranteed - self.inside) if account else 0


_OPEN = """
    SELECT team_id, submitted_by_id, pool, gpus, share, profile, workers, guaranteed, count(*),
           sum(greatest(0, extract(epoch FROM %(now)s - greatest(began, %(month)s))))::float8,
           sum(greatest(0, extract(epoch FROM least(ends, %(next)s) - greatest(began, %(month)s))))::float8
    FROM (
        SELECT job.team_id, job.submitted_by_id, job.pool, job.gpus, job.share, job.profile, job.workers,
               attempt.guaranteed, coalesce(attempt.started_at, attempt.placed_at) AS began,
               coalesce(attempt.started_at, attempt.placed_at) + job.time_limit_s * interval '1 second' AS ends
        FROM jobs_attempt AS attempt
        JOIN jobs_job AS job ON job.id = attempt.job_id
        WHERE attempt.state <> 'ended' AND job.team_id = ANY(%(teams)s)
    ) AS run
    GROUP BY team_id, submitted_by_id, pool, gpus, share, profile, workers, guaranteed
"""
_COLUMNS = ("team_id", "submitted_by_id", "pool", "gpus", "share", "profile", "workers")


class Uses:
    """By account, for all the jobs of these teams, in five queries; what nobody uses is there as nothing.

    What runs inside a guarantee is inside that of the job's first account alone, and of its member and organization.
    """

    def __init__(self, team_ids: Collection[UUID], *, now: datetime) -> None:
        self._teams = list(team_ids)
        self._of: defaultdict[Hashable, Use] = defaultdict(Use)
        self._organization = dict(Team.objects.filter(pk__in=self._teams).values_list("pk", "organization_id"))
        rows = Quota.objects.filter(team__in=self._teams, member=None).exclude(pool="")
        self._ledgers = set(rows.values_list("team_id", "pool"))
        self._read_open(now)
        self._read_waiting()
        month = quotas.month_of(now)[0].date()
        for name, seconds in quotas.spent_of(set(self._organization.values()), month).items():
            self._of[name].ended = seconds

    def of(self, name: Hashable) -> Use:
        return self._of[name]

    def _read_open(self, now: datetime) -> None:
        month, after = quotas.month_of(now)
        with connection.cursor() as cursor:
            cursor.execute(_OPEN, {"now": now, "month": month, "next": after, "teams": self._teams})
            rows = cursor.fetchall()
        for team, user, pool, *shape, inside, count, seconds, reserved in rows:
            units = quotas.units(*shape)
            for name in self._names(team, user, pool):
                use = self._of[name]
                use.jobs += count
                use.running += int(units * seconds)
                use.reserved += int(units * reserved)
                if not inside:
                    use.borrowed += units * count
                elif name[0] != "team" or name[2] == self._ledger(team, pool):
                    use.inside += units * count

    def _read_waiting(self) -> None:
        rows = Job.objects.filter(state=State.QUEUED, team__in=self._teams).values_list(*_COLUMNS)
        for team, user, pool, *shape, count in rows.annotate(Count("pk")).order_by():
            for name in self._names(team, user, pool):
                self._of[name].waiting += quotas.units(*shape) * count

    def _ledger(self, team: UUID, pool: str) -> str:
        return pool if (team, pool) in self._ledgers else ""

    def _names(self, team: UUID, user: UUID, pool: str) -> list[tuple[Any, ...]]:
        organization = self._organization[team]
        return [
            name
            for each in {"", pool}
            for name in (("organization", organization, each), ("team", team, each), ("member", team, user, each))
        ]
