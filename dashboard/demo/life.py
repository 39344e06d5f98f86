"""Keeps the demonstration alive: its people go on submitting, and sometimes cancelling, by the doors that all use."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NoReturn
from uuid import UUID

import structlog
from django.db.models import F, Sum

from dashboard.demo.history import asked
from dashboard.demo.people import Person, Team
from dashboard.demo.work import Wish
from haein.cluster.models import Device
from haein.lib.errors import Problem
from haein.placement import mig
from haein.tenants import models
from haein.tenants import scope as scopes
from haein.tenants.scope import Scope
from jobs import services
from jobs.models import Job
from jobs.spec import Spec
from jobs.states import OPEN

log = structlog.get_logger(__name__)

# What is asked for, of all that there is: below the first, people come sooner than they would; those who want more than
# one device come only where it stays below the second.
LEAST, MOST, SMALL = 0.70, 0.85, 1000
LOOK_S, AT_ONCE = 1.0, 30


def go_on(coming: Iterator[Wish], going_on: Iterable[Wish], *, speed: int) -> NoReturn:
    """Submit `going_on` at once, and what comes as it comes; `speed` simulated seconds pass in one."""
    life = Life(coming, deque(going_on), Crowd(speed))
    while True:
        life.look(time.time())
        time.sleep(LOOK_S)


@dataclass(slots=True)
class Crowd:
    """People who submit, and cancel when they have had enough. `speed` as above; moments in seconds of real time."""

    speed: int
    cancels: list[tuple[float, int, UUID, Scope]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)

    def submit(self, wish: Wish, now: float) -> None:
        scope = self._scope(wish.team, wish.person)
        try:
            job = services.submit(scope=scope, spec=Spec(**asked(wish)))
        except Problem as problem:
            log.warning("a wish was refused", name=wish.name, why=problem.message)
            return
        if wish.cancelled_after_s is not None:
            due = now + wish.cancelled_after_s / self.speed
            heapq.heappush(self.cancels, (due, next(self._numbers), job.pk, scope))

    def cancel(self, now: float) -> None:
        """What is to be cancelled by now."""
        while self.cancels and self.cancels[0][0] <= now:
            _, _, job_id, scope = heapq.heappop(self.cancels)
            job = services.get(job_id, scope=scope)
            with suppress(Problem):  # it has ended before
                services.cancel(job, scope=scope)

    def _scope(self, team: Team, person: Person) -> Scope:
        """As which the person works for the team."""
        key = person.email, team.name
        if key not in self._scopes:
            reach = scopes.of(models.User.objects.get(email=person.email))
            assert reach
            theirs = models.Team.objects.select_related("organization")
            mine = theirs.get(organization__name=team.organization, name=team.name)
            self._scopes[key] = replace(reach, team=mine, organization=mine.organization)
        return self._scopes[key]


@dataclass(slots=True)
class Life:
    """`skipped` is by how many simulated seconds people are ahead of their time."""

    coming: Iterator[Wish]
    waiting: deque[Wish]
    crowd: Crowd
    began: float = field(default_factory=time.time)
    skipped: float = 0.0
    _next: Wish | None = None

    def look(self, now: float) -> int:
        """Do what is due; returns how many jobs were submitted."""
        self.crowd.cancel(now)
        room = max(1, _room())
        load = _asked_for() / room
        submitted = 0
        while submitted < AT_ONCE and (wish := self._due(now, load)):
            size = _size(wish)
            if load + size / room <= MOST or size <= SMALL:
                self.crowd.submit(wish, now)
                load += size / room
                submitted += 1
        return submitted

    def _due(self, now: float, load: float) -> Wish | None:
        if self.waiting:
            return self.waiting.popleft()
        wish = self._next = self._next or next(self.coming)
        moment = (now - self.began) * self.crowd.speed + self.skipped
        if wish.at > moment and load >= LEAST:
            return None
        self._next = None
        self.skipped += max(0.0, wish.at - moment)
        return wish


def _room() -> int:
    """Thousandths of devices that can be used."""
    usable = Device.objects.filter(present=True, problem="", node__present=True, node__drained_at=None)
    return int(usable.aggregate(all=Sum("capacity"))["all"] or 0)


def _asked_for() -> int:
    """Thousandths of devices that all open jobs ask for; an instance counts by its compute slices."""
    rows = Job.objects.filter(state__in=[state.value for state in OPEN]).values_list("profile")
    sums = rows.annotate(all=Sum(F("gpus") * F("share") * F("workers"))).order_by()
    return sum(units * int(profile[0]) // mig.COMPUTE_SLICES if profile else units for profile, units in sums)


def _size(wish: Wish) -> float:
    return wish.shape.gpus * wish.shape.part * wish.shape.workers * 1000
