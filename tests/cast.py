"""The cast of every story here, the cluster they work on, and the short ways to submit a job and to see it through.

Alice owns the organization Acme and is an admin of its team; Bob is a member of that team, Vera only looks on.
Charlie owns another organization and must see none of it. Oda runs the cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, TypeVar

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import connection
from django.test import Client

from billing import prices
from haein.cluster import inventory
from haein.cluster.backends.base import DeviceFact, NodeFact, Phase
from haein.cluster.registry import backend
from haein.lib import clock
from haein.tenants import scope as scopes
from haein.tenants import services as tenants
from haein.tenants import tokens
from haein.tenants.models import Organization, OrganizationMember, Team, TeamMember, Token, User
from haein.tenants.scope import Scope
from jobs import failures, services, tasks
from jobs.models import Attempt, Job, Pulse
from jobs.spec import Spec

PASSWORD = "a long enough password"
LOGIN = "allauth.account.auth_backends.AuthenticationBackend"

Seen = TypeVar("Seen")


def until(look: Callable[[], Seen], what: str = "", seconds: float = 30) -> Seen:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.01)
    return seen


def together(work: Callable[[int], Seen], times: int) -> list[Seen]:
    """The same work in threads that begin at one instant, each on a database connection of its own."""
    gate, answers, failures = Barrier(times), list[Any]([None] * times), list[Exception]()

    def one(number: int) -> None:
        try:
            gate.wait(20)
            answers[number] = work(number)
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [Thread(target=one, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    return answers


@dataclass(frozen=True)
class Person:
    """Somebody of the cast."""

    user: User

    @property
    def scope(self) -> Scope:
        found = scopes.of(self.user)
        assert found is not None
        return found

    @property
    def team(self) -> Team:
        return self.scope.team

    @property
    def client(self) -> Client:
        """A browser in which the person is signed in."""
        client = Client()
        client.force_login(self.user, backend=LOGIN)
        return client


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Organizations are as many as a story has, also where this machine could not keep their jobs apart.

    tests/tenants/test_room_for_organizations.py is about that.
    """
    monkeypatch.setattr(tenants, "_gates", [])


@pytest.fixture(autouse=True)
def _quick(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # settings: the fixture of pytest-django
    """A password is hashed in no time, a job that is asked to end has a second for it, and one that failed is tried
    again at once; nothing else differs.

    What the process counts (tries to sign in, for one) begins anew.
    """
    cache.clear()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.HAEIN_GRACE_SECONDS = 1
    monkeypatch.setattr(failures, "FIRST_REST_S", 0.0)


def person(name: str, **fields: Any) -> User:
    made: User = get_user_model().objects.create_user(
        f"{name.lower()}@{name.lower()}.example", PASSWORD, name=name, **fields
    )
    return made


@pytest.fixture
def acme(db: None) -> Organization:
    return tenants.create_organization(by=person("Alice"), name="Acme", team="Vision")


@pytest.fixture
def alice(acme: Organization) -> Person:
    return Person(User.objects.get(name="Alice"))


def _joins(acme: Organization, name: str, role: str) -> Person:
    user = person(name)
    OrganizationMember.objects.create(organization=acme, user=user)
    TeamMember.objects.create(team=acme.teams.get(), user=user, role=role)
    return Person(user)


@pytest.fixture
def bob(acme: Organization) -> Person:
    return _joins(acme, "Bob", TeamMember.Role.MEMBER)


@pytest.fixture
def vera(acme: Organization) -> Person:
    return _joins(acme, "Vera", TeamMember.Role.VIEWER)


@pytest.fixture
def charlie(db: None) -> Person:
    user = person("Charlie")
    tenants.create_organization(by=user, name="Chaos")
    return Person(user)


@pytest.fixture
def oda(db: None) -> Person:
    user = person("Oda", is_operator=True)
    tenants.create_organization(by=user, name="Operations")
    return Person(user)


@pytest.fixture
def cluster(db: None) -> None:
    """This machine, as the local backend reports it, with prices."""
    inventory.refresh(backend().inventory(), now=clock.now())
    prices.fill_gaps()


def node_fact(name: str = "node1", *, devices: int = 8, cpus: int = 64_000, memory_mb: int = 512_000) -> NodeFact:
    gpus = tuple(DeviceFact(n, f"GPU-{name}-{n}", "B200", 183_359, emulated=True) for n in range(devices))
    return NodeFact(name, cpus, memory_mb, emulated=True, devices=gpus)


@pytest.fixture
def big(db: None) -> None:
    """A cluster on paper for whoever looks at decisions only: one node of eight devices and 64 cores."""
    inventory.refresh([node_fact()], now=clock.now())
    prices.fill_gaps()


SPEC = Spec(name="train", command="true", cpus=100, memory_mb=256, time_limit_s=120)


@pytest.fixture
def submit() -> Callable[..., Job]:
    """submit(alice, command=..., gpus=...) as a page does it."""

    def made(by: Person, **asked: Any) -> Job:
        known = {name: asked.pop(name) for name in ("upload", "cloned_from") if name in asked}
        return services.submit(scope=by.scope, spec=replace(SPEC, **asked), **known)

    return made


@pytest.fixture
def drive(cluster: None) -> Iterator[Callable[..., Any]]:
    """drive(look): ticks, on the real backend, until look() is true. What is left running at the end is ended."""

    def driven(look: Callable[[], Seen], seconds: float = 30) -> Seen:
        def ticked() -> Seen:
            tasks.reconcile()
            assert not list(Pulse.objects.exclude(problem="").values_list("problem"))
            return look()

        return until(ticked, seconds=seconds)

    yield driven
    ids = list(Attempt.objects.filter(state__in=["starting", "running"]).values_list("pk", flat=True))
    backend().stop(ids)
    until(lambda: all(sight.phase is not Phase.RUNNING for sight in backend().observe(ids).values()))


@pytest.fixture
def finish(drive: Callable[..., Any]) -> Callable[[Job], Job]:
    """Sees a job to its end."""

    def finished(job: Job) -> Job:
        def ended() -> bool:
            job.refresh_from_db()
            return not job.is_open

        drive(ended)
        return job

    return finished


def records(attempt: Attempt, name: str) -> dict[str, str]:
    """What the runner itself wrote down of an attempt."""
    text = (Path(settings.HAEIN_VAR) / "attempts" / str(attempt.pk) / name).read_text()
    return dict(item.split("=", 1) for item in text.split("\0") if item)


class Program:
    """`Program(alice)`: what a script of Alice's would do with her token."""

    def __init__(self, person: Person, *scopes: str) -> None:
        self.token, self.text = tokens.create(
            by=person.user, name="script", scopes=scopes or Token.Scope.values, days=1
        )
        self.client = Client()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer; `path` is below /api/v1, or whole."""
        path = path if path.startswith("/") else f"/api/v1/{path}"
        headers = {"Authorization": f"Bearer {self.text}", **headers}
        data, kind = (json.dumps(body), "application/json") if body is not None else ("", "application/json")
        return self.client.generic(method, path, data, content_type=kind, headers=headers)

    def get(self, path: str, **headers: str) -> Any:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.ask("POST", path, body, **headers)


def fields_of(answer: Any) -> set[str]:
    """The fields that a problem document names."""
    assert answer.status_code == 422, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    return {error["field"] for error in answer.json()["errors"]}


ASKED = {"name": "train", "command": "true", "cpus": 0.1, "memory_mb": 256, "time_limit_s": 120}


@pytest.fixture
def alices(alice: Person) -> Program:
    return Program(alice)


@pytest.fixture
def submitted(big: None, alices: Program) -> Callable[..., dict[str, Any]]:
    def made(**asked: Any) -> dict[str, Any]:
        answer = alices.post("jobs", {**ASKED, **asked})
        assert answer.status_code == 201, answer.content
        job: dict[str, Any] = answer.json()
        return job

    return made
