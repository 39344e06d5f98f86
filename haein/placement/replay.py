"""Runs a trace against a cluster under a policy: filling it up, or queueing for it."""

from __future__ import annotations

import heapq
import random
import time
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from haein.placement.cluster import Cluster
from haein.placement.mix import Mix, Shape, shape_of
from haein.placement.model import WHOLE, Gang, Placement, Request, Snapshot
from haein.placement.policies import Policy
from haein.placement.traces import Job

ASKED_PERCENT = 130
MARKS = (90, 100, 110)


@dataclass(frozen=True, slots=True)
class Filled:
    """GPUs allocated, in percent of the cluster's, when as many percent of them had been asked for."""

    allocated_percent: dict[int, float]
    decisions_per_s: float


@dataclass(frozen=True, slots=True)
class Queued:
    """Seconds, over all jobs that ran; `refused` never fit on the empty cluster."""

    jobs: int
    refused: int
    mean_completion_s: float
    mean_wait_s: float
    makespan_s: int
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
        if place(cluster, job.request):
            given += job.units
        while marks and 100 * asked >= marks[0] * capacity:
            allocated[marks.pop(0)] = 100 * given / capacity
    return Filled(allocated, decisions / (time.perf_counter() - began))


def place(cluster: Cluster, request: Request | Gang) -> tuple[Placement, ...]:
    """Nothing where it fits nowhere."""
    if isinstance(request, Gang):
        return cluster.place_gang(request) or ()
    placement = cluster.place(request)
    return (placement,) if placement else ()


def queue(snapshot: Snapshot, jobs: Sequence[Job], policy: Policy, *, shortest_first: bool = False) -> Queued:
    """Let jobs arrive, wait, run for their duration and go.

    By our own rule the longest wait is looked at first, and whoever fits passes those who do
    not; `shortest_first` looks at the shortest first instead, which only a trace can know. Nobody is stopped once
    started. Raises ValueError for a job without times.
    """
    if any(job.submitted is None or job.duration is None for job in jobs):
        raise ValueError("jobs: queueing needs the times of every job; this trace has none.")
    coming = sorted(jobs, key=lambda job: (_submitted(job), str(job.request.id)))
    cluster = Cluster(snapshot, policy, mix_of(jobs))
    line = _Line(cluster)
    at = 0
    began = time.perf_counter()
    while at < len(coming) or line.running:
        ends = [line.running[0][0]] if line.running else []
        line.now = min([*ends, *([_submitted(coming[at])] if at < len(coming) else [])])
        line.end()
        while at < len(coming) and _submitted(coming[at]) <= line.now:
            job = coming[at]
            first = job.duration or 0 if shortest_first else 0
            insort(line.waiting, ((first, at), job), key=lambda each: each[0])
            at += 1
        line.start()
    spent = time.perf_counter() - began
    return Queued(
        jobs=len(line.completions),
        refused=len(line.waiting),
        mean_completion_s=sum(line.completions) / max(1, len(line.completions)),
        mean_wait_s=sum(line.waits) / max(1, len(line.waits)),
        makespan_s=line.now,
        decisions_per_s=line.decisions / spent,
    )


@dataclass(slots=True)
class _Line:
    """Who waits, by rank, and who runs, by end."""

    cluster: Cluster
    now: int = 0
    decisions: int = 0
    waiting: list[tuple[tuple[int, int], Job]] = field(default_factory=list)
    running: list[tuple[int, int, Job, tuple[Placement, ...]]] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)

    def end(self) -> None:
        while self.running and self.running[0][0] <= self.now:
            _, _, job, placed = heapq.heappop(self.running)
            each = job.request.each if isinstance(job.request, Gang) else job.request
            for placement in placed:
                self.cluster.finish(each, placement)
            self.completions.append(self.now - _submitted(job))

    def start(self) -> None:
        still = []
        refused: set[tuple[Shape, int]] = set()  # shapes that had no room a moment ago have none now
        for rank, job in self.waiting:
            members = job.request.members if isinstance(job.request, Gang) else 0
            shape = shape_of(job.request.each if isinstance(job.request, Gang) else job.request), members
            placed: tuple[Placement, ...] = ()
            if shape not in refused:
                self.decisions += 1
                placed = place(self.cluster, job.request)
            if placed:
                self.waits.append(self.now - _submitted(job))
                heapq.heappush(self.running, (self.now + (job.duration or 0), rank[-1], job, placed))
            else:
                refused.add(shape)
                still.append((rank, job))
        self.waiting = still


def _submitted(job: Job) -> int:
    return job.submitted or 0
