"""Runs the queue on paper by the pass itself (turns.decide): jobs arrive, start, yield, come back and end.

What a real cluster does in a second it does here at once: a job runs from the moment it is placed. Time goes on in
steps of `step_s`, at the end of which the pass looks at what has happened; steps in which nothing can change are left
out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

from haein.placement import turns
from haein.placement.mix import Mix
from haein.placement.model import WHOLE, DeviceState, Gang, Grant, Instance, Placement, Request, Snapshot
from haein.placement.policies import HAEIN, Policy
from haein.placement.queueing import Account, Aside, Kept, Rules, Running, Waiting, units_of
from haein.placement.turns import Decision, Scene, decayed

# Told of each pass: what it was shown and what it decided.
Watch = Callable[[Scene, Decision], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What arrives: at `submitted`, with `work_s` seconds of work in it, which it loses when it is preempted unless it
    `checkpoints`."""

    id: Hashable
    team: Hashable
    request: Request | Gang
    submitted: float
    work_s: float
    limit_s: int
    priority: int = 0
    accounts: tuple[Hashable, ...] = ()
    never: bool = False
    spot: bool = False
    checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `started` are first starts and `ended` ends by job, in seconds; `useful` is the part of all GPU time
    from the first submit to the last that went into work that was not lost, from 0 to 1."""

    started: Mapping[Hashable, float]
    ended: Mapping[Hashable, float]
    waits: Mapping[Hashable, float]
    useful: float
    preemptions: int

    @property
    def wait_p50_s(self) -> float:
        return median(self.waits.values()) if self.waits else 0.0

    @property
    def wait_mean_s(self) -> float:
        return fmean(self.waits.values()) if self.waits else 0.0


@dataclass(slots=True)
class _Run:
    job: Job
    running: Running
    done_at: float
    began: float


@dataclass(slots=True)
class _Wait:
    job: Job
    waiting: Waiting
    left_s: float


@dataclass(slots=True)
class Week:
    """A queue and a cluster that is empty at first."""

    snapshot: Snapshot
    rules: Rules
    accounts: Mapping[Hashable, Account] = field(default_factory=dict)
    weights: Mapping[Hashable, int] = field(default_factory=dict)
    asides: Sequence[Aside] = ()
    step_s: float = 1.0
    most_preemptions: int = 3
    policy: Policy = HAEIN
    mix: Mix | None = None

    def run(self, jobs: Sequence[Job], watch: Watch = lambda _scene, _decision: None) -> Outcome:
        """All of them, to the end of the last. Raises ValueError when some can never start."""
        return _Course(self, jobs, watch).run()


class _Course:
    def __init__(self, week: Week, jobs: Sequence[Job], watch: Watch) -> None:
        self.week = week
        self.watch = watch
        self.coming = sorted(jobs, key=lambda job: (job.submitted, str(job.id)), reverse=True)
        self.now = self.coming[-1].submitted if jobs else 0.0
        self.first, self.last = self.now, self.coming[0].submitted if jobs else 0.0
        self.nodes = _Nodes(week.snapshot)
        self.waiting: dict[Hashable, _Wait] = {}
        self.runs: dict[Hashable, _Run] = {}
        self.ends: list[tuple[float, int, Hashable]] = []
        self.kept: dict[Hashable, Kept] = {}
        self.used: dict[Hashable, tuple[float, float, float]] = {}  # by team: use, rate, as of
        self.times: dict[Hashable, int] = {}
        self.started: dict[Hashable, float] = {}
        self.ended: dict[Hashable, float] = {}
        self.waits: dict[Hashable, float] = {}
        self.requests: dict[Request | Gang, Request | Gang] = {}
        self.useful = 0.0
        self.attempts = 0

    def run(self) -> Outcome:
        idle = 0
        while self.coming or self.waiting or self.runs:
            self._arrive()
            self._leave()
            before = len(self.waiting)
            if self.waiting or self.kept:
                self._pass()
            idle = idle + 1 if not self.runs and not self.coming and len(self.waiting) == before else 0
            if idle > 1000:
                raise ValueError(f"jobs: {len(self.waiting)} of them can never start.")
            self._on()
        span = max(1.0, self.last - self.first)
        capacity = sum(WHOLE * len(node.devices) for node in self.week.snapshot.nodes)
        return Outcome(self.started, self.ended, self.waits, self.useful / (span * capacity), sum(self.times.values()))

    def _on(self) -> None:
        """To the next step in which something happens, or may be decided anew."""
        moments = [self.coming[-1].submitted] if self.coming else []
        moments += [self.ends[0][0]] if self.ends else []
        soon = min(moments, default=self.now)
        if self.waiting:
            # Somebody becomes old enough to be preempted, a window begins, a turn is late: look every so often.
            soon = min(soon, self.now + max(60.0, self.week.step_s)) if moments else self.now + 60.0
        steps = max(1, -int(-(soon - self.now) // self.week.step_s))
        self.now += steps * self.week.step_s

    def _arrive(self) -> None:
        while self.coming and self.coming[-1].submitted <= self.now:
            job = self.coming.pop()
            self._wait(job, job.work_s, job.submitted)

    def _wait(self, job: Job, left_s: float, queued: float) -> None:
        never = job.never or self.times.get(job.id, 0) >= self.week.most_preemptions
        request = self.requests.setdefault(replace_id(job.request), job.request)
        waiting = Waiting(
            id=job.id,
            request=request,
            units=units_of(request),
            team=job.team,
            accounts=job.accounts,
            priority=job.priority,
            queued=queued,
            limit_s=job.limit_s,
            never=never,
            spot=job.spot,
        )
        self.waiting[job.id] = _Wait(job, waiting, left_s)

    def _leave(self) -> None:
        while self.ends and self.ends[0][0] <= self.now:
            at, attempt, job_id = heapq.heappop(self.ends)
            run = self.runs.get(job_id)
            if run is None or run.running.id != attempt:
                continue
            ending = run.running.ending
            gone = run.done_at if ending is None else min(run.done_at, ending + self.week.rules.grace_s)
            if gone > at:
                continue  # it was told to leave after this was noted, or the other way round
            del self.runs[job_id]
            self.nodes.end(run.running)
            self._hold(run.job.team, -run.running.units, at)
            if run.done_at <= gone:
                self._finish(run, at)
            else:
                self._come_back(run, at)

    def _finish(self, run: _Run, at: float) -> None:
        self.useful += run.running.units * self._within(run.began, at)
        self.ended[run.job.id] = at

    def _come_back(self, run: _Run, at: float) -> None:
        job = run.job
        self.times[job.id] = self.times.get(job.id, 0) + 1
        done = at - run.began if job.checkpoints else 0.0
        self.useful += run.running.units * (self._within(run.began, at) if job.checkpoints else 0.0)
        self._wait(job, run.done_at - run.began - done, job.submitted)

    def _within(self, began: float, ended: float) -> float:
        """Seconds of it between the first submit and the last: what comes after would only measure the last jobs."""
        return max(0.0, min(ended, self.last) - max(began, self.first))

    def _hold(self, team: Hashable, units: int, at: float) -> None:
        used, rate, since = self.used.get(team, (0.0, 0.0, at))
        self.used[team] = decayed(used, rate, max(0.0, at - since), self.week.rules.half_life_s), rate + units, at

    def _pass(self) -> None:
        half_life = self.week.rules.half_life_s
        scene = Scene(
            snapshot=self.nodes.snapshot(),
            running=[run.running for run in self.runs.values()],
            waiting=[wait.waiting for wait in self.waiting.values()],
            accounts=self.week.accounts,
            used={
                team: decayed(used, rate, max(0.0, self.now - at), half_life)
                for team, (used, rate, at) in self.used.items()
            },
            weights=self.week.weights,
            kept=tuple(self.kept.values()),
            asides=self.week.asides,
            now=self.now,
        )
        decision = turns.decide(scene, self.week.rules, self.week.policy, self.week.mix)
        self.watch(scene, decision)
        self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        by_attempt = {run.running.id: run for run in self.runs.values()}
        for attempt in decision.promoted:
            run = by_attempt[attempt]
            run.running = replace(run.running, guaranteed=True)
        for start in decision.starts:
            self._start(start.job, start.placements, inside=start.tier > 0)
        started = {start.job for start in decision.starts}
        for job in decision.dropped | started:
            self.kept.pop(job, None)
            for run in self.runs.values():
                if run.running.yields_to == job and (run.running.ending or 0.0) > self.now:
                    run.running = replace(run.running, ending=None, yields_to=None)
                    self._note(run, run.done_at)
        for order in decision.orders:
            run = by_attempt[order.attempt]
            ending = self.now + self.week.rules.notice_s
            run.running = replace(run.running, ending=ending, yields_to=order.job)
            self._note(run, min(run.done_at, ending + self.week.rules.grace_s))
        self.kept |= {kept.job: kept for kept in decision.keeps if kept.job not in started}

    def _start(self, job_id: Hashable, placements: tuple[Placement, ...], *, inside: bool) -> None:
        wait = self.waiting.pop(job_id)
        job = wait.job
        self.attempts += 1
        self.started.setdefault(job_id, self.now)
        self.waits.setdefault(job_id, self.now - job.submitted)
        lasts = min(wait.left_s, job.limit_s)
        running = Running(
            id=self.attempts,
            job=job_id,
            request=wait.waiting.request,
            placements=placements,
            units=wait.waiting.units,
            team=job.team,
            accounts=job.accounts,
            began=self.now,
            ends=self.now + job.limit_s + self.week.rules.grace_s,
            guaranteed=inside,
            fixed=wait.waiting.never,
            spot=job.spot,
            saves=job.checkpoints,
        )
        self.runs[job_id] = run = _Run(job, running, self.now + lasts, self.now)
        self.nodes.start(running)
        self._hold(job.team, running.units, self.now)
        self._note(run, run.done_at)

    def _note(self, run: _Run, at: float) -> None:
        assert isinstance(run.running.id, int)
        heapq.heappush(self.ends, (at, run.running.id, run.job.id))


def replace_id(request: Request | Gang) -> Request | Gang:
    """The request without its id: equal for all that ask for the same."""
    if isinstance(request, Gang):
        return replace(request, each=replace(request.each, id=None))
    return replace(request, id=None)


class _Nodes:
    """The cluster's state: a node is made anew when somebody comes or goes."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._nodes = {node.id: node for node in snapshot.nodes}

    def snapshot(self) -> Snapshot:
        return Snapshot(tuple(self._nodes.values()))

    def start(self, running: Running) -> None:
        self._move(running, 1)

    def end(self, running: Running) -> None:
        self._move(running, -1)

    def _move(self, running: Running, sign: int) -> None:
        each = running.request.each if isinstance(running.request, Gang) else running.request
        for placement in running.placements:
            node = self._nodes[placement.node_id]
            grants = {grant.device_id: grant for grant in placement.grants}
            self._nodes[placement.node_id] = replace(
                node,
                free_cpus=node.free_cpus - sign * each.cpus,
                free_memory_mb=node.free_memory_mb - sign * each.memory_mb,
                devices=tuple(
                    _device(device, grants[device.id], sign) if device.id in grants else device
                    for device in node.devices
                ),
            )


def _device(device: DeviceState, grant: Grant, sign: int) -> DeviceState:
    if not grant.profile:
        return replace(
            device, free=device.free - sign * grant.units, free_memory_mb=device.free_memory_mb - sign * grant.memory
        )
    instance = Instance(grant.profile, grant.start)
    slices = [*device.slices, instance] if sign > 0 else [each for each in device.slices if each != instance]
    if not slices:
        return device.emptied(usable=device.usable)
    return device.carved(slices)
