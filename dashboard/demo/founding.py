"""Brings the demonstration's people in with a month behind them: once, on an empty folder, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.contrib.auth.hashers import make_password
from django.db import transaction

from billing import prices
from billing.models import Price, Usage
from dashboard.demo import allotting, history, month, people, work
from dashboard.demo.people import Organization, Person
from dashboard.demo.work import Wish
from haein.cluster.backends.base import NodeFact
from haein.cluster.models import Device, DeviceModel, Node
from haein.lib import copying, money
from haein.lib.errors import Problem
from haein.tenants import audit, models, services
from haein.tenants.models import OrganizationMember, Team, TeamMember, User
from jobs.models import Allocation, Attempt, Event, Job, Worker

DAYS = 30
JOBS_A_DAY_A_NODE = 4.7
# Opened a while before the first job, and a price that was raised in between.
OPENED, RAISED, RAISED_TO = timedelta(days=9), timedelta(days=12), "4.40"


def begun() -> bool:
    return User.objects.filter(email=people.OPERATOR.email).exists()


def begin(
    facts: Sequence[NodeFact], *, password: str, seed: int, now: datetime
) -> tuple[Mapping[str, int], list[Wish]]:
    """Play a month through that ends now, and write it down; returns what was written and the wishes that go on.

    Every one of its people has this password. Raises Problem where there are people already.
    """
    since = now - timedelta(days=DAYS)
    coming = work.wishes(seed, since, nodes=len(facts), jobs_a_day=JOBS_A_DAY_A_NODE * len(facts))
    played = month.run(coming, month.snapshot(facts), seed=seed, seconds=DAYS * work.DAY)
    told, going_on = history.close(played, seed=seed)
    with transaction.atomic():
        if User.objects.exists():
            raise Problem("There are people here already: the demonstration begins on an empty data folder.")
        settle(password, at=since - OPENED)
        allotting.allot(len(facts), by=User.objects.get(email=people.OPERATOR.email))
        _price(now)
        written = history.write(told, _ground(), begin=since, seed=seed)
        audit.record("demo.begin", "demo", by=None, rows=dict(written))
    return written, going_on


def tidy() -> None:
    """Outside of any transaction: without it the first pages after a history are slow ones."""
    copying.settle(Job, Attempt, Worker, Allocation, Event, Usage)


def settle(password: str, *, at: datetime) -> None:
    """Everybody of the demonstration, with one password, as if they had come at that moment."""
    secret = make_password(password)

    def user(person: Person, *, operator: bool = False) -> User:
        return User(email=person.email, name=person.name, password=secret, is_operator=operator, date_joined=at)

    users = [user(people.OPERATOR, operator=True)]
    users += [user(person) for team in people.TEAMS for person in team.people]
    known = {each.email: each for each in User.objects.bulk_create(users)}
    services.create_organization(by=known[people.OPERATOR.email], name=people.OPERATIONS, team="Operations")
    for organization in people.ORGANIZATIONS:
        settle_organization(organization, known)
    models.Organization.objects.update(created_at=at)
    for number, team in enumerate(Team.objects.order_by("created_at", "pk")):
        Team.objects.filter(pk=team.pk).update(created_at=at + timedelta(seconds=number))


def settle_organization(organization: Organization, known: dict[str, User]) -> models.Organization:
    """The owner makes it with its first team; the rest of its people join."""
    owner = known[organization.owner.email]
    made = services.create_organization(by=owner, name=organization.name, team=organization.teams[0].name)
    first = Team.objects.get(organization=made)
    others = Team.objects.bulk_create(Team(organization=made, name=team.name) for team in organization.teams[1:])
    parts = []
    for row, team in zip([first, *others], organization.teams, strict=True):
        parts += [
            TeamMember(team=row, user=known[person.email]) for person in team.people if person.email != owner.email
        ]
        if row is not first:
            parts.append(TeamMember(team=row, user=owner, role=TeamMember.Role.ADMIN))
    TeamMember.objects.bulk_create(parts)
    members = {part.user_id for part in parts} - {owner.pk}
    OrganizationMember.objects.bulk_create(OrganizationMember(organization=made, user_id=pk) for pk in members)
    audit.record(
        "organization.settle",
        str(made.pk),
        by=owner,
        organization_id=made.pk,
        teams=len(others) + 1,
        people=len(members),
    )
    return made


def _price(now: datetime) -> None:
    """The first price until it was raised, at a midnight in between."""
    prices.fill_gaps()
    raised = (now - RAISED).replace(hour=0, minute=0, second=0, microsecond=0)
    operator = User.objects.get(email=people.OPERATOR.email)
    for first in Price.objects.select_related("device_model"):
        first.valid_to = raised
        first.save(update_fields=["valid_to"])
        Price.objects.create(
            device_model=first.device_model,
            currency=first.currency,
            per_hour=money.micro(RAISED_TO),
            valid_from=raised,
            set_by=operator,
        )
        audit.record("price.set", first.device_model.name, by=operator, valid_from=raised.isoformat())


def _ground() -> history.Ground:
    nodes = {node.name: node for node in Node.objects.all()}
    devices = Device.objects.select_related("node", "model").order_by()
    return history.Ground(
        users={user.email: user for user in User.objects.all()},
        teams={(team.organization.name, team.name): team for team in Team.objects.select_related("organization")},
        nodes=nodes,
        devices={(device.node.name, device.index): device for device in devices},
        tariffs=prices.tariffs(DeviceModel.objects.values_list("pk", flat=True)),
    )
