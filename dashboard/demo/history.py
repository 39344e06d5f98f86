"""Writes a month that was played through in memory down as rows, as if it had been lived: jobs to bills, in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from django.db.models import Model

from billing import metering, rating
from billing.models import Usage
from dashboard.demo.month import NEARLY_S, Course, Month
from dashboard.demo.month import Attempt as Run
from dashboard.demo.people import Person, Team
from dashboard.demo.work import Wish
from haein.cluster.backends.base import Cause
from haein.cluster.models import Device, Node
from haein.lib import copying, ids
from haein.placement.model import Placement
from haein.tenants import models as tenants
from jobs import scheduling, spending, wording
from jobs.models import Allocation, Attempt, Event, Job, Worker
from jobs.states import TABLE, State
from jobs.states import Event as Kind

# How long a launch takes from the decision, and how soon before the end whatever still ran was cancelled.
LAUNCHED_S, CLEARED_S = 0.05, 600.0
ENDS = {"succeeded": Kind.SUCCEED, "failed": Kind.FAIL, "timed_out": Kind.TIME_OUT, "cancelled": Kind.CANCEL}


@dataclass(frozen=True, slots=True)
class Ground:
    """The rows that a history stands on: who by e-mail address, which team by organization and name, where by name."""

    users: Mapping[str, tenants.User]
    teams: Mapping[tuple[str, str], tenants.Team]
    nodes: Mapping[str, Node]
    devices: Mapping[Any, Device]  # (node, index)
    tariffs: Mapping[int, list[rating.Tariff]]

    def user(self, person: Person) -> tenants.User:
        return self.users[person.email]

    def team(self, team: Team) -> tenants.Team:
        return self.teams[team.organization, team.name]


def close(month: Month, *, seed: int) -> tuple[list[Course], list[Wish]]:
    """The courses as a history may tell them, all ended, and the wishes that go on: to be submitted in earnest.

    What ran at the end and was nearly done is done; the rest was cancelled by its owner in the last minutes. What
    waited is no history yet.
    """
    random = Random(f"{seed}:close")
    told, going_on = [], []
    for course in month.courses:
        if course.state:
            told.append(course)
        elif course.attempts and not course.attempts[-1].cause:
            ended = _ended(course, month.seconds, random)
            told.append(ended)
            if ended.state == "cancelled":
                left = max(1.0, course.wish.duration_s - (month.seconds - (course.attempts[-1].started_at or 0)))
                going_on.append(replace(course.wish, duration_s=left, cancelled_after_s=None))
        else:
            going_on.append(course.wish)
    return told, going_on


def _ended(course: Course, end: float, random: Random) -> Course:
    run, wish = course.attempts[-1], course.wish
    if run.started_at is None or run.started_at > end:
        run.started_at = None
    else:
        nearly = run.started_at + min(wish.duration_s, wish.time_limit_s) < end + NEARLY_S
        if nearly and not wish.exit_code and wish.cancelled_after_s is None:
            course.state, run.cause, run.exit_code = "succeeded", Cause.EXITED, 0
    if not course.state:
        course.state, run.cause = "cancelled", Cause.STOPPED
    run.ended_at = max(end - random.uniform(1, CLEARED_S), run.started_at or run.placed_at)
    course.ended_at = run.ended_at
    if course.state == "succeeded" and run.started_at is not None:
        # It ran for as long as its command says.
        course.wish = replace(wish, duration_s=run.ended_at - run.started_at)
    return course


def write(courses: Sequence[Course], ground: Ground, *, begin: datetime, seed: int) -> Mapping[str, int]:
    """Everything about the courses, in the caller's transaction; returns how many rows of each model.

    `begin` is when their seconds began.
    """
    pen = _Pen(ground, begin, Random(f"{seed}:ids"))
    for course in courses:
        pen.tell(course)
    _number(pen.workers, pen.events, pen.allocations)
    usage = list(pen.usage())
    _number(usage)
    written: dict[str, int] = {}
    tables: Sequence[Sequence[Model]] = (pen.jobs, pen.attempts, pen.workers, pen.allocations, pen.events, usage)
    for rows in tables:
        copying.write(rows)
        if rows:
            written[str(rows[0]._meta.verbose_name_plural)] = len(rows)
    spending.record(pen.attempts)
    return written


def _number(*tables: Sequence[Model]) -> None:
    """Gives rows the keys that the database would give them: others point to them before they are there."""
    for rows in tables:
        for row, key in zip(rows, copying.keys(type(rows[0]), len(rows)) if rows else (), strict=True):
            row.pk = key


class _Pen:
    """Rows as they come, those that others point to first."""

    def __init__(self, ground: Ground, begin: datetime, random: Random) -> None:
        self._ground, self._begin, self._random = ground, begin, random
        self.jobs: list[Job] = []
        self.attempts: list[Attempt] = []
        self.workers: list[Worker] = []
        self.allocations: list[Allocation] = []
        self.events: list[Event] = []

    def tell(self, course: Course) -> None:
        wish = course.wish
        job = self._job(course)
        self.jobs.append(job)
        self._event(job, wish.at, "submit", "", "queued", "submitted", actor=wish.person)
        for run in course.attempts:
            self._run(job, course, run)
        if course.state == "cancelled" and not (course.attempts and course.attempts[-1].cause is Cause.STOPPED):
            why = {"by": wish.person.name}
            self._move(job, course.ended_at, Kind.CANCEL, State.QUEUED, "cancelled_queued", why, actor=wish.person)

    def usage(self) -> Iterator[Usage]:
        for held in self.allocations:
            for line in metering.lines(held, self._ground.tariffs[held.device.model_id], until=None):
                yield metering.row(held, line)

    def _job(self, course: Course) -> Job:
        wish, last = course.wish, course.attempts[-1] if course.attempts else None
        stopped = course.state == "cancelled"
        return Job(
            id=self._id(wish.at),
            team=self._ground.team(wish.team),
            submitted_by=self._ground.user(wish.person),
            created_at=self._moment(wish.at),
            queued_at=self._moment(course.queued_at),
            started_at=self._moment(last.started_at) if last and last.started_at is not None else None,
            ended_at=self._moment(course.ended_at),
            state=course.state,
            cancel_requested_at=self._moment(course.ended_at) if stopped else None,
            attempts_made=len(course.attempts),
            failures=course.failures,
            **asked(wish),
        )

    def _run(self, job: Job, course: Course, run: Run) -> None:
        wish, first = course.wish, run.placements[0]
        assert run.cause
        attempt = Attempt(
            id=self._id(run.placed_at),
            job=job,
            number=run.number,
            node=self._ground.nodes[str(first.node_id)],
            cpus=wish.shape.cpus,
            memory_mb=wish.shape.memory_mb,
            state=Attempt.State.ENDED.value,
            placed_at=self._moment(run.placed_at),
            launched_at=self._moment(run.placed_at + LAUNCHED_S),
            started_at=self._moment(run.started_at) if run.started_at is not None else None,
            ended_at=self._moment(run.ended_at),
            cause=run.cause.value,
            exit_code=run.exit_code,
            detail=_detail(run, wish),
        )
        self.attempts.append(attempt)
        self._hold(attempt, run)
        where = {"where": scheduling.where(run.placements, self._ground.nodes, self._ground.devices)}
        self._move(job, run.placed_at, Kind.PLACE, State.QUEUED, "placed", where, run)
        if run.started_at is not None:
            runs = wording.runs(attempt.node.name, wish.shape.workers)
            self._move(job, run.started_at, Kind.RUN, State.STARTING, *runs, run)
        self._end(job, course, run, attempt)

    def _hold(self, attempt: Attempt, run: Run) -> None:
        for placement in run.placements:
            if placement.member:
                self.workers.append(Worker(attempt=attempt, rank=placement.member, node=self._node(placement)))
            for grant in placement.grants:
                device = self._ground.devices[grant.device_id]
                held = scheduling.allocation(attempt, placement, grant, device, attempt.placed_at)
                held.billable_from, held.ended_at = attempt.started_at, attempt.ended_at
                held.waived, held.metered = run.cause is Cause.LOST, True
                self.allocations.append(held)

    def _node(self, placement: Placement) -> Node:
        return self._ground.nodes[str(placement.node_id)]

    def _end(self, job: Job, course: Course, run: Run, attempt: Attempt) -> None:
        state = State.STARTING if run.started_at is None else State.RUNNING
        # What is cancelled while it is queued again had a last attempt that ended as any other.
        over = run is course.attempts[-1] and (course.state != "cancelled" or run.cause is Cause.STOPPED)
        kind = ENDS[course.state] if over else Kind.REQUEUE
        if kind is Kind.CANCEL:
            owner = course.wish.person
            self._event(job, run.ended_at, "note", state, state, "cancel_asked", {"by": owner.name}, run, owner)
        self._move(job, run.ended_at, kind, state, *_why(kind, course, run, attempt.detail), run)

    def _move(
        self,
        job: Job,
        at: float,
        kind: Kind,
        old: State,
        code: str,
        values: Mapping[str, object],
        run: Run | None = None,
        actor: Person | None = None,
    ) -> None:
        job.reason, job.reason_values = code, dict(values)
        self._event(job, at, kind, old, TABLE[kind][old], code, values, run, actor)

    def _event(
        self,
        job: Job,
        at: float,
        kind: str,
        old: str,
        new: str,
        code: str,
        values: Mapping[str, object] | None = None,
        run: Run | None = None,
        actor: Person | None = None,
    ) -> None:
        self.events.append(
            Event(
                job_id=job.pk,
                at=self._moment(at),
                kind=str(kind),
                old_state=str(old),
                new_state=str(new),
                attempt=run.number if run else None,
                reason=code,
                reason_values=dict(values or {}),
                actor_name=actor.name if actor else "",
            )
        )

    def _moment(self, seconds: float) -> datetime:
        return self._begin + timedelta(seconds=seconds)

    def _id(self, seconds: float) -> UUID:
        return ids.made(int(self._moment(seconds).timestamp() * 1000), self._random.getrandbits(80))


def _why(kind: Kind, course: Course, run: Run, detail: str) -> tuple[str, Mapping[str, object]]:
    """The code and its values, as jobs/lifecycle.py chooses them."""
    wish, lost = course.wish, run.cause is Cause.LOST
    if kind is Kind.SUCCEED:
        return "succeeded", {}
    if kind is Kind.TIME_OUT:
        return "time_limit", {"limit": str(timedelta(seconds=wish.time_limit_s))}
    if kind is Kind.CANCEL:
        return "cancelled", {"by": wish.person.name}
    if kind is Kind.FAIL:
        return ("lost_too_often", {"times": course.lost}) if lost else ("explained", {"detail": detail})
    if lost:
        return "lost", {"detail": detail}
    failures = sum(each.cause is Cause.EXITED for each in course.attempts[: run.number])
    return "requeued", {"failure": failures, "allowed": wish.retries, "detail": detail}


def asked(wish: Wish) -> dict[str, Any]:
    """What a wish asks for, by the names that a spec and a job share."""
    return {
        "name": wish.name,
        "command": wish.command,
        "environment": "python",
        **wish.shape.asked(),
        "time_limit_s": wish.time_limit_s,
        "retries": wish.retries,
        "priority": wish.priority,
        "tags": list(wish.tags),
    }


def _detail(run: Run, wish: Wish) -> str:
    """As the simulator says it."""
    if run.cause is Cause.LOST:
        return f"The node {run.node} failed (simulated)."
    if run.cause is Cause.TIME_LIMIT:
        return f"It ran into its time limit of {wish.time_limit_s} s."
    if run.cause is Cause.STOPPED:
        return "It was asked to end, and did."
    return f"The simulated command ended with exit code {run.exit_code}." if run.exit_code else ""
