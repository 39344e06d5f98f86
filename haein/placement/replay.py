"""Runs a trace against a cluster under a policy: filling it up, or queueing for it."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from haein.placement import weights
from haein.placement.cluster import Cluster
from haein.placement.curves import Curve, Recorder
from haein.placement.mix import Mix, Question, Shape, question_of, shape_of
from haein.placement.model import WHOLE, Gang, Placement, Snapshot
from haein.placement.policies import FIRST_FIT, Policy
from haein.placement.rehearsal import Watch
from haein.placement.traces import Job

ASKED_PERCENT = 130
MARKS = (90, 100, 110)

Rank = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Filled:
    """GPUs allocated, in percent of the cluster's, when as many percent of them had been asked for."""

    allocated_percent: dict[int, float]
    decisions_per_s: float


@dataclass(frozen=True, slots=True)
class Queued:
    """How a queue went, from the first submit of a job that could run to the last end.

    Waits and completions are seconds from submit to start and to end, over all jobs that ran; `refused` never fit on
    the empty cluster. `utilization` is GPU time held over GPU time there, from 0 to 1.

    `stranded` is a mean over time, in GPUs. At a moment when somebody waits for GPUs, whoever fits has been started, so
    no free GPU can serve anyone who waits; the free ones are stranded, but no more of them than all who wait ask for.
    When nobody waits for GPUs, none is.

    `gpus` are the devices in service by model.
    `charged` and `there` are seconds of thousandths of devices by model: what the jobs would be billed for
    (`weights`), and all that there was. The curve's columns are held GPUs, stranded GPUs, and
    jobs waiting.
    """

    jobs: int
    refused: int
    mean_completion_s: float
    mean_wait_s: float
    median_wait_s: float
    p95_wait_s: int
    makespan_s: int
    utilization: float
    stranded: float
    gpus: Mapping[str, int]
    charged: Mapping[str, int]
    there: Mapping[str, int]
    curve: Curve
    decisions_per_s: float


def mix_of(jobs: Sequence[Job]) -> Mix:
    weights: Counter[Shape] = Counter()
    for job in jobs:
        if isinstance(job.request, Gang):
            weights[shape_of(job.request.each)] += job.request.members
        else:
            weights[shape_of(job.request)] += 1
    return Mix(weights)


def arrivals(jobs: Sequence[Job], capacity: int, percent: int, seed: int) -> Iterator[Job]:
    """The jobs in the seed's order, then random ones of them again, until so much of the capacity was asked for.

    The protocol of Weng et al., USENIX ATC '23, section 6.
    """
    rng = random.Random(seed)
    order = list(jobs)
    rng.shuffle(order)
    asked = at = 0
    while 100 * asked < percent * capacity:
        job = order[at] if at < len(order) else rng.choice(order)
        at += 1
        asked += job.units
        yield job


def fill(snapshot: Snapshot, jobs: Sequence[Job], policy: Policy, seed: int, percent: int = ASKED_PERCENT) -> Filled:
    """Place arrivals one by one, remove none, drop what fits nowhere. Of equal nodes the first of the snapshot wins."""
    capacity = sum(WHOLE * len(node.devices) for node in snapshot.nodes)
    cluster = Cluster(snapshot, policy, mix_of(jobs))
    asked = given = decisions = 0
    marks = list(MARKS)
    allocated: dict[int, float] = {}
    began = time.perf_counter()
    for job in arrivals(jobs, capacity, percent, seed):
        asked += job.units
        decisions += 1
        if cluster.start(job.request):
            given += job.units
        while marks and 100 * asked >= marks[0] * capacity:
            allocated[marks.pop(0)] = 100 * given / capacity
    return Filled(allocated, decisions / (time.perf_counter() - began))


def queue(
    snapshot: Snapshot,
    jobs: Sequence[Job],
    policy: Policy,
    *,
    shortest_first: bool = False,
    mix: Mix | None = None,
    watch: Watch = lambda _part: None,
) -> Queued:
    """Let jobs arrive, wait, run for their duration and go, on a cluster that is empty at first.

    By our own rule the highest priority is looked at first, and of equals the longest wait, and whoever fits passes
    those who do not; `shortest_first` looks at the shortest first instead, which only a trace can know. Nobody is
    stopped once started. `mix` is what the policy is told to expect, by default what the jobs ask for. Raises
    ValueError for a job without times.
    """
    if any(job.submitted is None or job.duration is None for job in jobs):
        raise ValueError("jobs: queueing needs the times of every job; this trace has none.")
    ever = _Ever(Cluster(snapshot, FIRST_FIT, Mix({})))
    able = (job for job in jobs if ever.fits(job))
    coming = sorted(able, key=lambda job: (_submitted(job), str(job.request.id)))
    line = _Line(snapshot, Cluster(snapshot, policy, mix or mix_of(jobs)), _submitted(coming[0]) if coming else 0)
    at = 0
    began = time.perf_counter()
    while at < len(coming) or line.running:
        line.move_to(_submitted(coming[at]) if at < len(coming) else None)
        freed = line.end()
        arrived: list[tuple[Rank, Job]] = []
        while at < len(coming) and _submitted(coming[at]) <= line.now:
            job = coming[at]
            arrived.append(((job.duration or 0 if shortest_first else -job.priority, at), job))
            at += 1
        line.start(freed, line.arrive(arrived))
        watch((at + len(line.completions)) / (2 * len(coming)))
    return line.measured(time.perf_counter() - began, refused=len(jobs) - len(coming))


class _Line:
    """Who waits, by what they ask for and by rank, and who runs, by end."""

    def __init__(self, snapshot: Snapshot, cluster: Cluster, began: int) -> None:
        self.cluster = cluster
        self.now = began
        self.decisions = 0
        self.waiting: dict[Question, list[tuple[Rank, Job]]] = {}
        self.running: list[tuple[int, int, Job, tuple[Placement, ...]]] = []
        self.completions: list[int] = []
        self.waits: list[int] = []
        self._devices = {device.id: device for node in snapshot.nodes for device in node.devices}
        usable = [device for node in snapshot.nodes if node.usable for device in node.devices if device.usable]
        self._capacity = WHOLE * len(usable)
        self._gpus = Counter(device.model for device in usable)
        self._charged: Counter[str] = Counter()
        self._held = self._asked = self._jobs_waiting = 0
        self._recorder = Recorder(3, began)

    def move_to(self, next_submit: int | None) -> None:
        """To the next moment at which somebody comes or goes."""
        moments = [] if next_submit is None else [next_submit]
        if self.running:
            moments.append(self.running[0][0])
        self.now = min(moments)
        stranded = min(self._capacity - self._held, self._asked)
        self._recorder.hold(self.now, (self._held, stranded, self._jobs_waiting))

    def end(self) -> set[Hashable]:
        """Whoever is done goes; returns the nodes that have more room now."""
        freed: set[Hashable] = set()
        while self.running and self.running[0][0] <= self.now:
            _, _, job, placed = heapq.heappop(self.running)
            self.cluster.end(job.request, placed)
            freed.update(placement.node_id for placement in placed)
            self._held -= job.units
            self.completions.append(self.now - _submitted(job))
        return freed

    def arrive(self, jobs: list[tuple[Rank, Job]]) -> set[Question]:
        """They wait; returns what nobody had asked for who waited already."""
        fresh: set[Question] = set()
        for rank, job in jobs:
            question = question_of(job.request)
            if question not in self.waiting:
                fresh.add(question)
            heapq.heappush(self.waiting.setdefault(question, []), (rank, job))
            self._asked += job.units
            self._jobs_waiting += 1
        return fresh

    def start(self, freed: set[Hashable], fresh: set[Question]) -> None:
        """Start whoever waits and fits, by rank.

        What is not fresh had no room a moment ago, so it has some now on the nodes that were freed, or none. A shape
        that finds no room finds none later in the row, as each start only takes some.
        """
        heads = [(self.waiting[question][0][0], question) for question in (self.waiting if freed else fresh)]
        heapq.heapify(heads)
        while heads:
            rank, question = heads[0]
            like = self.waiting[question]
            job = like[0][1]
            hopeful = question in fresh or any(self.cluster.has_room(node, question[0]) for node in freed)
            if not hopeful or not self._start(rank, job):
                heapq.heappop(heads)
                continue
            heapq.heappop(like)
            self._asked -= job.units
            self._jobs_waiting -= 1
            if like:
                heapq.heapreplace(heads, (like[0][0], question))
            else:
                heapq.heappop(heads)
                del self.waiting[question]

    def _start(self, rank: Rank, job: Job) -> bool:
        self.decisions += 1
        placed = self.cluster.start(job.request)
        if not placed:
            return False
        duration = job.duration or 0
        for placement in placed:
            for grant in placement.grants:
                device = self._devices[grant.device_id]
                self._charged[device.model] += duration * weights.of_grant(grant, device.model, device.memory_mb)
        self._held += job.units
        self.waits.append(self.now - _submitted(job))
        heapq.heappush(self.running, (self.now + duration, rank[-1], job, placed))
        return True

    def measured(self, spent: float, *, refused: int) -> Queued:
        held, stranded, _ = self._recorder.totals
        seconds = max(1, self._recorder.seconds)
        curve = self._recorder.curve()
        return Queued(
            jobs=len(self.completions),
            refused=refused,
            mean_completion_s=fmean(self.completions or [0]),
            mean_wait_s=fmean(self.waits or [0]),
            median_wait_s=median(self.waits or [0]),
            p95_wait_s=_nearest_rank(self.waits, 95),
            makespan_s=self._recorder.seconds,
            utilization=held / (seconds * max(1, self._capacity)),
            stranded=stranded / seconds / WHOLE,
            gpus=dict(self._gpus),
            charged=dict(self._charged),
            there={model: WHOLE * count * self._recorder.seconds for model, count in self._gpus.items()},
            curve=Curve(curve.step_s, tuple(_gpus(column) for column in curve.columns[:2]) + curve.columns[2:]),
            decisions_per_s=self.decisions / spent,
        )


def _nearest_rank(values: Sequence[int], percent: int) -> int:
    """The least value that so many percent are not above; 0 of none."""
    return sorted(values)[-(-len(values) * percent // 100) - 1] if values else 0


def _gpus(column: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(value / WHOLE for value in column)


@dataclass(frozen=True, slots=True)
class _Ever:
    """What fits on the cluster when nobody holds anything, asked once for each question."""

    empty: Cluster
    known: dict[Question, bool] = field(default_factory=dict)

    def fits(self, job: Job) -> bool:
        question = question_of(job.request)
        if question not in self.known:
            placed = self.empty.start(job.request)
            self.empty.end(job.request, placed)
            self.known[question] = bool(placed)
        return self.known[question]


def _submitted(job: Job) -> int:
    return job.submitted or 0
