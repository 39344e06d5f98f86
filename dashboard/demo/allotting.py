"""What the demonstration's teams are guaranteed: four fifths of the cluster, the rest is for whoever borrows."""

from __future__ import annotations

from dataclasses import dataclass

from dashboard.demo import people
from dashboard.demo.people import Organization
from haein.cluster.backends.simulator.backend import SERVES_ONE_IN
from haein.tenants import models
from haein.tenants.models import User
from jobs import quotas
from jobs.quotas import Owner, Values

GPUS_OF_A_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`all` thousandths of the cluster's GPUs, and `serving` thousandths of those that are set aside for serving."""

    all: int = 0
    serving: int = 0
    lends: bool = True
    weight: int = 1000


PARTS = {
    "Pretraining": Part(all=140, weight=2000),
    "Evaluation": Part(all=30),
    "Base models": Part(all=160, weight=2000),
    "Alignment": Part(all=60),
    "Perception": Part(all=70),
    "Simulation": Part(all=20),
    # A service that has to wait for borrowers to leave is down for as long.
    "Serving": Part(serving=450, lends=False),
    "Models": Part(all=40),
    "Ranking": Part(all=20, serving=300),
    "Embeddings": Part(all=20),
    "Pipelines": Part(all=40),
    "Vision": Part(all=20),
    "Forecast": Part(all=30),
    "Risk": Part(all=10),
    "Agents": Part(all=10),
    "Radiology": Part(all=20),
    people.COURSE_TEAM: Part(weight=500),
    "Theses": Part(all=10),
}
# Before a deadline everybody asks at once: nobody holds more than this, in thousandths of GPUs.
STUDENT_MOST = 2000
# GPU-hours a month, for each device of the cluster: about twice what a course uses.
COURSE_HOURS = 4


def allot(nodes: int, *, by: User) -> None:
    """Set everybody's quotas, who must be there, on a cluster of so many of the simulator's nodes."""
    for organization in people.ORGANIZATIONS:
        _allot(organization, by, nodes)


def _allot(organization: Organization, by: User, nodes: int) -> None:
    row = models.Organization.objects.get(name=organization.name)
    teams = {team.name: team for team in row.teams.all()}
    for pool in ("", "serve"):
        sizes = {team.name: _size(PARTS[team.name], pool, nodes) for team in organization.teams}
        if pool and not sum(sizes.values()):
            continue
        # So that its owner may share it out anew.
        quotas.set_quota(by=by, owner=Owner(organization=row, pool=pool), values=Values(guaranteed=sum(sizes.values())))
        for name, size in sizes.items():
            if not pool or size:
                values = _values(PARTS[name], size, pool, name, nodes)
                quotas.set_quota(by=by, owner=Owner(organization=row, team=teams[name], pool=pool), values=values)
    if people.COURSE_TEAM in teams:
        _limit_students(row, teams[people.COURSE_TEAM], by)


def _size(part: Part, pool: str, nodes: int) -> int:
    """Whole GPUs, in thousandths: of those set aside for serving, or of all."""
    devices, thousandths = (nodes // SERVES_ONE_IN, part.serving) if pool else (nodes, part.all)
    return round(devices * GPUS_OF_A_NODE * thousandths / 1000) * 1000


def _values(part: Part, size: int, pool: str, name: str, nodes: int) -> Values:
    hours = COURSE_HOURS * nodes * GPUS_OF_A_NODE if name == people.COURSE_TEAM else None
    weight = Values().weight if pool else part.weight
    return Values(guaranteed=size, lends=part.lends, weight=weight, gpu_hours=None if pool else hours)


def _limit_students(organization: models.Organization, team: models.Team, by: User) -> None:
    for student in team.members.exclude(role=models.TeamMember.Role.ADMIN).select_related("user"):
        owner = Owner(organization=organization, team=team, member=student.user)
        quotas.set_quota(by=by, owner=owner, values=Values(borrow=STUDENT_MOST))
