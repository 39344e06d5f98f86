"""The accounts that the engine below should have for those who own the jobs, with their quotas as its limits."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from uuid import UUID

from haein.cluster import accounts as kept
from haein.cluster import slurm_site
from haein.cluster.backends.slurm import accounts
from haein.cluster.backends.slurm.accounts import Account, Step, There
from haein.cluster.backends.slurm.backend import Site
from haein.cluster.models import WHOLE, Device
from haein.tenants.models import Organization, Team
from jobs.models import Quota


def wanted() -> dict[UUID, Account]:
    """By owner, organizations first: an account for each, and below it one for each of its teams."""
    site = slurm_site.site()
    below = site.terms.account or accounts.ROOT
    organizations = list(Organization.objects.order_by("created_at", "pk"))
    teams = list(Team.objects.order_by("created_at", "pk"))
    words = {each.pk: each.name for each in organizations} | {team.pk: team.name for team in teams}
    names = kept.names(words)
    limits = _limits()
    made = {}
    for each in organizations:
        # Its jobs are charged to its own account while a new team has none yet.
        made[each.pk] = Account(
            names[each.pk],
            below,
            accounts.described(each.name),
            limits.get(each.pk),
            _users(each, site),
            site.terms.qos,
        )
    for team in teams:
        parent = made[team.organization_id]
        made[team.pk] = Account(
            names[team.pk], parent.name, accounts.described(team.name), limits.get(team.pk), parent.users
        )
    return made


def _users(organization: Organization, site: Site) -> frozenset[str]:
    """As whom the organization's jobs run; nobody yet where each has a user of its own and this one has none."""
    if site.users:
        return frozenset({site.users[organization.pk]} if organization.pk in site.users else ())
    return frozenset({site.user or getpass.getuser()})


def _limits() -> dict[UUID, int | None]:
    """The most GPUs that an organization's or a team's jobs may hold, rounded up, as Slurm counts them.

    It counts each MIG instance as a GPU, so where there are some the limit is wider: Haein's own is the exact one.
    """
    most = max(
        (len(layout) for layout in Device.objects.filter(present=True).values_list("layout", flat=True)), default=0
    )
    rows = Quota.objects.filter(member=None, pool="", borrow__isnull=False)
    return {
        row.team_id or row.organization_id: -(-(row.guaranteed + row.borrow) * max(1, most) // WHOLE) for row in rows
    }


def plan(found: There, owners: Mapping[UUID, Account]) -> list[Step]:
    """The steps from what is there to what is wanted. Raises Taken."""
    return accounts.steps(list(owners.values()), found, kept.gone(owners))
