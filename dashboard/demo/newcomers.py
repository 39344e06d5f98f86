"""Who is in the demonstration on a real cluster: one organization that has just come, and the first jobs it submits.

Only one: on one machine all of Slurm's jobs run as one user, which can't keep two organizations apart.
"""

from __future__ import annotations

from dataclasses import replace

from django.contrib.auth.hashers import make_password
from django.db import transaction

from dashboard.demo import founding, people
from dashboard.demo.people import Person, Team
from haein.lib import clock
from haein.lib.errors import Problem
from haein.tenants import models, scope
from haein.tenants.models import OrganizationMember, TeamMember, User
from haein.tenants.scope import Scope
from jobs import examples, services
from jobs.spec import Spec

ORGANIZATION = people.ORGANIZATIONS[0]
STEPS = (
    'for step in $(seq 1 {steps}); do echo "$HAEIN_RANK of $HAEIN_WORKERS on $(hostname): step $step"; sleep 5; done'
)
# By the numbers of the team and of the person in it: a job that leaves this machine's cores nearly idle, whatever it
# holds of the cluster, and the example whose file goes with them.
JOBS: tuple[tuple[int, int, Spec, str], ...] = (
    (0, 1, replace(examples.get("digits").spec, name="digits-warm-up", tags=["demo"]), "digits"),
    (0, 1, Spec("pretrain-2x8", STEPS.format(steps=360), gpus=8, workers=2, tags=["demo"]), ""),
    (0, 2, Spec("tokenizer", STEPS.format(steps=60), gpus=2, tags=["demo"]), ""),
    (1, 0, Spec("score-checkpoints", STEPS.format(steps=120), profile="1g.23gb", tags=["demo"]), ""),
    (1, 1, replace(examples.get("fails").spec, name="wrong-path", tags=["demo"]), "fails"),
)


def begun() -> bool:
    return User.objects.filter(email=people.OPERATOR.email).exists()


def begin(*, password: str) -> int:
    """Everybody comes in, with one password, and the first jobs are submitted; returns how many.

    Raises Problem where there are people already.
    """
    with transaction.atomic():
        if User.objects.exists():
            raise Problem("There are people here already: the demonstration begins on an empty data folder.")
        _settle(password)
        for team, person, spec, example in JOBS:
            reach = _reach(ORGANIZATION.teams[team], ORGANIZATION.teams[team].people[person])
            upload = examples.upload(example, scope=reach) if example else None
            services.submit(scope=reach, spec=spec, upload=upload)
    return len(JOBS)


def _settle(password: str) -> None:
    now, secret = clock.now(), make_password(password)
    everybody = [people.OPERATOR, *(person for team in ORGANIZATION.teams for person in team.people)]
    users = [
        User(email=each.email, name=each.name, password=secret, is_operator=each is people.OPERATOR, date_joined=now)
        for each in everybody
    ]
    known = {each.email: each for each in User.objects.bulk_create(users)}
    made = founding.settle_organization(ORGANIZATION, known)
    operator = known[people.OPERATOR.email]
    OrganizationMember.objects.create(organization=made, user=operator)
    first = models.Team.objects.get(organization=made, name=ORGANIZATION.teams[0].name)
    TeamMember.objects.create(team=first, user=operator)


def _reach(team: Team, person: Person) -> Scope:
    """As which the person works for the team."""
    reach = scope.of(User.objects.get(email=person.email))
    assert reach
    mine = models.Team.objects.select_related("organization").get(name=team.name, organization=reach.organization)
    return replace(reach, team=mine)
