"""Gives the demonstration's teams their quotas: most of the cluster is somebody's, and the rest is there to borrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dashboard.demo import people
from dashboard.demo.people import Organization
from haein.cluster.backends.base import NodeFact
from haein.tenants.models import Team, User
from jobs import quotas
from jobs.quotas import Owner, Values

# The part of the cluster that is guaranteed, and what a part of each kind of work counts in sharing it out.
GUARANTEED = 0.8
PARTS = {people.GANGS: 5, people.TRAINING: 3, people.SERVING: 2, people.NIGHTLY: 2, people.EXPERIMENTS: 1}
# Whoever answers requests at any hour keeps what is idle; who pays for more gets more of what is borrowed.
KEEPS = {("Narae Speech", "Serving")}
WEIGHTS = {("Hanbit Language Lab", "Pretraining"): 3000, ("Mirinae University", "Course CS442"): 500}
# One of the course's people may hold so much at once and no more.
LIMITED, LIMIT = people.ORGANIZATIONS[-1].teams[0].people[1], 4000


def allot(facts: Sequence[NodeFact], *, by: User) -> None:
    """Set the quotas of everybody in people.ORGANIZATIONS, who must be there; sizes go by the devices there are."""
    shared = _shares(GUARANTEED * sum(len(fact.devices) for fact in facts))
    rows = {
        (team.organization.name, team.name): team
        for team in Team.objects.select_related("organization")
        if (team.organization.name, team.name) in shared
    }
    for organization in people.ORGANIZATIONS:
        _allot_organization(organization, shared, rows, by)
    course = rows[people.ORGANIZATIONS[-1].name, people.ORGANIZATIONS[-1].teams[0].name]
    member = User.objects.get(email=LIMITED.email)
    limited = Owner(organization=course.organization, team=course, member=member)
    quotas.set_quota(by=by, owner=limited, values=Values(borrow=LIMIT))


def _allot_organization(
    organization: Organization,
    shared: Mapping[tuple[str, str], int],
    rows: Mapping[tuple[str, str], Team],
    by: User,
) -> None:
    names = [(organization.name, team.name) for team in organization.teams]
    whole = Owner(organization=rows[names[0]].organization)
    quotas.set_quota(by=by, owner=whole, values=Values(guaranteed=sum(shared[name] for name in names)))
    for name in names:
        said = Values(guaranteed=shared[name], lends=name not in KEEPS, weight=WEIGHTS.get(name, Values().weight))
        quotas.set_quota(by=by, owner=Owner(organization=rows[name].organization, team=rows[name]), values=said)


def _shares(gpus: float) -> Mapping[tuple[str, str], int]:
    """Thousandths of GPUs by organization and team: whole GPUs, as many as the team's kinds of work weigh."""
    parts: Counter[tuple[str, str]] = Counter()
    for team in people.TEAMS:
        parts[team.organization, team.name] = sum(PARTS.get(kind, 0) * much for kind, much in team.does)
    whole = sum(parts.values())
    return {name: 1000 * int(gpus * part / whole) for name, part in parts.items()}
