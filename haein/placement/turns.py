"""One decision pass over the queue: who may go, who goes first, where, who must yield, and what is kept for whom.

It is a function of what it is given; the same pass decides for the service, in tests and in rehearsals.

The order is: whoever room was cleared for; then jobs inside their team's guarantee; then those who borrow; then spot.
Among these the team goes first that has used least for its weight, of one team's the highest priority and, of equals,
the longest wait; every hour waited counts as a point of priority, so that nobody waits for ever.

A job that is inside a guarantee and finds no room may send away work that borrows (`reclaim`). **No two jobs can
preempt each other in turn.** Every attempt has a tier: 0 borrowed, 1 inside a guarantee, 2 inside a guarantee of the
pool that it sits in. (a) A job preempts an attempt only if the tier that it starts in is strictly above the attempt's.
(b) The tier of an attempt never falls while it lives: `guaranteed` is written at its start, and only ever promoted.
So after A has preempted B, B would have to start in a tier above that of A's attempt to preempt it, and A was above B:
B must have risen in between, which takes free room in its own team's guarantee that B did not have. A chain of
preemptions, each by the one preempted before it, therefore climbs strictly, and there are three tiers: it ends after
two steps. Sums of guarantees that were never more than there is keep even the second from happening.

A job that is allowed to start and finds no room gets its *turn*, if few have theirs: the room that will be free first,
by the limits of what runs, is kept for it. Whoever is gone by then may use that room meanwhile, nobody else, except the
owners of a guarantee: so passing it never delays it.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from haein.placement import asides, engine
from haein.placement.allowances import BORROWED, INSIDE, INSIDE_POOL, Allowances, tier_of
from haein.placement.asides import Asker, Block, Blocks
from haein.placement.clearing import Clearing
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix, Question, question_of
from haein.placement.model import WHOLE, Carving, Gang, Placement, Reason, Request, Snapshot
from haein.placement.policies import HAEIN, Policy
from haein.placement.queueing import Account, Aside, Keeping, Kept, Rules, Running, Waiting

# How many waiting jobs have room kept for them because it is their turn, and how many get their turn in one pass.
MOST_TURNS, TURNS_A_PASS = 8, 2
# How many reclaims one pass begins: each costs a search of the cluster, and the next pass is a second away.
RECLAIMS_A_PASS = 16
# A job without GPUs counts as so many thousandths of one for fair share, or a burst of them would cost nothing.
LEAST_SHARE = 50
# What restarting somebody costs at least, in seconds of what it holds.
RESTART_S = 120.0
# A turn is chosen anew when what holds its room is late by more than this.
LATE_S = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    job: Hashable
    placements: tuple[Placement, ...]
    tier: int


@dataclass(frozen=True, slots=True)
class Order:
    """An attempt is told to leave for a job."""

    attempt: Hashable
    job: Hashable


@dataclass(frozen=True, slots=True)
class Decision:
    """`refusals` has a code for every job that stays (jobs/wording.py). `keeps` are new, `dropped` jobs lost theirs.

    `promoted` are the attempts that are inside their team's guarantee from now on.
    """

    starts: tuple[Start, ...]
    orders: tuple[Order, ...]
    keeps: tuple[Kept, ...]
    dropped: frozenset[Hashable]
    refusals: Mapping[Hashable, str] = field(hash=False)
    promoted: tuple[Hashable, ...] = ()
    carvings: tuple[Carving, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a pass is shown. `used` are the teams' decayed unit-seconds, `weights` theirs in thousandths."""

    snapshot: Snapshot
    running: Sequence[Running] = ()
    waiting: Sequence[Waiting] = ()
    accounts: Mapping[Hashable, Account] = field(default_factory=dict, hash=False)
    used: Mapping[Hashable, float] = field(default_factory=dict, hash=False)
    weights: Mapping[Hashable, int] = field(default_factory=dict, hash=False)
    kept: Sequence[Kept] = ()
    asides: Sequence[Aside] = ()
    now: float = 0.0


def decide(scene: Scene, rules: Rules, policy: Policy = HAEIN, mix: Mix | None = None) -> Decision:
    """What to do now. Each job starts wholly or not at all."""
    return _Pass(scene, rules, policy, mix).decide()


def rank(job: Waiting, now: float, rules: Rules) -> tuple[float, float]:
    """The order within a team: the least first."""
    return -(job.priority + (now - job.queued) // rules.ageing_s), job.queued


def decayed(used: float, rate: float, seconds: float, half_life_s: float) -> float:
    """Use after so many seconds in which `rate` units were held: use that is x half-lives old counts 2^-x.

    The integral of the decayed use, in unit-seconds: what was there decays, what is added decays from when it is.
    """
    left: float = 2.0 ** (-seconds / half_life_s)
    return used * left + rate * half_life_s / 0.6931471805599453 * (1.0 - left)


@dataclass(slots=True)
class _Line:
    """A team's jobs in order, and which of them is next."""

    team: Hashable
    jobs: list[Waiting] = field(default_factory=list)
    at: int = 0


class _Pass:
    def __init__(self, scene: Scene, rules: Rules, policy: Policy, mix: Mix | None) -> None:
        self.scene = scene
        self.rules = rules
        self.now = scene.now
        self.cluster = Cluster(scene.snapshot, policy, mix or engine.expected(_asked(scene.waiting)))
        self.blocks = Blocks(self.cluster)
        self.allowances = Allowances(scene.accounts, scene.running, scene.snapshot, scene.now)
        self.possible = engine.Possible(scene.snapshot, policy)
        self.clearing = Clearing(scene.snapshot.nodes, self.cluster, scene.running)
        self.tiers = {each.id: tier_of(each, scene.accounts) for each in scene.running}
        self.waiting = {job.id: job for job in scene.waiting}
        self.kept: dict[Hashable, Kept] = {}
        self.turns: set[Hashable] = set()  # the teams that have one
        self.given = 0
        self.reclaims = 0
        self.starts: list[Start] = []
        self.orders: list[Order] = []
        self.told: set[Hashable] = set()
        self.keeps: list[Kept] = []
        self.dropped: set[Hashable] = set()
        self.since: dict[Hashable, float] = {}  # of what was dropped, since when it had been kept
        self.refusals: dict[Hashable, str] = {}
        self.used = self._used()
        self._questions: dict[Question, int] = {}
        self._question_of: dict[int, int] = {}
        self._never: dict[int, str] = {}
        self._full: dict[tuple[int, tuple[bool, ...]], str] = {}
        self._dead: dict[Hashable, str] = {}

    def decide(self) -> Decision:
        self._set_apart()
        kept = sorted(self.kept.values(), key=lambda kept: (kept.keeping is Keeping.TURN, kept.made))
        for each in kept:
            if each.job in self.waiting:
                self._consider_kept(self.waiting[each.job], each)
        lines = self._lines({each.job for each in kept})
        for tiers, spot in (((INSIDE, INSIDE_POOL), False), ((BORROWED,), False), ((BORROWED,), True)):
            self._round(lines, tiers, spot=spot)
        placed = [placement for start in self.starts for placement in start.placements]
        return Decision(
            tuple(self.starts),
            tuple(self.orders),
            tuple(self.keeps),
            frozenset(self.dropped),
            self.refusals,
            self.allowances.promoted,
            engine.carvings(self.scene.snapshot, placed),
        )

    # What is set apart.

    def _set_apart(self) -> None:
        nodes = self.scene.snapshot.nodes
        known = {node.id: node for node in nodes}
        for aside in self.scene.asides:
            if aside.until > self.now:
                self.blocks.add(asides.of_window(aside, nodes))
        for pool in sorted(self.allowances.guarded()):
            self.blocks.add(asides.of_pool(pool, nodes))
        leaving = {each.job for each in self.scene.running if each.ending is not None}
        requests = {each.job: each.request for each in self.scene.running}
        for kept in self.scene.kept:
            job = self.waiting.get(kept.job)
            if job is None and kept.job not in leaving:
                self.dropped.add(kept.job)
                continue
            tier = self.allowances.tier(job) if job else INSIDE_POOL
            request = job.request if job else requests[kept.job]
            block = asides.of_kept(kept, request, tier, known)
            if block is None or not self._holds(kept, request):
                self.dropped.add(kept.job)
                self.since[kept.job] = kept.made
                continue
            self._keep(kept, block, job.team if job else None)

    def _keep(self, kept: Kept, block: Block, team: Hashable) -> None:
        self.kept[kept.job] = kept
        self.blocks.add(block)
        if kept.keeping is Keeping.TURN:
            self.turns.add(team)

    def _holds(self, kept: Kept, request: Request | Gang) -> bool:
        """Whether what is on its places will have left as it was said, as far as it is in the way."""
        return self.clearing.would_fit(request, kept.places, lambda each: self._will_leave(each, kept))

    def _will_leave(self, each: Running, kept: Kept) -> bool:
        if each.job == kept.job:
            return True
        if kept.keeping is Keeping.CLEARED:
            return each.ending is not None
        return max(each.ends, self.now) <= kept.starts + LATE_S

    # The order.

    def _used(self) -> defaultdict[Hashable, float]:
        """Decayed use, and of what runs what its entry was charged and it has not used yet."""
        used = defaultdict(float, self.scene.used)
        for each in self.scene.running:
            ahead = self.rules.entry_s - (self.now - each.began)
            if ahead > 0:
                used[each.team] += max(each.units, LEAST_SHARE) * ahead
        return used

    def _key(self, team: Hashable) -> float:
        return self.used[team] / self.scene.weights.get(team, WHOLE)

    def _lines(self, considered: set[Hashable]) -> list[_Line]:
        lines: dict[Hashable, _Line] = {}
        for job in self.scene.waiting:
            if not considered or job.id not in considered:
                line = lines.get(job.team)
                if line is None:
                    line = lines[job.team] = _Line(job.team)
                line.jobs.append(job)
        for line in lines.values():
            line.jobs.sort(key=lambda job: rank(job, self.now, self.rules))
        return list(lines.values())

    def _round(self, lines: list[_Line], tiers: Sequence[int], *, spot: bool) -> None:
        heap: list[tuple[float, float, int]] = []
        for at, line in enumerate(lines):
            if line.jobs:
                heap.append((self._key(line.team), line.jobs[0].queued, at))
        heapq.heapify(heap)
        tier = self.allowances.tier
        stay: list[list[Waiting]] = [[] for _ in lines]
        while heap:
            _, queued, at = heapq.heappop(heap)
            line, stays = lines[at], stay[at]
            # Whoever finds no room does not change his team's place, so the next of the team is looked at at once.
            while line.at < len(line.jobs):
                job = line.jobs[line.at]
                line.at += 1
                if job.spot is not spot or tier(job) not in tiers:
                    stays.append(job)
                elif self._consider(job):
                    heapq.heappush(heap, (self._key(line.team), queued, at))
                    break
        for line, jobs in zip(lines, stay, strict=True):
            line.jobs, line.at = jobs, 0

    # One job.

    def _consider_kept(self, job: Waiting, kept: Kept) -> None:
        tier = self.allowances.tier(job)
        code = self.allowances.refusal(job, tier)
        reclaimed = kept.keeping is Keeping.CLEARED
        if code == "promised" and not reclaimed:
            self.allowances.pend(job)
            self.refusals[job.id] = code
        elif code:
            self._lose(job)
            self.refusals[job.id] = code
        elif not (reclaimed and self._start_at(job, kept, tier)) and not self._try(job, tier):
            reclaimed = reclaimed or (tier > BORROWED and self._reclaim(job, tier))
            self.refusals[job.id] = "reclaiming" if reclaimed else "its_turn"

    def _lose(self, job: Waiting) -> None:
        self.blocks.drop(job.id)
        self._full.clear()
        self.dropped.add(job.id)
        del self.kept[job.id]

    def _consider(self, job: Waiting) -> bool:
        question = self._question(job)
        dead = id(job.accounts), question, job.limit_s, job.never, job.spot, self.allowances.tier(job)
        code = self._dead.get(dead)
        if code is None:
            tier = self.allowances.tier(job)
            code = self._impossible(question, job) or self.allowances.refusal(job, tier)
            if not code:
                if self._try(job, tier):
                    return True
                code = self._no_room(job, question, tier)
            elif code == "promised" and self.allowances.in_time(job) and self._give_turn(job, tier):
                self.allowances.pend(job)
            if code not in ("reclaiming", "its_turn"):
                self._dead[dead] = code
        self.refusals[job.id] = code
        return False

    def _impossible(self, question: int, job: Waiting) -> str:
        if question not in self._never:
            refusal = self.possible.refusal(job.request)
            self._never[question] = _CODES[refusal.reason] if refusal else ""
        return self._never[question]

    def _try(self, job: Waiting, tier: int) -> bool:
        # First where it is in nobody's way; those above may also have what is kept for those below.
        for asker_tier in (BORROWED, tier) if tier > BORROWED else (tier,):
            mode = self.blocks.mode(self._asker(job, asker_tier))
            full = self._question(job), mode
            if full in self._full:
                continue
            self.blocks.show(mode)
            placed = self.cluster.start(job.request)
            if placed:
                self._start(job, placed, tier)
                return True
            self._full[full] = "no_capacity"
        return False

    def _start_at(self, job: Waiting, kept: Kept, tier: int) -> bool:
        """Where room was cleared for it: that is where it was said to go."""
        self._show(self._asker(job, tier))
        placed = self.cluster.start_at(job.request, kept.places)
        if placed:
            self._start(job, placed, tier)
        return bool(placed)

    def _show(self, asker: Asker) -> None:
        self.blocks.show(self.blocks.mode(asker))

    def _asker(self, job: Waiting, tier: int) -> Asker:
        ends = self.now + job.limit_s + self.rules.grace_s
        firm = job.never and self.allowances.tier(job) != INSIDE_POOL
        return Asker(job.id, job.team, ends, tier, firm)

    def _start(self, job: Waiting, placed: Sequence[Placement], tier: int) -> None:
        placed = tuple(replace(placement, request_id=job.id) for placement in placed)
        self.starts.append(Start(job.id, placed, tier))
        each = job.units // len(placed)
        self.allowances.start(job, tier, ((placement.node_id, each) for placement in placed))
        self.used[job.team] += max(job.units, LEAST_SHARE) * self.rules.entry_s
        self.refusals.pop(job.id, None)
        if job.id in self.kept:
            self._lose(job)

    def _no_room(self, job: Waiting, question: int, tier: int) -> str:
        if tier > BORROWED and self._reclaim(job, tier):
            return "reclaiming"
        if self._give_turn(job, tier):
            return "its_turn"
        mode = self.blocks.mode(self._asker(job, tier))
        known = self._full.get((question, mode), "no_capacity")
        codes = self.blocks.codes(mode)
        if known == "no_capacity" and codes:
            self.blocks.bare()
            placed = self.cluster.start(job.request)
            self.cluster.end(job.request, placed)
            # Of what is in its way that is named which says most: a window, a promise to a pool, room kept.
            known = (
                next((code for code in ("window", "promised", "kept") if code in codes), "kept") if placed else known
            )
            self._full[question, mode] = known
        return known

    # Who must yield.

    def _reclaim(self, job: Waiting, tier: int) -> bool:
        if self.reclaims >= RECLAIMS_A_PASS:
            return False
        self.reclaims += 1
        self._show(self._asker(job, tier))
        cleared = self.clearing.clear(job.request, lambda each: self._cost(each, job, tier), sum)
        if cleared is None or not cleared.leaving:
            return False
        if job.id in self.kept:
            self._lose(job)  # its turn: this is sooner
        told = [each for each in cleared.leaving if each.ending is None and each.id not in self.told]
        self.orders += [Order(each.id, job.id) for each in told]
        self.told.update(each.id for each in told)
        starts = self.now + self.rules.notice_s + self.rules.grace_s
        self._set_aside(
            job, Kept(job=job.id, keeping=Keeping.CLEARED, made=self.now, starts=starts, places=cleared.places), tier
        )
        return True

    def _cost(self, each: Running, job: Waiting, tier: int) -> float | None:
        """The GPU-seconds lost by sending it away: the youngest and smallest cost least, and spot before all others.

        Whoever saves his work when told loses the restart alone.
        """
        if each.ending is not None or each.id in self.told:
            return 0.0  # it leaves anyway; what it leaves to others is withheld
        if each.fixed or self.tiers[each.id] >= tier:
            return None
        if self.now - each.began < self.rules.min_run_s or (each.team == job.team and not each.spot):
            return None
        lost_s = 0.0 if each.saves else self.now - max(each.began, each.saved or 0.0)
        lost = max(each.units, LEAST_SHARE) * (lost_s + RESTART_S)
        return lost / 1000 if each.spot else lost

    # Whose turn it is.

    def _give_turn(self, job: Waiting, tier: int) -> bool:
        if len(self.turns) >= MOST_TURNS or job.team in self.turns or self.given >= TURNS_A_PASS or job.spot:
            return False
        self.given += 1
        # It may begin late, so nothing that is kept for others is lent to it.
        self._show(replace(self._asker(job, tier), ends=math.inf))
        cleared = self.clearing.clear(job.request, self._leaves, max)
        if cleared is None:
            return False
        starts = max(cleared.weight, self.now)
        self._set_aside(
            job,
            Kept(
                job=job.id,
                keeping=Keeping.TURN,
                made=self.since.get(job.id, self.now),
                starts=starts,
                places=cleared.places,
            ),
            tier,
        )
        self.turns.add(job.team)
        return True

    def _leaves(self, each: Running) -> float | None:
        return min(each.ends, each.ending + self.rules.grace_s) if each.ending is not None else each.ends

    def _set_aside(self, job: Waiting, kept: Kept, tier: int) -> None:
        known = {node.id: node for node in self.scene.snapshot.nodes}
        block = asides.of_kept(kept, job.request, tier, known)
        assert block is not None  # the places are of nodes and devices in service
        self.blocks.add(block)
        self.kept[job.id] = kept
        self.keeps.append(kept)
        self._full.clear()

    def _question(self, job: Waiting) -> int:
        known = self._question_of.get(id(job.request))
        if known is None:
            question = question_of(job.request)
            known = self._question_of[id(job.request)] = self._questions.setdefault(question, len(self._questions))
        return known


_CODES = {
    Reason.NO_CAPACITY_NOW: "no_capacity",
    Reason.OUT_OF_SERVICE: "out_of_service",
    Reason.NEVER_FITS: "never_fits",
}


def _asked(waiting: Iterable[Waiting]) -> list[Request | Gang]:
    """Each request once: what is shared by many jobs is one."""
    return list({id(job.request): job.request for job in waiting}.values())
