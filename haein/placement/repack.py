"""Which running jobs to move so that one that waits finds room, what that loses and what it gains.

Only jobs that save their work are moved, and only where the room gained is worth more than the work lost: a proposal,
which a person approves. The search is the lightest clearing that is found (clearing.py) whose leavers all have room
elsewhere; it is not proven to be the least there is, which would be a bin packing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from haein.placement import asides, engine
from haein.placement.allowances import BORROWED, INSIDE_POOL, Allowances, tier_of
from haein.placement.asides import Asker, Block, Blocks
from haein.placement.clearing import Cleared, Clearing
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix, Question, question_of
from haein.placement.model import WHOLE, Gang, Request
from haein.placement.policies import HAEIN, Policy
from haein.placement.queueing import Keeping, Kept, Places, Rules, Running, Waiting
from haein.placement.turns import LEAST_SHARE, RESTART_S, Scene, rank

# The room gained has to be worth so many times what is lost: the first is known by limits alone, which are generous.
WORTH = 2
# So many different wishes are looked at, and for each so many ways.
MOST_LOOKED, MOST_WAYS = 12, 12


@dataclass(frozen=True, slots=True)
class Move:
    """A running attempt goes from where it is to `places`. `lost` are the unit-seconds of work that it does twice."""

    running: Running
    places: Places
    lost: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """After the moves the job that waits has room at `places`. `lost` and `gained` are unit-seconds.

    `gained` is what the job would wait longer without, if all that runs takes as long as its limits allow.
    """

    job: Waiting
    places: Places
    moves: tuple[Move, ...]
    lost: float
    gained: float


def lost_by(running: Running, now: float) -> float:
    """Unit-seconds: the work since it was last saved, and the restart, which costs turns.RESTART_S of what it holds."""
    return max(running.units, LEAST_SHARE) * (now - max(running.began, running.saved or 0.0) + RESTART_S)


def propose(
    scene: Scene,
    rules: Rules,
    movable: frozenset[Hashable],
    spared: frozenset[Hashable] = frozenset(),
    policy: Policy = HAEIN,
    mix: Mix | None = None,
) -> Proposal | None:
    """The first job of the queue, but for the `spared`, for which a repack is worth it.

    `movable` are the attempts that save their work and come back.
    """
    return _Search(scene, rules, movable, policy, mix).propose(spared)


def holds(scene: Scene, rules: Rules, job: Hashable, places: Places, moves: Mapping[Hashable, Places]) -> bool:
    """Whether the moves (places by attempt) can still be made as they were proposed, and the job then has room."""
    search = _Search(scene, rules, frozenset(moves), HAEIN, None)
    waiting = next((each for each in scene.waiting if each.id == job), None)
    leaving = [each for each in scene.running if each.id in moves and search.may_move(each)]
    if waiting is None or len(leaving) < len(moves) or search.allowances.refusal(waiting, search.tier(waiting)):
        return False
    stage = search.stage(waiting, leaving)
    if not stage.keep(waiting.id, waiting.request, places):
        return False
    if not all(stage.keep(each.job, each.request, moves[each.id]) for each in leaving):
        return False
    askers = [(search.asker(waiting), waiting.request, places)]
    askers += [(search.asker_of(each), each.request, moves[each.id]) for each in leaving]
    return all(stage.start(asker, request, where) for asker, request, where in askers)


class _Search:
    """One moment, asked what could be moved."""

    def __init__(
        self, scene: Scene, rules: Rules, movable: frozenset[Hashable], policy: Policy, mix: Mix | None
    ) -> None:
        self.scene = scene
        self.rules = rules
        self.policy = policy
        self.mix = mix or engine.expected([job.request for job in scene.waiting])
        self.allowances = Allowances(scene.accounts, scene.running, scene.snapshot, scene.now)
        self._movable = movable
        # When those who are told now are gone at the latest.
        self._ready = scene.now + rules.notice_s + rules.grace_s

    def propose(self, spared: frozenset[Hashable]) -> Proposal | None:
        spared |= {kept.job for kept in self.scene.kept if kept.keeping is Keeping.CLEARED}
        looked: set[tuple[Question, int, int, bool, Hashable]] = set()
        for job in sorted(self.scene.waiting, key=self._rank):
            tier = self.allowances.tier(job)
            wish = question_of(job.request), tier, job.limit_s, job.never, job.team
            if job.id in spared or wish in looked or not job.units or self.allowances.refusal(job, tier):
                continue
            looked.add(wish)
            found = self._for(job)
            if found or len(looked) >= MOST_LOOKED:
                return found
        return None

    def tier(self, job: Waiting) -> int:
        return self.allowances.tier(job)

    def asker(self, job: Waiting) -> Asker:
        tier = self.tier(job)
        ends = self._ready + job.limit_s + self.rules.grace_s
        return Asker(job.id, job.team, ends, tier, job.never and tier != INSIDE_POOL)

    def asker_of(self, running: Running) -> Asker:
        """One that is moved has its whole time limit again."""
        ends = self._ready + (running.ends - running.began)
        return Asker(running.job, running.team, ends, tier_of(running, self.scene.accounts), firm=False)

    def may_move(self, running: Running) -> bool:
        settled = self.scene.now - running.began >= self.rules.min_run_s
        return running.id in self._movable and settled and running.ending is None and not running.fixed

    def stage(self, job: Waiting, leaving: Iterable[Running]) -> _Stage:
        return _Stage(self, job, leaving)

    def _rank(self, job: Waiting) -> tuple[int, bool, float, tuple[float, float]]:
        """As the pass takes them: by what they are guaranteed, then the team with the least use for its weight."""
        used = self.scene.used.get(job.team, 0.0) / self.scene.weights.get(job.team, WHOLE)
        return -self.tier(job), job.spot, used, rank(job, self.scene.now, self.rules)

    def _for(self, job: Waiting) -> Proposal | None:
        stage = self.stage(job, ())
        stage.show(self.asker(job))
        if stage.cluster.start(job.request):
            return None  # the next pass starts it
        clearing = Clearing(self.scene.snapshot.nodes, stage.cluster, self.scene.running)
        otherwise = clearing.clear(job.request, self._leaves, max)
        gained = job.units * (otherwise.weight - self._ready) if otherwise else 0.0
        stuck = self._stuck(stage)
        stage.show(self.asker(job))
        for _ in range(MOST_WAYS):
            cleared = clearing.clear(job.request, lambda each: None if each.id in stuck else self._lost(each), sum)
            if cleared is None or not cleared.leaving:
                return None
            lost = sum(lost_by(each, self.scene.now) for each in cleared.leaving)
            if gained <= WORTH * lost:
                return None
            moves = self._moved(job, cleared, stuck)
            if moves:
                return Proposal(job, cleared.places, moves, lost, gained)
        return None

    def _stuck(self, stage: _Stage) -> set[Hashable]:
        """Those who have nowhere to go as it is now: of a full cluster all, who then need not be tried one by one."""
        room: dict[tuple[Question, tuple[bool, ...]], bool] = {}
        stuck = set()
        for each in self.scene.running:
            if not self.may_move(each):
                continue
            mode = stage.blocks.mode(self.asker_of(each))
            key = question_of(each.request), mode
            if key not in room:
                stage.blocks.show(mode)
                placed = stage.cluster.start(each.request)
                stage.cluster.end(each.request, placed)
                room[key] = bool(placed)
            if not room[key]:
                stuck.add(each.id)
        return stuck

    def _moved(self, job: Waiting, cleared: Cleared, stuck: set[Hashable]) -> tuple[Move, ...]:
        """Where those who leave go: the largest first. None, and it is stuck, where one of them has nowhere to go."""
        stage = self.stage(job, cleared.leaving)
        stage.keep(job.id, job.request, cleared.places)
        moves = []
        for each in sorted(cleared.leaving, key=lambda each: (-each.units, each.began)):
            stage.show(self.asker_of(each))
            placed = stage.cluster.start(each.request)
            if not placed:
                stuck.add(each.id)
                return ()
            places = tuple(
                (placement.node_id, tuple(grant.device_id for grant in placement.grants)) for placement in placed
            )
            stage.cluster.end(each.request, placed)
            stage.keep(each.job, each.request, places)
            moves.append(Move(each, places, lost_by(each, self.scene.now)))
        return tuple(moves)

    def _lost(self, each: Running) -> float | None:
        return lost_by(each, self.scene.now) if self.may_move(each) else None

    def _leaves(self, each: Running) -> float:
        """When it is gone, if it takes as long as its limit allows; one that is late is about to be."""
        ends = each.ends if each.ending is None else min(each.ends, each.ending + self.rules.grace_s)
        return max(ends, self.scene.now)


class _Stage:
    """The cluster without some of those who run, and with what is set apart: where a repack is tried out."""

    def __init__(self, search: _Search, job: Waiting, leaving: Iterable[Running]) -> None:
        scene = search.scene
        self.cluster = Cluster(scene.snapshot, search.policy, search.mix)
        self.blocks = Blocks(self.cluster)
        self._known = {node.id: node for node in scene.snapshot.nodes}
        for each in leaving:
            self.cluster.end(each.request, each.placements)
        for aside in scene.asides:
            if aside.until > scene.now:
                self.blocks.add(asides.of_window(aside, scene.snapshot.nodes))
        for pool in sorted(search.allowances.guarded()):
            self.blocks.add(asides.of_pool(pool, scene.snapshot.nodes))
        # The tier matters to whoever waits for its turn alone.
        asked = {each.job: (each.request, INSIDE_POOL) for each in scene.running}
        asked |= {each.id: (each.request, search.tier(each)) for each in scene.waiting}
        for kept in scene.kept:
            # The job's own turn is kept for it no more: the repack is sooner.
            if kept.job != job.id and kept.job in asked:
                self._add(asides.of_kept(kept, *asked[kept.job], self._known))

    def keep(self, job: Hashable, request: Request | Gang, places: Places) -> bool:
        """Let nobody else have these places; whether they are in service."""
        kept = Kept(job=job, keeping=Keeping.CLEARED, made=0.0, starts=0.0, places=places)
        return self._add(asides.of_kept(kept, request, BORROWED, self._known))

    def show(self, asker: Asker) -> None:
        self.blocks.show(self.blocks.mode(asker))

    def start(self, asker: Asker, request: Request | Gang, places: Places) -> bool:
        self.show(asker)
        return bool(self.cluster.start_at(request, places))

    def _add(self, block: Block | None) -> bool:
        if block:
            self.blocks.add(block)
        return block is not None
