"""Who may use how much: the verbs on quotas, and the quotas as the pass needs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _

from haein.cluster.models import Node
from haein.lib import clock
from haein.lib.errors import Forbidden, Invalid, NotFound
from haein.placement.model import Request
from haein.placement.queueing import Account, units_of
from haein.tenants import audit
from haein.tenants.models import Organization, OrganizationMember, Team, User
from haein.tenants.scope import Scope
from jobs import wakeup
from jobs.models import Quota, Spent
from jobs.spec import MOST_TIME_S

# An account's id: its kind, whose it is, and the pool.
Name = tuple[Any, ...]
HOUR = 3600 * 1000  # a GPU-hour in unit-seconds
MOST_UNITS = 100_000_000
MOST_WEIGHT = 1_000_000
MOST_JOBS = 1_000_000
MOST_HOURS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a quota is: an organization's, a team's, or a member's of a team; in one pool, or ("") in all."""

    organization: Organization
    team: Team | None = None
    member: User | None = None
    pool: str = ""

    @property
    def key(self) -> dict[str, Any]:
        """The columns by which a row is found."""
        return {"organization": self.organization, "team": self.team, "member": self.member, "pool": self.pool}

    @property
    def name(self) -> Name:
        """The account's id."""
        team, member = (each.pk if each else None for each in (self.team, self.member))
        return _name(self.organization.pk, team, member, self.pool)

    def __str__(self) -> str:
        parts = [str(each) for each in (self.organization, self.team, self.member) if each]
        return " / ".join(parts) + (f" ({self.pool})" if self.pool else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What a quota says; the units are jobs.models.Quota's."""

    guaranteed: int = 0
    borrow: int | None = None
    lends: bool = True
    weight: int = 1000
    running_jobs: int | None = None
    gpus_per_job: int | None = None
    time_limit_s: int | None = None
    gpu_hours: int | None = None


def values_of(quota: Quota) -> Values:
    return Values(**{field.name: getattr(quota, field.name) for field in fields(Values)})


def gpus(units: int) -> str:
    """Thousandths of GPUs as people write GPUs: 1.5."""
    return f"{units / 1000:,.3f}".rstrip("0").rstrip(".")


@lru_cache(maxsize=4096)
def units(gpus: int, share: int, profile: str, workers: int) -> int:
    """Thousandths of GPUs that a job takes in all, by its columns."""
    return workers * units_of(Request(id=None, gpus=gpus, share=share, profile=profile, cpus=0, memory_mb=0))


def seen_by(scope: Scope) -> QuerySet[Quota]:
    """The quotas that the reader may see: an operator all, an owner the organization's, a member those of the teams."""
    rows: QuerySet[Quota] = Quota.objects.select_related("organization", "team", "member")
    if scope.user.is_operator:
        return rows
    owned = OrganizationMember.objects.filter(user=scope.user, role=OrganizationMember.Role.OWNER)
    mine = Q(organization__in=owned.values("organization"))
    return rows.filter(
        mine | Q(team__in=scope.team_ids) | Q(team=None, organization__teams__in=scope.team_ids)
    ).distinct()


def get(quota_id: UUID, *, scope: Scope) -> Quota:
    """Raises NotFound."""
    found = seen_by(scope).filter(pk=quota_id).first()
    if found is None:
        raise NotFound(_("There is no such quota."))
    return found


def owner(
    *,
    scope: Scope,
    organization: UUID | None = None,
    team: UUID | None = None,
    member: UUID | None = None,
    pool: str = "",
) -> Owner:
    """Those who are meant, if the reader may see their quotas; a team has its organization. Raises NotFound."""
    of_team = Team.objects.select_related("organization").filter(pk=team).first() if team else None
    alone = Organization.objects.filter(pk=organization).first() if organization and not team else None
    whose = of_team.organization if of_team else alone
    if (
        whose is None
        or (organization and organization != whose.pk)
        or not (may_set(scope.user, whose) or _may_read(scope, whose, of_team))
    ):
        raise NotFound(_("There is no such organization or team."))
    # Who has left the team may have a quota in it still, to be taken away.
    known = Q(teams__team=of_team) | Q(quotas__team=of_team)
    person = User.objects.filter(known, pk=member).first() if member and of_team else None
    if member and person is None:
        raise NotFound(_("There is no such member of the team."))
    return Owner(organization=whose, team=of_team, member=person, pool=pool)


def _may_read(scope: Scope, organization: Organization, team: Team | None) -> bool:
    if team:
        return team.pk in scope.team_ids
    return Team.objects.filter(pk__in=scope.team_ids, organization=organization).exists()


def may_set(by: User, organization: Organization) -> bool:
    """Whether the person sets quotas of the organization's teams and members: its owners and operators do."""
    parts = OrganizationMember.objects.filter(user=by, organization=organization)
    return by.is_operator or bool(parts.filter(role=OrganizationMember.Role.OWNER).exists())


def find(owner: Owner) -> Quota | None:
    return Quota.objects.filter(**owner.key).first()


@transaction.atomic
def set_quota(*, by: User, owner: Owner, values: Values) -> Quota:
    """Set all of a quota. Raises Forbidden, Invalid with a sentence for every field that is wrong."""
    before = _begin(by, owner)
    faults = {name: fault for name, fault in _faults(owner, values) if fault}
    if not by.is_operator:
        faults = {**_beyond(owner, values, before), **faults}
    if faults:
        raise Invalid(faults)
    quota, _made = Quota.objects.update_or_create(**owner.key, defaults={**asdict(values), "changed_at": clock.now()})
    _written("quota.set", by, owner, before=_told(before), after=asdict(values))
    return quota


@transaction.atomic
def clear(*, by: User, owner: Owner) -> None:
    """Take a quota away, so that the limits and the guarantee in it are no more. Raises Forbidden, NotFound."""
    before = _begin(by, owner)
    if before is None:
        raise NotFound(_("There is no such quota."))
    if not by.is_operator and before.weight != Values().weight:
        raise Forbidden(_only_weight())
    before.delete()
    _written("quota.clear", by, owner, before=_told(before))


def _begin(by: User, owner: Owner) -> Quota | None:
    """One change of an organization's quotas at a time: what is left of its guarantee is counted. Raises Forbidden."""
    Organization.objects.select_for_update().get(pk=owner.organization.pk)
    if not may_set(by, owner.organization):
        raise Forbidden(_("Quotas are set by the organization's owners and by operators: ask one of them."))
    if owner.team is None and not by.is_operator:
        raise Forbidden(_("An organization's own quota is set by an operator."))
    return find(owner)


def _written(action: str, by: User, owner: Owner, **detail: object) -> None:
    audit.record(action, str(owner)[:120], by=by, organization_id=owner.organization.pk, **_ids(owner), **detail)
    wakeup.soon()


def _ids(owner: Owner) -> dict[str, str]:
    team, member = (str(each.pk) if each else "" for each in (owner.team, owner.member))
    return {"team": team, "member": member, "pool": owner.pool}


def _told(quota: Quota | None) -> dict[str, Any] | None:
    return asdict(values_of(quota)) if quota else None


def _only_weight() -> str:
    return _("Only an operator sets weights: they count between organizations.")


def _faults(owner: Owner, values: Values) -> Iterator[tuple[str, str]]:
    of_team = owner.team is not None and owner.member is None
    yield "pool", _pool(owner.pool)
    yield "guaranteed", _size(values.guaranteed, 0)
    if owner.member and values.guaranteed:
        yield "guaranteed", _("A guarantee is a team's. What a member may hold at most is set as what may be borrowed.")
    yield "borrow", _size(values.borrow, 0)
    if not of_team and not values.lends:
        yield "lends", _("Only a team's guarantee is lent or kept idle.")
    yield "weight", _between(values.weight, 1, MOST_WEIGHT, _("thousandths"))
    if (not of_team or owner.pool) and values.weight != Values().weight:
        yield "weight", _("A weight is a team's as a whole, in no pool.")
    yield "running_jobs", _between(values.running_jobs, 0, MOST_JOBS, _("jobs"))
    yield "gpus_per_job", _size(values.gpus_per_job, 1)
    yield "time_limit_s", _between(values.time_limit_s, 1, MOST_TIME_S, _("seconds"))
    yield "gpu_hours", _between(values.gpu_hours, 0, MOST_HOURS, _("GPU-hours"))


def _pool(pool: str) -> str:
    known = set(Node.objects.exclude(pool="").values_list("pool", flat=True)) if pool else set()
    if not pool or pool in known:
        return ""
    if not known:
        return _("The cluster has no pools: leave this out.")
    return _("There is no such pool. Choose one of: %(known)s.") % {"known": ", ".join(sorted(known))}


def _size(value: int | None, least: int) -> str:
    if value is None or least <= value <= MOST_UNITS:
        return ""
    return _("From %(least)s to %(most)s GPUs.") % {"least": gpus(least), "most": gpus(MOST_UNITS)}


def _between(value: int | None, least: int, most: int, unit: str) -> str:
    if value is None or least <= value <= most:
        return ""
    return _("From %(least)s to %(most)s %(unit)s.") % {"least": least, "most": most, "unit": unit}


def _beyond(owner: Owner, values: Values, before: Quota | None) -> dict[str, str]:
    """What an organization's owner may not give away, by field."""
    faults = {}
    if values.weight != (before.weight if before else Values().weight):
        faults["weight"] = _only_weight()
    if values.guaranteed > (before.guaranteed if before else 0):
        rows = Quota.objects.filter(organization=owner.organization, member=None, pool=owner.pool)
        whole = sum(rows.filter(team=None).values_list("guaranteed", flat=True))
        given = sum(rows.filter(team__isnull=False).exclude(team=owner.team).values_list("guaranteed", flat=True))
        if values.guaranteed > whole - given:
            faults["guaranteed"] = _(
                "The organization is guaranteed %(whole)s GPUs, of which %(given)s are other teams’: %(left)s are left."
            ) % {"whole": gpus(whole), "given": gpus(given), "left": gpus(max(0, whole - given))}
    return faults


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The calendar month (UTC) of a moment: its first instant and the next one's."""
    began = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return began, began.replace(year=began.year + began.month // 12, month=began.month % 12 + 1)


class Accounts:
    """The accounts of these teams and all guarantees, and which of them a job is charged to; three queries.

    There is one for each quota, ("organization", organization, pool), ("team", team, pool) or ("member", team, user,
    pool), and always one for each team as a whole. A quota for pool "" covers all jobs of its owner, another those that
    name its pool. What an organization is guaranteed is its teams' to share out: only a team's guarantee is kept.
    """

    def __init__(self, team_ids: Collection[UUID], *, now: datetime) -> None:
        self._organization_of = dict(Team.objects.filter(pk__in=team_ids).values_list("pk", "organization_id"))
        organizations = set(self._organization_of.values())
        # A guarantee counts against what others may borrow also while its team has no work at all.
        promised = Q(team__isnull=False, member=None, guaranteed__gt=0)
        quotas = list(Quota.objects.filter(promised | Q(organization_id__in=organizations)))
        began, ends = month_of(now)
        used = spent(began.date(), [quota for quota in quotas if quota.organization_id in organizations])
        self.accounts: dict[Hashable, Account] = {
            ("team", team, ""): Account(id=("team", team, "")) for team in self._organization_of
        }
        self.weights: dict[Hashable, int] = {}
        for quota in quotas:
            name, of_team = id_of(quota), quota.team_id and not quota.member_id
            self.accounts[name] = Account(
                id=name,
                pool=quota.pool,
                guaranteed=quota.guaranteed if of_team else 0,
                lends=quota.lends or not of_team,
                most=None if quota.borrow is None else quota.guaranteed + quota.borrow,
                most_jobs=quota.running_jobs,
                left=None if quota.gpu_hours is None else quota.gpu_hours * HOUR - used[name],
                month_began=began.timestamp(),
                month_ends=ends.timestamp(),
            )
            if of_team and not quota.pool:
                self.weights[quota.team_id] = quota.weight
        self._of: dict[tuple[UUID, UUID, str], tuple[Hashable, ...]] = {}

    def of(self, team: UUID, user: UUID, pool: str) -> tuple[Hashable, ...]:
        """The accounts of a job, the one whose guarantee it may use first; the same object for all like it."""
        key = team, user, pool
        if key not in self._of:
            self._of[key] = self._names(team, user, pool)
        return self._of[key]

    def _names(self, team: UUID, user: UUID, pool: str) -> tuple[Hashable, ...]:
        organization = self._organization_of[team]
        pools = [pool, ""] if pool else [""]
        names: list[Hashable] = [("team", team, each) for each in pools]
        names += [("member", team, user, each) for each in pools]
        names += [("organization", organization, each) for each in pools]
        return tuple(name for name in names if name in self.accounts)


def parts(name: Hashable) -> Name:
    """The id of an account as what it is made of."""
    return cast(Name, name)


def id_of(quota: Quota) -> Name:
    return _name(quota.organization_id, quota.team_id, quota.member_id, quota.pool)


def _name(organization: UUID, team: UUID | None, member: UUID | None, pool: str) -> Name:
    if member:
        return "member", team, member, pool
    return ("team", team, pool) if team else ("organization", organization, pool)


def spent(month: date, quotas: Collection[Quota]) -> Mapping[Hashable, int]:
    """Unit-seconds of a month's ended runs, by account; read only where somebody's hours are limited."""
    limited = {quota.organization_id for quota in quotas if quota.gpu_hours is not None}
    return spent_of(limited, month) if limited else defaultdict(int)


def spent_of(organizations: Collection[UUID], month: date) -> Mapping[Hashable, int]:
    """Unit-seconds of a month's ended runs, by account."""
    spent: defaultdict[Hashable, int] = defaultdict(int)
    rows = Spent.objects.filter(month=month, team__organization_id__in=organizations)
    sums = rows.values_list("team__organization_id", "team_id", "member_id", "pool").annotate(Sum("unit_seconds"))
    for organization, team, member, pool, seconds in sums:
        for each in {"", pool}:
            for name in (("organization", organization, each), ("team", team, each), ("member", team, member, each)):
                spent[name] += seconds
    return spent
