"""Quotas as they are read: line by line with what is used of them, and against what the cluster has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from haein.placement.model import WHOLE
from haein.tenants.models import Organization, OrganizationMember, Team, TeamMember
from haein.tenants.scope import Scope
from jobs import quotas, snapshots
from jobs.models import Quota
from jobs.quotas import Owner
from jobs.uses import Use, Uses


@dataclass(frozen=True, slots=True)
class Line:
    """A quota and its use, or an organization or team that has none (yet). `over` is by how many thousandths of GPUs
    an organization's teams are guaranteed more than it is itself.
    """

    owner: Owner
    quota: Quota | None
    use: Use
    over: int = 0


@dataclass(frozen=True, slots=True)
class Total:
    """Of one pool, or ("") of the cluster: thousandths of GPUs in service, and guaranteed to teams."""

    pool: str
    capacity: int
    guaranteed: int

    @property
    def over(self) -> int:
        return max(0, self.guaranteed - self.capacity)


def teams(words: str) -> QuerySet[Team]:
    """All teams with all of the words in their or their organization's name, by these names."""
    found = Team.objects.select_related("organization").order_by("organization__name", "organization_id", "name", "id")
    for word in words.split():
        found = found.filter(Q(name__icontains=word) | Q(organization__name__icontains=word))
    return found


def teams_of(scope: Scope) -> QuerySet[Team]:
    """The reader's teams, and all of the organizations that the reader owns."""
    owned = OrganizationMember.objects.filter(user=scope.user, role=OrganizationMember.Role.OWNER)
    mine = Q(pk__in=scope.team_ids) | Q(organization__in=owned.values("organization"))
    return Team.objects.filter(mine).select_related("organization").order_by("name", "id")


def lines(of: Sequence[Team], *, now: datetime) -> list[Line]:
    """Each organization's, then its teams' with their members', in the order of the teams; nine queries."""
    known = {team.organization_id: team.organization for team in of}
    rows = _rows(of)
    of_all = Team.objects.filter(organization__in=known).values_list("pk", flat=True)
    uses, over = Uses(list(of_all), now=now), _over(known)
    found: list[Line] = []
    for organization in known.values():
        found += _of_organization(organization, rows, uses, over)
        for team in (team for team in of if team.organization_id == organization.pk):
            found += _of_team(team, rows, uses)
    return found


def _rows(of: Sequence[Team]) -> Mapping[tuple[UUID, UUID | None], list[Quota]]:
    """The quotas by organization and team, those of all work first, a member's after the team's."""
    rows: defaultdict[tuple[UUID, UUID | None], list[Quota]] = defaultdict(list)
    organizations = {team.organization_id for team in of}
    found = Quota.objects.filter(Q(team=None, organization__in=organizations) | Q(team__in=[team.pk for team in of]))
    for quota in found.select_related("member").order_by("member__name", "member__email", "pool"):
        rows[quota.organization_id, quota.team_id].append(quota)
    for listed in rows.values():
        listed.sort(key=lambda quota: quota.member_id is not None)
    return rows


def _over(organizations: Collection[UUID]) -> Mapping[tuple[UUID, str], int]:
    """Thousandths that teams are guaranteed, by organization and pool."""
    rows = Quota.objects.filter(organization__in=organizations, team__isnull=False, member=None)
    sums = rows.values_list("organization_id", "pool").annotate(Sum("guaranteed")).order_by()
    return {(organization, pool): total for organization, pool, total in sums}


def _of_organization(
    organization: Organization,
    rows: Mapping[tuple[UUID, UUID | None], list[Quota]],
    uses: Uses,
    given: Mapping[tuple[UUID, str], int],
) -> Iterator[Line]:
    own = rows.get((organization.pk, None), [])
    if all(quota.pool for quota in own):
        whole = Owner(organization=organization)
        yield Line(whole, None, uses.of(whole.name))
    for quota in own:
        owner = Owner(organization=organization, pool=quota.pool)
        over = given.get((organization.pk, quota.pool), 0) - quota.guaranteed
        yield Line(owner, quota, uses.of(owner.name), max(0, over))


def _of_team(team: Team, rows: Mapping[tuple[UUID, UUID | None], list[Quota]], uses: Uses) -> Iterator[Line]:
    own = rows.get((team.organization_id, team.pk), [])
    if not any(quota.pool == "" and quota.member_id is None for quota in own):
        whole = Owner(organization=team.organization, team=team)
        yield Line(whole, None, uses.of(whole.name))
    for quota in own:
        owner = Owner(organization=team.organization, team=team, member=quota.member, pool=quota.pool)
        yield Line(owner, quota, uses.of(owner.name))


def people(team: Team, *, now: datetime) -> list[Line]:
    """Every member of a team with what is theirs of its use; the quota is that for all their work."""
    uses = Uses([team.pk], now=now)
    rows = {quota.member_id: quota for quota in Quota.objects.filter(team=team, pool="", member__isnull=False)}
    members = TeamMember.objects.filter(team=team).select_related("user").order_by("user__name", "user__email")
    found = []
    for part in members:
        owner = Owner(organization=team.organization, team=team, member=part.user)
        found.append(Line(owner, rows.get(part.user_id), uses.of(owner.name)))
    return found


def totals() -> list[Total]:
    """The cluster's, then each pool's; what is guaranteed in any pool counts in the cluster's too."""
    capacity: defaultdict[str, int] = defaultdict(int)
    for node in snapshots.capacity().nodes:
        if node.usable:
            for pool in {"", node.pool}:
                capacity[pool] += WHOLE * sum(device.usable for device in node.devices)
    rows = Quota.objects.filter(team__isnull=False, member=None)
    by_pool = dict(rows.values_list("pool").annotate(Sum("guaranteed")).order_by())
    given = {**by_pool, "": sum(by_pool.values())}
    return [Total(pool, capacity[pool], given.get(pool, 0)) for pool in sorted({"", *capacity, *by_pool})]


def pools() -> list[str]:
    return sorted({node.pool for node in snapshots.capacity().nodes if node.pool})


def ledgers(of: Sequence[Line]) -> Iterator[Line]:
    """Those of a team as a whole, by pool."""
    return (line for line in of if line.owner.team and not line.owner.member)


def account_of(line: Line) -> str:
    """A name for the line that is the same the next time."""
    return "-".join(str(part) for part in quotas.parts(line.owner.name) if part)
