"""Lets wishes come true in memory: they wait, are placed by the engine, run, are lost with their nodes, and end.

By our own queue's order (priority, then first come; whoever fits passes those who do not), with the simulator's
failures of nodes. Seconds since the beginning throughout; nothing here knows of rows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from dashboard.demo.work import DAY, DEVICES, Shape, Wish
from haein.cluster.backends.base import Cause, NodeFact
from haein.cluster.backends.simulator.failures import Failures
from haein.cluster.backends.simulator.futures import LONGEST_START_S, START_MEDIAN_S, START_SPREAD, STOPS_IN_S
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix
from haein.placement.model import WHOLE, DeviceState, Gang, Grant, NodeState, Placement, Request, Snapshot
from haein.placement.policies import HAEIN, Policy
from jobs import requests
from jobs.spec import Spec
from jobs.states import MOST_LOST

# What ran at the end of the month and would have ended within this time, ends at its end.
NEARLY_S = 1800.0


@dataclass(slots=True)
class Attempt:
    """`started_at` is None for what was stopped before its processes ran."""

    number: int
    queued_at: float
    placed_at: float
    placements: tuple[Placement, ...]
    started_at: float | None = None
    ended_at: float = math.inf
    cause: Cause | None = None
    exit_code: int | None = None
    node: str = ""  # the one that failed


@dataclass(slots=True)
class Course:
    """What became of a wish: its attempts, and the state of a job that it ended in ("" while it has not)."""

    wish: Wish
    queued_at: float
    state: str = ""
    ended_at: float = math.inf
    failures: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(attempt.cause is Cause.LOST for attempt in self.attempts)


@dataclass(frozen=True, slots=True)
class Month:
    """All courses in the order of their wishes; `held` is GPU-seconds that attempts held, `failures` those of nodes."""

    courses: Sequence[Course]
    seconds: float
    held: float
    failures: int


def snapshot(facts: Iterable[NodeFact]) -> Snapshot:
    """The cluster that a backend reports, with nobody on it; nodes are known by name, devices by (node, index)."""
    return Snapshot(
        tuple(
            NodeState(
                id=fact.name,
                name=fact.name,
                cpus=fact.cpus,
                memory_mb=fact.memory_mb,
                free_cpus=fact.cpus,
                free_memory_mb=fact.memory_mb,
                usable=True,
                devices=tuple(
                    DeviceState(
                        id=(fact.name, device.index),
                        node=fact.name,
                        model=device.model,
                        free=WHOLE,
                        usable=True,
                        memory_mb=device.memory_mb,
                        free_memory_mb=device.memory_mb,
                    )
                    for device in fact.devices
                ),
                pool=fact.pool,
                labels=frozenset(fact.labels),
                rack=fact.rack,
                pod=fact.pod,
            )
            for fact in facts
        )
    )


def run(
    wishes: Iterator[Wish],
    cluster: Snapshot,
    *,
    seed: int,
    seconds: float,
    policy: Policy = HAEIN,
    sampled: Callable[[Cluster, list[Grant]], None] | None = None,
    sample_s: float = DAY / 4,
) -> Month:
    """Until so many seconds have passed. `sampled` sees the cluster, and all that is held, every `sample_s`."""
    world = _World(cluster, seed, policy)
    coming = next(wishes)
    next_sample = sample_s
    while True:
        soon = min(coming.at, world.agenda[0][0] if world.agenda else math.inf)
        if sampled and next_sample < min(soon, seconds):
            sampled(world.cluster, world.grants())
            next_sample += sample_s
            continue
        if soon >= seconds:
            break
        world.now = soon
        if coming.at == soon:
            world.come(coming)
            coming = next(wishes)
        else:
            world.happen()
        world.place()
    world.now = seconds
    return Month(world.courses, seconds, world.held, world.failed)


# A place in the queue: priority, since when, and a number, as no two should be equal.
Rank = tuple[int, float, int]


class _World:
    def __init__(self, snapshot: Snapshot, seed: int, policy: Policy) -> None:
        self.now = 0.0
        self.cluster = Cluster(snapshot, policy, Mix({}))
        self.courses: list[Course] = []
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.held = 0.0
        self.failed = 0
        self._numbers = count()
        self._failures = Failures(seed)
        self._random = Random(f"{seed}:starts")
        # What waits, by what it asks for: where one has no room, others of its kind have none either.
        self._waiting: dict[Shape, list[tuple[Rank, Course]]] = {}
        self._refused: set[Shape] = set()
        self._on: dict[object, dict[int, Course]] = {node.id: {} for node in snapshot.nodes}
        self._requests: dict[Shape, Request | Gang] = {}
        for node in snapshot.nodes:
            self._expect_failure(node.name)

    # What happens.

    def come(self, wish: Wish) -> None:
        course = Course(wish, self.now)
        self.courses.append(course)
        self._queue(course)
        if wish.cancelled_after_s is not None:
            self._at(wish.at + wish.cancelled_after_s, lambda: self._cancel(course))

    def happen(self) -> None:
        heapq.heappop(self.agenda)[-1]()

    def grants(self) -> list[Grant]:
        """All that is held."""
        running = {course.wish.number: course for courses in self._on.values() for course in courses.values()}
        return [
            grant
            for course in running.values()
            for placement in course.attempts[-1].placements
            for grant in placement.grants
        ]

    def place(self) -> None:
        """One look at the queue."""
        heads = [(line[0][0], shape) for shape, line in self._waiting.items() if shape not in self._refused]
        heapq.heapify(heads)
        while heads:
            _, shape = heapq.heappop(heads)
            line = self._waiting[shape]
            while line and line[0][1].state:  # cancelled while it waited
                heapq.heappop(line)
            if line and (placed := self._try(shape)):
                self._start(heapq.heappop(line)[1], placed)
            elif line:
                self._refused.add(shape)
                continue
            if line:
                heapq.heappush(heads, (line[0][0], shape))
            else:
                del self._waiting[shape]

    def _try(self, shape: Shape) -> tuple[Placement, ...]:
        asked = self._requests.get(shape)
        if asked is None:
            asked = self._requests[shape] = requests.of(requests.columns(Spec("", "", **shape.asked())))
        return self.cluster.start(asked)

    def _queue(self, course: Course) -> None:
        rank = -course.wish.priority, self.now, course.wish.number
        heapq.heappush(self._waiting.setdefault(course.wish.shape, []), (rank, course))

    def _start(self, course: Course, placements: tuple[Placement, ...]) -> None:
        attempt = Attempt(len(course.attempts) + 1, course.queued_at, self.now, placements)
        course.attempts.append(attempt)
        for placement in placements:
            self._on[placement.node_id][course.wish.number] = course
        delay = min(self._random.lognormvariate(math.log(START_MEDIAN_S), START_SPREAD), LONGEST_START_S)
        attempt.started_at = self.now + delay
        if course.wish.duration_s <= course.wish.time_limit_s:
            end = attempt.started_at + course.wish.duration_s
            self._at(end, lambda: self._end(course, attempt, Cause.EXITED))
        else:
            end = attempt.started_at + course.wish.time_limit_s
            self._at(end, lambda: self._end(course, attempt, Cause.TIME_LIMIT))

    def _end(self, course: Course, attempt: Attempt, cause: Cause, node: str = "") -> None:
        if attempt.cause:
            return
        attempt.cause, attempt.ended_at, attempt.node = cause, self.now, node
        if attempt.started_at is not None and attempt.started_at > self.now:
            attempt.started_at = None
        if cause is Cause.EXITED:
            attempt.exit_code = course.wish.exit_code
        self.cluster.end(self._requests[course.wish.shape], attempt.placements)
        for placement in attempt.placements:
            del self._on[placement.node_id][course.wish.number]
        shape = course.wish.shape
        self.held += (self.now - attempt.placed_at) * shape.gpus * shape.part * shape.workers
        emptied = any(not self._on[placement.node_id] for placement in attempt.placements)
        # Whoever wants whole nodes has no more room than before, unless one of them is empty now.
        self._refused = set() if emptied else {each for each in self._refused if each.gpus == DEVICES}
        self._judge(course, attempt)

    def _judge(self, course: Course, attempt: Attempt) -> None:
        """Where the end of an attempt leads; the rules of jobs/lifecycle.py."""
        if attempt.cause is Cause.TIME_LIMIT:
            self._finish(course, "timed_out")
        elif attempt.cause is Cause.STOPPED:
            self._finish(course, "cancelled")
        elif attempt.cause is Cause.EXITED and not attempt.exit_code:
            self._finish(course, "succeeded")
        elif course.lost > MOST_LOST if attempt.cause is Cause.LOST else course.failures >= course.wish.retries:
            course.failures += attempt.cause is not Cause.LOST
            self._finish(course, "failed")
        else:
            course.failures += attempt.cause is not Cause.LOST
            course.queued_at = self.now
            self._queue(course)

    def _finish(self, course: Course, state: str) -> None:
        course.state, course.ended_at = state, self.now

    def _cancel(self, course: Course) -> None:
        running = course.attempts[-1] if course.attempts and not course.attempts[-1].cause else None
        if running:
            self._at(self.now + STOPS_IN_S, lambda: self._end(course, running, Cause.STOPPED))
        elif not course.state:
            self._finish(course, "cancelled")

    # Nodes.

    def _expect_failure(self, node: str) -> None:
        begin, end = self._failures.at_or_after(node, self.now)
        self._at(begin, lambda: self._fail(node))
        self._at(end, lambda: self._repair(node))

    def _fail(self, node: str) -> None:
        self.failed += 1
        self.cluster.set_node_usable(node, False)
        for course in list(self._on[node].values()):
            self._end(course, course.attempts[-1], Cause.LOST, node)

    def _repair(self, node: str) -> None:
        self.cluster.set_node_usable(node, True)
        self._refused.clear()
        self._expect_failure(node)

    def _at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (moment, next(self._numbers), what))
