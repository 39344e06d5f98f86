"""When each waiting job starts: the queue rehearsed forward once, on what runs and how long such work has run before.

It is a rehearsal and no replay: jobs leave when they probably end, room kept for one is used by nobody else meanwhile,
and nobody new arrives. What is wrong with that, and how wrong, is for `calibration` to learn.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from haein.placement import asides, engine
from haein.placement.allowances import NOTHING
from haein.placement.asides import Block
from haein.placement.clearing import Clearing
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix, Question, question_of
from haein.placement.model import WHOLE, Gang, Placement, Request
from haein.placement.policies import HAEIN, Policy
from haein.placement.queueing import Account, Rules, Running, Waiting
from haein.placement.turns import LEAST_SHARE, MOST_TURNS, Scene, rank

# Of a team with fewer runs behind it, everybody's are asked; of fewer in all, a run is as long as any.
LEAST_RUNS = 20
# A month: what starts later than that is not known.
HORIZON_S = 30 * 86_400.0
# Room is looked for so many times in one rehearsal for whose turn it is: each costs a look at the whole cluster.
MOST_TURNS_GIVEN = 24
# Ends nearer to each other than this part of the time that has gone by are one.
GRAIN = 1 / 64

# Seconds that a job of the team with the limit (s) probably runs on, when it has run for so long (s).
Predicted = Callable[[Hashable, float, float], float]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until each job starts, and until a further request at the end of the queue would; None: not known.

    `order` is that in which they are looked at, all of them.
    """

    order: tuple[Hashable, ...]
    starts: Mapping[Hashable, float]
    probes: tuple[float | None, ...]


class Lengths:
    """How long work runs, as parts of its time limit, by team."""

    def __init__(self, history: Iterable[tuple[Hashable, float]]) -> None:
        """`history` has the team and the part (0 to 1) of each run that has ended by itself."""
        self._all: list[float] = []
        self._of: defaultdict[Hashable, list[float]] = defaultdict(list)
        for team, part in history:
            self._all.append(part)
            self._of[team].append(part)
        for parts in (self._all, *self._of.values()):
            parts.sort()

    def predicted(self, team: Hashable, limit_s: float, ran_s: float) -> float:
        """The median of what like runs ran on that had got so far: more than 0, and no more than the limit leaves."""
        left = max(1.0, limit_s - ran_s)
        parts = self._of.get(team, [])
        if len(parts) < LEAST_RUNS:
            parts = self._all
        if len(parts) < LEAST_RUNS:
            return max(1.0, left / 2)
        longer = bisect.bisect_right(parts, ran_s / limit_s)
        if longer == len(parts):
            return max(1.0, left / 2)
        median = parts[(longer + len(parts)) // 2]
        return min(left, max(1.0, median * limit_s - ran_s))


def rehearse(
    scene: Scene,
    rules: Rules,
    predicted: Predicted,
    probes: Sequence[Request | Gang] = (),
    policy: Policy = HAEIN,
    mix: Mix | None = None,
) -> Forecast:
    """Each waiting job's start, those that start within a month."""
    return _Rehearsal(scene, rules, predicted, probes, policy, mix).run()


def in_order(scene: Scene, rules: Rules) -> list[Waiting]:
    """Those who wait as they would start if there were room for one after another: the order of a pass."""
    inside: Counter[Hashable] = Counter()
    used = defaultdict(float, scene.used)
    for each in scene.running:
        if each.guaranteed:
            inside[each.accounts[0]] += each.units
        used[each.team] += max(each.units, LEAST_SHARE) * max(0.0, rules.entry_s - (scene.now - each.began))
    lines: dict[Hashable, list[Waiting]] = defaultdict(list)
    for job in scene.waiting:
        lines[job.team].append(job)
    rounds: tuple[dict[Hashable, list[Waiting]], ...] = ({}, {}, {})
    for team, line in lines.items():
        for job in sorted(line, key=lambda job: rank(job, scene.now, rules)):
            guaranteed = scene.accounts.get(job.accounts[0], NOTHING).guaranteed
            fits = not job.spot and inside[job.accounts[0]] + job.units <= guaranteed
            inside[job.accounts[0]] += job.units if fits else 0
            rounds[2 if job.spot else 0 if fits else 1].setdefault(team, []).append(job)
    return [job for each in rounds for job in _shared(each, used, scene.weights, rules)]


def _shared(
    lines: Mapping[Hashable, list[Waiting]],
    used: defaultdict[Hashable, float],
    weights: Mapping[Hashable, int],
    rules: Rules,
) -> Iterable[Waiting]:
    """The team that has used least for its weight goes first, and is charged for it."""
    heap = [
        (used[team] / weights.get(team, WHOLE), line[0].queued, at, 0, team)
        for at, (team, line) in enumerate(lines.items())
    ]
    heapq.heapify(heap)
    while heap:
        _, queued, order, at, team = heapq.heappop(heap)
        job = lines[team][at]
        yield job
        used[team] += max(job.units, LEAST_SHARE) * rules.entry_s
        if at + 1 < len(lines[team]):
            heapq.heappush(heap, (used[team] / weights.get(team, WHOLE), queued, order, at + 1, team))


class _Kind(NamedTuple):
    """Who is asked about together: what one of them may not do, the others may not either."""

    question: Question
    accounts: tuple[Hashable, ...]
    mode: tuple[Hashable, ...]


class _Line(NamedTuple):
    rank: int
    kind: _Kind


@dataclass(slots=True)
class _Turn:
    job: Waiting
    block: Block
    starts: float
    taken: list[tuple[int, int]] = field(default_factory=list)


class _Rehearsal:
    def __init__(
        self,
        scene: Scene,
        rules: Rules,
        predicted: Predicted,
        probes: Sequence[Request | Gang],
        policy: Policy,
        mix: Mix | None,
    ) -> None:
        self.scene, self.rules, self.predicted = scene, rules, predicted
        self.now = scene.now
        self.nodes = scene.snapshot.nodes
        requests = list({id(job.request): job.request for job in scene.waiting}.values())
        self.cluster = Cluster(scene.snapshot, policy, mix or engine.expected(requests))
        self.possible = engine.Possible(scene.snapshot, policy)
        self.caps = _Caps(scene)
        self.running: dict[Hashable, Running] = {}
        self.ends: list[tuple[float, int, Hashable]] = []
        self.counter = 0
        self.starts: dict[Hashable, float] = {}
        self.turns: dict[Hashable, _Turn] = {}
        self.given = 0
        self.waiting: dict[_Kind, list[tuple[int, Waiting]]] = {}
        self.fresh: set[_Kind] = set()
        self.windows = _Windows(scene)
        self.probes = list(probes)
        self.found: list[float | None] = [None] * len(probes)
        for each in scene.running:
            self._run(each, self._end_of(each))

    def run(self) -> Forecast:
        kept = {kept.job: kept for kept in self.scene.kept}
        order = in_order(self.scene, self.rules)
        for at, job in enumerate(order):
            if job.id in kept:
                block = asides.of_kept(kept[job.id], job.request, 0, {node.id: node for node in self.nodes})
                if block:
                    self._keep(job, block, self._free(block))
                    continue
            if self._possible(job.request):
                self._wait(at, job)
        self.windows.at(self.now, self.cluster)
        freed: set[Hashable] = set()
        self._look(freed)
        while (self.ends or self.turns) and (self.waiting or self.turns or None in self.found):
            if not self._move():
                break
            freed = self._end()
            freed |= self.windows.at(self.now, self.cluster)
            freed |= self._take_turns(freed)
            self._look(freed)
        starts = {job: at - self.scene.now for job, at in self.starts.items()}
        return Forecast(tuple(job.id for job in order), starts, tuple(self.found))

    def _possible(self, request: Request | Gang) -> bool:
        return self.possible.refusal(request) is None

    def _end_of(self, each: Running) -> float:
        limit = each.ends - each.began - self.rules.grace_s
        probably = self.now + self.predicted(each.team, max(1.0, limit), self.now - each.began)
        asked = [] if each.ending is None else [each.ending + self.rules.grace_s]
        return max(self.now + 1.0, min(probably, each.ends, *asked))

    def _run(self, each: Running, ends: float) -> None:
        self.running[each.id] = replace(each, ends=ends)
        self.counter += 1
        heapq.heappush(self.ends, (ends, self.counter, each.id))

    def _wait(self, at: int, job: Waiting) -> None:
        kind = _Kind(question_of(job.request), self.caps.limited(job), self.windows.mode(job))
        self.waiting.setdefault(kind, []).append((at, job))
        self.fresh.add(kind)

    def _move(self) -> bool:
        """To the next moment at which somebody goes, and the moments just after it."""
        moments = [self.ends[0][0]] if self.ends else []
        moments += [turn.starts for turn in self.turns.values()]
        grain = GRAIN * (min(moments) - self.scene.now)
        within = [moment for moment in moments if moment <= min(moments) + grain]
        self.now = max(self.now, *within)
        return self.now - self.scene.now < HORIZON_S

    def _end(self) -> set[Hashable]:
        freed: set[Hashable] = set()
        grain = GRAIN * (self.now - self.scene.now)
        while self.ends and self.ends[0][0] <= self.now + grain:
            at, _, attempt = heapq.heappop(self.ends)
            each = self.running.get(attempt)
            if each is None or each.ends != at:
                continue
            del self.running[attempt]
            self.cluster.end(each.request, each.placements)
            freed.update(placement.node_id for placement in each.placements)
            self.caps.end(each)
        return freed

    # Who starts.

    def _look(self, freed: set[Hashable]) -> None:
        """Start whoever fits, by rank; see replay.queue for why only freed nodes are asked about what is not fresh."""
        heads = [_Line(self.waiting[kind][0][0], kind) for kind in (self.waiting if freed else self.fresh)]
        heapq.heapify(heads)
        first: list[Waiting] = []
        capped: set[_Kind] = set()  # there may be room when they are allowed to have it
        full: set[tuple[Question, tuple[Hashable, ...]]] = set()
        while heads:
            kind = heads[0].kind
            job = self.waiting[kind][0][1]
            if not self.caps.allow(job):
                capped.add(kind)
                heapq.heappop(heads)
                continue
            asked = kind.question, kind.mode
            if asked not in full and not (self._hopeful(kind, freed) and self._start(job)):
                full.add(asked)  # room only shrinks until the next look
            if asked in full:
                first.append(job)
                heapq.heappop(heads)
                continue
            self._next(kind)
            if kind in self.waiting:
                heapq.heapreplace(heads, _Line(self.waiting[kind][0][0], kind))
            else:
                heapq.heappop(heads)
        self.fresh = capped
        self._give_turns(first)
        self._probe()

    def _hopeful(self, kind: _Kind, freed: set[Hashable]) -> bool:
        if kind in self.fresh or kind.mode:
            return True
        return any(self.cluster.has_room(node, kind.question[0]) for node in freed)

    def _next(self, kind: _Kind) -> None:
        line = self.waiting[kind]
        del line[0]
        if not line:
            del self.waiting[kind]

    def _start(self, job: Waiting) -> bool:
        self.windows.face(job, self.now, self.cluster)
        placed = self.cluster.start(job.request)
        if placed:
            self._started(job, placed)
        return bool(placed)

    def _started(self, job: Waiting, placed: tuple[Placement, ...]) -> None:
        self.starts[job.id] = self.now
        inside = self.caps.start(job)
        lasts = min(self.predicted(job.team, job.limit_s, 0.0), job.limit_s)
        running = Running(
            id=("started", job.id),
            job=job.id,
            request=job.request,
            placements=placed,
            units=job.units,
            team=job.team,
            accounts=job.accounts,
            began=self.now,
            ends=self.now + lasts,
            guaranteed=inside,
            fixed=job.never,
            spot=job.spot,
        )
        self._run(running, self.now + lasts)

    def _probe(self) -> None:
        for at, request in enumerate(self.probes):
            if self.found[at] is None:
                placed = self.cluster.start(request)
                if placed:
                    self.cluster.end(request, placed)
                    self.found[at] = self.now - self.scene.now

    # Whose turn it is.

    def _give_turns(self, first: Sequence[Waiting]) -> None:
        """Keep room for the first of those who found none, as the pass does."""
        clearing: Clearing | None = None
        teams = {turn.job.team for turn in self.turns.values()}
        for job in first:
            if len(self.turns) >= MOST_TURNS or self.given >= MOST_TURNS_GIVEN:
                return
            if job.team in teams or job.spot:
                continue
            self.given += 1
            clearing = clearing or Clearing(self.nodes, self.cluster, self.running.values())
            cleared = clearing.clear(job.request, partial(self._leaves, job, self.caps.inside(job)), max)
            if cleared is None:
                continue
            teams.add(job.team)
            starts = max(cleared.weight, self.now + 1.0)
            for each in cleared.leaving:
                if each.ends > starts:
                    self._run(each, starts)
            each_request = job.request.each if isinstance(job.request, Gang) else job.request
            parts = [(node, devices, each_request.cpus, each_request.memory_mb) for node, devices in cleared.places]
            self._leave_line(job)
            self._keep(job, Block(parts, starts, "kept", job=job.id), starts)

    def _leaves(self, job: Waiting, inside: bool, each: Running) -> float:
        """When the place is free: at its end, or when its team's guarantee sends away who borrows it."""
        if not inside or each.guaranteed or each.fixed or each.team == job.team:
            return each.ends
        young = each.began + self.rules.min_run_s
        return min(each.ends, max(self.now, young) + self.rules.notice_s + self.rules.grace_s)

    def _leave_line(self, job: Waiting) -> None:
        for kind, line in self.waiting.items():
            if line[0][1].id == job.id:
                self._next(kind)
                return

    def _free(self, block: Block) -> float:
        """When those who are on its devices have probably left."""
        devices = {device for _, devices, _, _ in block.parts for device in devices}
        return max(
            (
                each.ends
                for each in self.running.values()
                if any(grant.device_id in devices for placement in each.placements for grant in placement.grants)
            ),
            default=self.now + 1.0,
        )

    def _keep(self, job: Waiting, block: Block, starts: float) -> None:
        turn = _Turn(job, block, starts)
        turn.taken = [self.cluster.withhold(*part) for part in block.parts]
        self.turns[job.id] = turn

    def _take_turns(self, freed: set[Hashable]) -> set[Hashable]:
        """Whose moment has come starts, and who finds room before it; returns the nodes that are not kept any more."""
        given: set[Hashable] = set()
        for turn in list(self.turns.values()):
            shape = question_of(turn.job.request)[0]
            due = turn.starts <= self.now
            if not due and not any(self.cluster.has_room(name, shape) for name in freed):
                continue
            self._give_back(turn)
            placed = self.cluster.start(turn.job.request) if self.caps.allow(turn.job) else ()
            if placed:
                del self.turns[turn.job.id]
                given.update(part[0] for part in turn.block.parts)
                self._started(turn.job, placed)
            elif due and not self.ends:
                del self.turns[turn.job.id]
            else:
                turn.taken = [self.cluster.withhold(*part) for part in turn.block.parts]
                if due:  # somebody is late, so it is looked at again when the next one goes
                    turn.starts = max(self.ends[0][0], self.now)
        return given

    def _give_back(self, turn: _Turn) -> None:
        for (node, devices, _, _), taken in zip(turn.block.parts, turn.taken, strict=True):
            self.cluster.give_back(node, devices, taken)


class _Caps:
    """What accounts hold and may hold, roughly: the month's hours count for who is over them now."""

    def __init__(self, scene: Scene) -> None:
        self._accounts = scene.accounts
        self._units: Counter[Hashable] = Counter()
        self._jobs: Counter[Hashable] = Counter()
        self._inside: Counter[Hashable] = Counter()
        for each in scene.running:
            self._count(each.accounts, each.units, 1)
            if each.guaranteed:
                self._inside[each.accounts[0]] += each.units

    def limited(self, job: Waiting) -> tuple[Hashable, ...]:
        """Those of its accounts that may keep it from starting, or let it start before others."""
        return tuple(name for name in job.accounts if _limits(self._accounts.get(name)))

    def allow(self, job: Waiting) -> bool:
        for name in job.accounts:
            account = self._accounts.get(name)
            if account is None:
                continue
            if account.most is not None and self._units[name] + job.units > account.most:
                return False
            if account.most_jobs is not None and self._jobs[name] >= account.most_jobs:
                return False
            if account.left is not None and job.units * job.limit_s > account.left:
                return False
        return True

    def inside(self, job: Waiting) -> bool:
        guaranteed = self._accounts.get(job.accounts[0], NOTHING).guaranteed
        return not job.spot and self._inside[job.accounts[0]] + job.units <= guaranteed

    def start(self, job: Waiting) -> bool:
        """Whether it is inside its team's guarantee."""
        inside = self.inside(job)
        self._count(job.accounts, job.units, 1)
        if inside:
            self._inside[job.accounts[0]] += job.units
        return inside

    def end(self, each: Running) -> None:
        self._count(each.accounts, -each.units, -1)
        if each.guaranteed:
            self._inside[each.accounts[0]] -= each.units

    def _count(self, accounts: Sequence[Hashable], units: int, jobs: int) -> None:
        for name in accounts:
            self._units[name] += units
            self._jobs[name] += jobs


def _limits(account: Account | None) -> bool:
    return account is not None and (
        account.most is not None or account.most_jobs is not None or account.left is not None or account.guaranteed > 0
    )


class _Windows:
    """What is set apart: shown to each asker as far as he may use it."""

    def __init__(self, scene: Scene) -> None:
        self._windows = [(aside, asides.of_window(aside, scene.snapshot.nodes)) for aside in scene.asides]
        self._taken: dict[int, list[tuple[int, int]]] = {}
        self._over: set[int] = set()

    def mode(self, job: Waiting) -> tuple[Hashable, ...]:
        """What of a job decides which windows keep it out."""
        return (job.team, job.limit_s) if self._windows else ()

    def at(self, now: float, cluster: Cluster) -> set[Hashable]:
        """Give back what is over by now: the nodes of it."""
        freed: set[Hashable] = set()
        for number, (aside, block) in enumerate(self._windows):
            if aside.until <= now and number not in self._over:
                self._over.add(number)
                self._turn(number, block, cluster, on=False)
                freed.update(part[0] for part in block.parts)
        return freed

    def face(self, job: Waiting, now: float, cluster: Cluster) -> None:
        """Show the cluster as the job may use it."""
        for number, (aside, block) in enumerate(self._windows):
            own = aside.team is not None and aside.team == job.team
            out = number not in self._over and not own and now + job.limit_s > aside.at
            self._turn(number, block, cluster, on=out)

    def _turn(self, number: int, block: Block, cluster: Cluster, *, on: bool) -> None:
        if on and number not in self._taken:
            self._taken[number] = [cluster.withhold(*part) for part in block.parts]
        elif not on and number in self._taken:
            for (node, devices, _, _), taken in zip(block.parts, self._taken.pop(number), strict=True):
                cluster.give_back(node, devices, taken)
