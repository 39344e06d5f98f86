"""The one door: who is asking, and which teams' rows they may see or change."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from haein.tenants.models import Organization, OrganizationMember, Team, TeamMember, User


@dataclass(frozen=True, slots=True)
class Scope:
    """A signed-in person's reach, read from the database once a request (or once in a while for a socket).

    `team` is the team that new work goes to. Everything in `team_ids` may be read; `writable` may be changed.
    """

    user: User
    organization: Organization
    team: Team
    team_ids: frozenset[UUID]
    writable: frozenset[UUID]
    owner: bool

    @property
    def may_launch(self) -> bool:
        return self.team.pk in self.writable


def of(user: User) -> Scope | None:
    """The person's reach, in two queries; None for somebody who belongs to no team (any more)."""
    rows = list(
        TeamMember.objects.filter(user=user, user__is_active=True)
        .select_related("team__organization")
        .order_by("team__created_at", "team_id")
    )
    if not rows:
        return None
    team = rows[0].team
    owner = OrganizationMember.objects.filter(
        user=user, organization=team.organization, role=OrganizationMember.Role.OWNER
    ).exists()
    return Scope(
        user=user,
        organization=team.organization,
        team=team,
        team_ids=frozenset(row.team_id for row in rows),
        writable=frozenset(row.team_id for row in rows if row.role != TeamMember.Role.VIEWER),
        owner=owner,
    )
