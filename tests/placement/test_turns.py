"""The pass over the queue, run for hours on paper: what it promises holds whatever arrives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haein.placement import turns
from haein.placement.model import DeviceState, Gang, Grant, NodeState, Placement, Request, Snapshot
from haein.placement.queueing import Account, Aside, Keeping, Rules, Running, Waiting, units_of
from haein.placement.turns import Decision, Scene
from haein.placement.weeks import Job, Week

RULES = Rules(min_run_s=120.0, notice_s=60.0, grace_s=10.0)
TEAMS = ("a", "b", "c")


def cluster(nodes: int = 2, devices: int = 4, pools: Sequence[str] = ()) -> Snapshot:
    return Snapshot(
        tuple(
            NodeState(
                id=at,
                name=f"n{at}",
                cpus=64_000,
                memory_mb=512_000,
                free_cpus=64_000,
                free_memory_mb=512_000,
                usable=True,
                pool=pools[at] if pools else "",
                devices=tuple(
                    DeviceState(
                        id=(at, index),
                        node=f"n{at}",
                        model="B200",
                        free=1000,
                        usable=True,
                        memory_mb=180_000,
                        free_memory_mb=180_000,
                    )
                    for index in range(devices)
                ),
            )
            for at in range(nodes)
        )
    )


def ask(gpus: int = 1, share: int = 1000, pool: str = "") -> Request:
    return Request(id=None, gpus=gpus, share=share, cpus=1000 * max(1, gpus), memory_mb=1024, pool=pool)


def job(id: Hashable, team: str, at: float, gpus: int = 1, work: float = 600, limit: int = 0, **more: object) -> Job:
    return Job(
        id=id,
        team=team,
        request=ask(gpus),
        submitted=at,
        work_s=work,
        limit_s=limit or int(work),
        accounts=(("team", team),),
        **more,  # type: ignore[arg-type]
    )


def account(team: str, guaranteed: int = 0, **more: object) -> Account:
    return Account(id=("team", team), guaranteed=guaranteed, **more)  # type: ignore[arg-type]


def accounts(*given: Account) -> dict[Hashable, Account]:
    known: dict[Hashable, Account] = {("team", team): account(team) for team in TEAMS}
    return known | {each.id: each for each in given}


class Watcher:
    """Holds every pass to the books, and keeps what was promised and who had to leave for whom."""

    def __init__(self) -> None:
        self.promised: dict[Hashable, float] = {}
        self.yielded: list[tuple[Hashable, Hashable]] = []
        self.seconds: Counter[Hashable] = Counter()
        self._before: tuple[float, dict[Hashable, int]] = 0.0, {}

    def __call__(self, scene: Scene, decision: Decision) -> None:
        held: Counter[Hashable] = Counter()
        jobs: Counter[Hashable] = Counter()
        inside: Counter[Hashable] = Counter()
        promoted = set(decision.promoted)
        for each in scene.running:
            jobs.update(each.accounts)
            for name in each.accounts:
                held[name] += each.units
            if each.guaranteed or each.id in promoted:
                inside[each.accounts[0]] += each.units
        waiting = {each.id: each for each in scene.waiting}
        for start in decision.starts:
            each_waiting = waiting[start.job]
            jobs.update(each_waiting.accounts)
            for name in each_waiting.accounts:
                held[name] += each_waiting.units
            if start.tier:
                inside[each_waiting.accounts[0]] += each_waiting.units
        for name, most in scene.accounts.items():
            assert most.most is None or held[name] <= most.most
            assert most.most_jobs is None or jobs[name] <= most.most_jobs
            assert inside[name] <= most.guaranteed
        tiers = {each.id: each for each in scene.running}
        for order in decision.orders:
            assert not tiers[order.attempt].fixed
            assert scene.now - tiers[order.attempt].began >= RULES.min_run_s
            self.yielded.append((order.job, tiers[order.attempt].job))
        for kept in decision.keeps:
            if kept.keeping is Keeping.TURN:
                self.promised.setdefault(kept.job, kept.starts)
        since, rates = self._before
        for team, units in rates.items():
            self.seconds[team] += int(units * (scene.now - since))
        totals: Counter[Hashable] = Counter()
        for each in scene.running:
            totals[each.team] += each.units
        for start in decision.starts:
            totals[waiting[start.job].team] += waiting[start.job].units
        self._before = scene.now, dict(totals)


arriving = st.lists(
    st.tuples(
        st.sampled_from(TEAMS),
        st.integers(0, 3600),
        st.sampled_from([1, 1, 2, 4]),
        st.integers(60, 3000),
        st.integers(0, 2000),
        st.integers(-5, 5),
        st.sampled_from(["", "", "", "never", "spot"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def made(drawn: list[tuple[str, int, int, int, int, int, str, bool]]) -> list[Job]:
    return [
        job(
            number,
            team,
            at,
            gpus,
            work,
            work + more,
            priority=priority,
            never=kind == "never",
            spot=kind == "spot",
            checkpoints=saves,
        )
        for number, (team, at, gpus, work, more, priority, kind, saves) in enumerate(drawn)
    ]


@settings(max_examples=150, deadline=None)
@given(arriving, st.integers(0, 4), st.integers(0, 4))
def test_whatever_arrives_the_books_hold_and_everybody_gets_through(
    drawn: list[tuple[str, int, int, int, int, int, str, bool]], first: int, second: int
) -> None:
    """As many GPUs as the largest job asks for are promised to nobody, so whoever may not be sent away starts too."""
    share = accounts(account("a", 1000 * min(first, 2)), account("b", 1000 * min(second, 2)))
    watcher = Watcher()
    outcome = Week(cluster(), RULES, share, step_s=10.0).run(made(drawn), watcher)
    assert len(outcome.ended) == len(drawn)


@settings(max_examples=150, deadline=None)
@given(arriving)
def test_a_turn_is_kept_whatever_comes_later(drawn: list[tuple[str, int, int, int, int, int, str, bool]]) -> None:
    """Where nobody has a guarantee: whose turn it is starts by the moment first said, whoever passes him."""
    watcher = Watcher()
    step = 10.0
    outcome = Week(cluster(), RULES, accounts(), step_s=step).run(made(drawn), watcher)
    for name, promised in watcher.promised.items():
        assert outcome.started[name] <= promised + 2 * step


@settings(max_examples=150, deadline=None)
@given(arriving, st.integers(1, 4), st.integers(1, 4))
def test_nobody_sends_away_who_sent_him_away(
    drawn: list[tuple[str, int, int, int, int, int, str, bool]], first: int, second: int
) -> None:
    share = accounts(account("a", 1000 * first), account("b", 1000 * second))
    watcher = Watcher()
    jobs = [each for each in made(drawn) if not each.never]
    if not jobs:
        return
    Week(cluster(), RULES, share, step_s=10.0, most_preemptions=1000).run(jobs, watcher)
    teams = {each.id: each.team for each in jobs}
    for by, who in watcher.yielded:
        assert (who, by) not in watcher.yielded
        assert teams[by] != teams[who] or next(each.spot for each in jobs if each.id == who)


@settings(max_examples=150, deadline=None)
@given(arriving, st.integers(1, 8))
def test_a_guarantee_is_there_within_one_grace_period(
    drawn: list[tuple[str, int, int, int, int, int, str, bool]], guaranteed: int
) -> None:
    """Whatever others have borrowed, the owner's jobs of one GPU, as many as he is guaranteed, start in time.

    In time is: the least time that anybody may run, then the notice and the grace, and the steps the pass is late by.
    """
    share = accounts(account("c", 1000 * guaranteed))
    others = [each for each in made(drawn) if each.team != "c" and not each.never]
    mine = [job(("mine", at), "c", 1800.0, 1, 3000) for at in range(guaranteed)]
    step = 10.0
    outcome = Week(cluster(), RULES, share, step_s=step).run([*others, *mine], Watcher())
    in_time = RULES.min_run_s + RULES.notice_s + RULES.grace_s + 60.0 + 3 * step
    for each in mine:
        assert outcome.waits[each.id] <= in_time


def test_shares_converge_to_the_weights() -> None:
    """Both always have more to do than there is room: use goes three to one, whoever was first."""
    backlog = [job((team, at), team, 0.0, 1, 900) for at in range(400) for team in ("a", "b")]
    watcher = Watcher()
    weights: dict[Hashable, int] = {"a": 3000, "b": 1000}
    horizon = 24 * 3600.0
    seen: dict[str, int] = {}

    def watch(scene: Scene, decision: Decision) -> None:
        watcher(scene, decision)
        if scene.now <= horizon and all(any(job.team == team for job in scene.waiting) for team in ("a", "b")):
            seen.update({team: watcher.seconds[team] for team in ("a", "b")})

    Week(cluster(), RULES, accounts(), weights, step_s=30.0).run(backlog, watch)
    assert seen["a"] / seen["b"] == pytest.approx(3.0, rel=0.15)


def test_a_burst_does_not_get_ahead_by_coming_all_at_once() -> None:
    """Both have used nothing; one sends a hundred jobs a moment before the other sends four: each has half at once."""
    burst = [job(("burst", at), "a", 0.0, 1, 3000) for at in range(100)]
    few = [job(("few", at), "b", 0.0, 1, 3000) for at in range(4)]
    starts: list[Hashable] = []

    def watch(scene: Scene, decision: Decision) -> None:
        if scene.now == 0.0:
            starts.extend(start.job[0] for start in decision.starts)  # type: ignore[index]

    Week(cluster(), RULES, accounts(), step_s=10.0).run([*burst, *few], watch)
    assert Counter(starts) == {"burst": 4, "few": 4}


def test_a_large_job_is_not_passed_for_ever() -> None:
    """Small jobs of another team never stop coming, and each fits where the large one does not."""
    stream = [job(("small", at), "a", 60.0 * at, 1, 1200, priority=100) for at in range(400)]
    large = job("large", "b", 600.0, 4, 600, priority=-100)
    outcome = Week(cluster(), RULES, accounts(), step_s=10.0).run([*stream, large], Watcher())
    assert outcome.waits["large"] <= 1200 + 60


def test_a_low_priority_gives_way_but_not_for_ever() -> None:
    """In one team alone: every hour waited is a point."""
    stream = [job(("high", at), "a", 100.0 * at, 4, 380, priority=3) for at in range(400)]
    low = job("low", "a", 0.0, 4, 300)
    outcome = Week(cluster(1), Rules(ageing_s=3600.0), accounts(), step_s=10.0).run([*stream, low], Watcher())
    assert outcome.waits["low"] < 5 * 3600


def running(id: str, team: str, device: int, began: float, ends: float, **more: object) -> Running:
    grant = Grant((0, device), 1000, 180_000)
    return Running(
        id=id,
        job=f"job-{id}",
        request=ask(),
        placements=(Placement(id, 0, (grant,)),),
        units=1000,
        team=team,
        accounts=(("team", team),),
        began=began,
        ends=ends,
        guaranteed=False,
        **more,  # type: ignore[arg-type]
    )


def full(*runs: Running) -> Snapshot:
    """One node of four, with these on it."""
    snapshot = cluster(1)
    held = {grant.device_id for run in runs for placement in run.placements for grant in placement.grants}
    (node,) = snapshot.nodes
    devices = tuple(
        DeviceState(
            id=device.id,
            node=device.node,
            model=device.model,
            usable=True,
            memory_mb=180_000,
            free=0 if device.id in held else 1000,
            free_memory_mb=0 if device.id in held else 180_000,
        )
        for device in node.devices
    )
    return Snapshot(
        (
            NodeState(
                id=0,
                name="n0",
                cpus=64_000,
                memory_mb=512_000,
                free_cpus=64_000 - 1000 * len(runs),
                free_memory_mb=512_000 - 1024 * len(runs),
                usable=True,
                devices=devices,
            ),
        )
    )


def wait(id: str, team: str, gpus: int = 1, limit: int = 600, **more: object) -> Waiting:
    request = ask(gpus)
    return Waiting(
        id=id,
        request=request,
        units=units_of(request),
        team=team,
        accounts=(("team", team),),
        priority=0,
        queued=0.0,
        limit_s=limit,
        **more,  # type: ignore[arg-type]
    )


def decided(runs: Sequence[Running], waiting: Sequence[Waiting], *given: Account, **more: object) -> Decision:
    scene = Scene(
        snapshot=full(*runs),
        running=runs,
        waiting=waiting,
        accounts=accounts(*given),
        now=1000.0,
        **more,  # type: ignore[arg-type]
    )
    return turns.decide(scene, RULES)


def test_the_youngest_and_cheapest_borrowers_leave_and_spot_before_them() -> None:
    runs = [
        running("old", "b", 0, 0.0, 9000.0),
        running("young", "b", 1, 800.0, 9000.0),
        running("spot", "b", 2, 10.0, 9000.0, spot=True),
        running("new", "b", 3, 950.0, 9000.0),
    ]
    one = decided(runs, [wait("mine", "a")], account("a", 2000))
    assert [order.attempt for order in one.orders] == ["spot"]
    two = decided(runs, [wait("mine", "a", 2)], account("a", 2000))
    assert {order.attempt for order in two.orders} == {"spot", "young"}  # "new" runs for less than anybody may
    assert two.refusals == {"mine": "reclaiming"}


def test_who_saved_his_work_just_now_is_cheaper_than_who_is_younger() -> None:
    runs = [
        running("saved", "b", 0, 0.0, 9000.0, saved=990.0),
        running("young", "b", 1, 800.0, 9000.0),
        *(running(f"rest{at}", "b", at, 0.0, 9000.0) for at in (2, 3)),
    ]
    decision = decided(runs, [wait("mine", "a")], account("a", 1000))
    assert [order.attempt for order in decision.orders] == ["saved"]


def test_who_may_not_be_sent_away_starts_only_where_nobody_can_want_it_back() -> None:
    runs = [running("one", "b", 0, 0.0, 9000.0, fixed=True)]
    mine = [wait("x", "c", never=True), wait("y", "c", never=True)]
    decision = decided(runs, mine, account("a", 2000))
    assert [start.job for start in decision.starts] == ["x"]
    assert decision.refusals == {"y": "promised"}


def test_what_is_not_lent_stays_free() -> None:
    decision = decided([], [wait(f"j{at}", "b") for at in range(4)], account("a", 3000, lends=False))
    assert len(decision.starts) == 1
    assert set(decision.refusals.values()) == {"not_lent"}


def test_limits_say_which_of_them_it_was() -> None:
    waiting = [wait("most", "a", 3), wait("jobs", "b"), wait("hours", "c", limit=7200)]
    given = (
        account("a", 0, most=2000),
        account("b", most_jobs=0),
        account("c", left=1000 * 3600, month_began=0.0, month_ends=1e9),
    )
    decision = decided([], waiting, *given)
    assert decision.refusals == {"most": "over_most", "jobs": "over_jobs", "hours": "over_hours"}
    shorter = decided([], [wait("hours", "c", limit=3600)], *given)
    assert [start.job for start in shorter.starts] == ["hours"]


def test_before_a_window_only_what_ends_in_time_is_started_there() -> None:
    window = Aside(id="w", at=2000.0, until=9000.0, team="b", nodes=frozenset({0}))
    waiting = [wait("long", "a", limit=3600), wait("short", "a", limit=600), wait("owner", "b", limit=3600)]
    decision = decided([], waiting, asides=[window])
    assert {start.job for start in decision.starts} == {"short", "owner"}
    assert decision.refusals == {"long": "window"}


def test_a_small_job_passes_only_if_it_is_gone_in_time() -> None:
    runs = [running(f"r{at}", "c", at, 0.0, 2000.0) for at in range(2)]
    waiting = [wait("large", "a", 4, limit=600), wait("brief", "b", limit=900), wait("long", "b", limit=5000)]
    decision = decided(runs, waiting)
    assert [start.job for start in decision.starts] == ["brief"]
    assert [(kept.job, kept.starts) for kept in decision.keeps] == [("large", 2000.0)]
    assert decision.refusals["long"] == "kept"


def test_a_pool_owner_sends_away_even_who_is_inside_a_guarantee_for_anywhere() -> None:
    inside = Running(
        id="inside",
        job="j",
        request=ask(),
        placements=(Placement("inside", 0, (Grant((0, 0), 1000, 180_000),)),),
        units=1000,
        team="b",
        accounts=(("team", "b"),),
        began=0.0,
        ends=9000.0,
        guaranteed=True,
    )
    device = DeviceState(id=(0, 0), node="n0", model="B200", free=0, usable=True, memory_mb=180_000, free_memory_mb=0)
    held = Snapshot(
        (
            NodeState(
                id=0,
                name="n0",
                cpus=64_000,
                memory_mb=512_000,
                free_cpus=63_000,
                free_memory_mb=510_976,
                usable=True,
                pool="h",
                devices=(device,),
            ),
        )
    )
    request = ask(pool="h")
    mine = Waiting(
        id="mine",
        request=request,
        units=1000,
        team="a",
        accounts=(("pool", "a"),),
        priority=0,
        queued=0.0,
        limit_s=600,
    )
    known: dict[Hashable, Account] = {
        ("team", "b"): account("b", 1000),
        ("pool", "a"): Account(id=("pool", "a"), pool="h", guaranteed=1000),
    }
    decision = turns.decide(Scene(snapshot=held, running=[inside], waiting=[mine], accounts=known, now=1000.0), RULES)
    assert [order.attempt for order in decision.orders] == ["inside"]
    back = turns.decide(
        Scene(
            snapshot=held,
            running=[inside],
            waiting=[wait("other", "c")],
            accounts=accounts(account("b", 1000), account("c", 1000)),
            now=1000.0,
        ),
        RULES,
    )
    assert back.orders == ()


def test_a_gang_clears_the_nodes_that_cost_least() -> None:
    snapshot = cluster(3, 2)
    runs = []
    nodes = []
    for node in snapshot.nodes:
        for device in node.devices:
            began = 900.0 - 300.0 * node.id  # type: ignore[operator]
            grant = Grant(device.id, 1000, 180_000)
            runs.append(
                Running(
                    id=device.id,
                    job=("job", device.id),
                    request=ask(),
                    placements=(Placement(device.id, node.id, (grant,)),),
                    units=1000,
                    team="b",
                    accounts=(("team", "b"),),
                    began=began - 500,
                    ends=9000.0,
                    guaranteed=False,
                )
            )
        nodes.append(
            NodeState(
                id=node.id,
                name=node.name,
                cpus=64_000,
                memory_mb=512_000,
                free_cpus=62_000,
                free_memory_mb=509_952,
                usable=True,
                devices=tuple(
                    DeviceState(
                        id=d.id, node=d.node, model=d.model, free=0, usable=True, memory_mb=180_000, free_memory_mb=0
                    )
                    for d in node.devices
                ),
            )
        )
    gang = Gang(each=ask(2), members=2)
    mine = Waiting(
        id="gang",
        request=gang,
        units=units_of(gang),
        team="a",
        accounts=(("team", "a"),),
        priority=0,
        queued=0.0,
        limit_s=600,
    )
    decision = turns.decide(
        Scene(
            snapshot=Snapshot(tuple(nodes)),
            running=runs,
            waiting=[mine],
            accounts=accounts(account("a", 4000)),
            now=1000.0,
        ),
        RULES,
    )
    assert {order.attempt[0] for order in decision.orders} == {0, 1}  # type: ignore[index]
    (kept,) = decision.keeps
    assert sorted(node_id for node_id, _ in kept.places) == [0, 1]  # type: ignore[type-var]
