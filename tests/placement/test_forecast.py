"""The queue rehearsed forward, and what may be promised by it."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from haein.placement import forecast
from haein.placement.calibration import CLASSES, Calibration, Seen
from haein.placement.cluster import Cluster
from haein.placement.forecast import Forecast, Lengths
from haein.placement.mix import Mix
from haein.placement.model import Gang, Request, Snapshot
from haein.placement.policies import HAEIN
from haein.placement.queueing import Account, Aside, Keeping, Kept, Rules, Running, Waiting, units_of
from haein.placement.turns import Scene
from tests.placement.worlds import ask, node

HOUR = 3600.0


def rehearsed(scene: Scene, *probes: Request | Gang) -> Forecast:
    """Everybody runs to his limit."""
    return forecast.rehearse(scene, Rules(), lambda _team, limit, ran: limit - ran, probes)


def waits(
    name: str, gpus: int, *, team: str = "a", limit_s: int = 3600, queued: float = 0.0, **more: object
) -> Waiting:
    request = more.pop("request", None) or ask(gpus)
    assert isinstance(request, Request | Gang)
    given_: dict[str, object] = {"priority": 0, "accounts": (team,), **more}
    return Waiting(
        id=name,
        request=request,
        units=units_of(request),
        team=team,
        queued=queued,
        limit_s=limit_s,
        **given_,  # type: ignore[arg-type]
    )


def busy(*nodes: str, runs: dict[str, tuple[int, float]], now: float = 0.0, **more: object) -> Scene:
    """Nodes of eight devices on which these run: how many GPUs, and until when at the latest."""
    cluster = Cluster(Snapshot(tuple(node(name, *[1000] * 8) for name in nodes)), HAEIN, Mix({}))
    running = []
    for name, (gpus, ends) in runs.items():
        placed = cluster.start(ask(gpus))
        assert placed
        running.append(
            Running(
                id=name,
                job=f"job {name}",
                request=ask(gpus),
                placements=placed,
                units=1000 * gpus,
                team="other",
                accounts=("other",),
                began=now - 600.0,
                ends=ends + Rules().grace_s,
                guaranteed=False,
            )
        )
    return Scene(snapshot=cluster.snapshot(), running=running, now=now, **more)  # type: ignore[arg-type]


def test_who_waits_starts_when_enough_has_ended() -> None:
    scene = busy(
        "n", runs={"x": (4, HOUR), "y": (4, 2 * HOUR)}, waiting=[waits("half", 4), waits("all", 8, queued=1.0)]
    )
    starts = rehearsed(scene).starts
    assert starts["half"] == HOUR
    assert starts["all"] == 2 * HOUR


def test_a_probe_is_behind_all_who_wait() -> None:
    scene = busy("n", runs={"x": (8, HOUR)}, waiting=[waits("all", 8, limit_s=7200)])
    assert rehearsed(scene, ask(1), ask(8)).probes == (3 * HOUR, 3 * HOUR)
    assert rehearsed(busy("n", runs={}), ask(1), ask(9)).probes == (0.0, None)


def test_the_team_that_used_less_goes_first() -> None:
    scene = busy("n", runs={"x": (8, HOUR)}, waiting=[waits("one", 8), waits("two", 8, team="b", queued=9.0)])
    assert rehearsed(replace(scene, used={"a": 1e9})).order == ("two", "one")
    assert rehearsed(replace(scene, used={"b": 1e9})).order == ("one", "two")


def test_who_is_inside_a_guarantee_goes_first_and_takes_it_back() -> None:
    accounts = {"b": Account(id="b", guaranteed=8000)}
    waiting = [waits("early", 8), waits("owner", 8, team="b", queued=9.0)]
    found = rehearsed(busy("n", runs={"x": (8, HOUR)}, waiting=waiting, accounts=accounts))
    assert found.order == ("owner", "early")
    assert found.starts["owner"] <= Rules().notice_s + Rules().grace_s + 1


def test_nobody_starts_before_his_account_allows_it() -> None:
    accounts = {"a": Account(id="a", most=8000)}
    waiting = [waits("first", 8), waits("second", 8, queued=1.0), waits("other", 8, team="b", queued=2.0)]
    starts = rehearsed(busy("n", "m", runs={}, waiting=waiting, accounts=accounts)).starts
    assert starts == {"first": 0.0, "other": 0.0, "second": HOUR}


def test_what_is_kept_is_had_when_those_on_it_have_left() -> None:
    scene = busy("n", "m", runs={"x": (8, HOUR), "y": (8, 3 * HOUR)})
    places = (("n", tuple(f"n/{index}" for index in range(8))),)
    kept = Kept(job="kept", keeping=Keeping.TURN, made=0.0, starts=HOUR, places=places)
    waiting = [waits("kept", 8, queued=5.0), waits("early", 8, team="b")]
    starts = rehearsed(replace(scene, waiting=waiting, kept=[kept])).starts
    assert starts == {"kept": HOUR, "early": 2 * HOUR}


def test_a_window_keeps_out_who_would_still_be_there() -> None:
    aside = Aside(id=1, at=HOUR, until=4 * HOUR, team=None, nodes=frozenset({"n"}))
    waiting = [waits("short", 8, limit_s=1800), waits("long", 8, team="b", limit_s=7200)]
    starts = rehearsed(busy("n", runs={}, waiting=waiting, asides=[aside])).starts
    assert starts["short"] == 0.0
    assert starts.get("long") in (None, 4 * HOUR)


def test_what_could_never_run_has_no_start() -> None:
    assert rehearsed(busy("n", runs={"x": (1, HOUR)}, waiting=[waits("never", 9)])).starts == {}


def test_a_gang_is_not_passed_for_ever() -> None:
    gang = Gang(each=ask(8), members=2)
    many = [waits(f"small {number}", 4, team="b", queued=float(number)) for number in range(40)]
    scene = busy("n", "m", runs={"x": (8, HOUR), "y": (8, HOUR)}, waiting=[waits("gang", 8, request=gang), *many])
    assert rehearsed(scene).starts["gang"] <= 3 * HOUR


def test_who_has_run_for_long_runs_on_as_others_did() -> None:
    lengths = Lengths([("a", part) for part in [0.1] * 50 + [0.9] * 50])
    assert lengths.predicted("a", 1000.0, 0.0) == 900.0 or lengths.predicted("a", 1000.0, 0.0) == 100.0
    assert lengths.predicted("a", 1000.0, 200.0) == 700.0
    assert 0 < lengths.predicted("a", 1000.0, 950.0) <= 50.0
    assert lengths.predicted("b", 1000.0, 200.0) == 700.0  # of another team, as everybody's


def test_without_history_a_run_takes_half_of_what_is_left() -> None:
    assert Lengths([]).predicted("a", 1000.0, 200.0) == 400.0


parts = st.floats(0.0, 1.0)
seconds = st.floats(0.0, 1e6)
seens = st.lists(st.builds(Seen, raw_s=seconds, actual_s=seconds), max_size=300)


@given(st.lists(st.tuples(st.sampled_from("ab"), parts), max_size=60), st.floats(1.0, 1e6), parts)
def test_a_prediction_is_never_beyond_the_limit(history: list[tuple[str, float]], limit: float, ran: float) -> None:
    left = Lengths(history).predicted("a", limit, ran * limit)
    assert 0 < left <= max(1.0, limit - ran * limit)


@given(seens, seconds)
def test_nine_in_ten_is_never_before_one_in_two(seen: list[Seen], raw: float) -> None:
    p50, p90 = Calibration(seen).promised(raw)
    assert 0 <= p50 <= p90


@given(seens, st.lists(seconds | st.sampled_from(CLASSES[:-1]), min_size=2, max_size=20))
def test_who_is_rehearsed_later_is_promised_no_sooner(seen: list[Seen], raws: list[float]) -> None:
    calibration = Calibration(seen)
    promised = [calibration.promised(raw) for raw in sorted(raws)]
    assert sorted(each for each, _ in promised) == [each for each, _ in promised]
    assert sorted(each for _, each in promised) == [each for _, each in promised]


@given(st.integers(0, 2**32), st.floats(0.2, 5.0), st.floats(0.1, 1.2))
def test_promises_hold_as_often_as_they_say(seed: int, bias: float, spread: float) -> None:
    """Whatever the rehearsal is worth: waits that are off by the same kind of error, promised one after another."""
    rng = random.Random(seed)
    seen: list[Seen] = []
    held90 = held50 = 0
    for number in range(1500):
        raw = rng.lognormvariate(7.5, 1.5)
        actual = raw * bias * rng.lognormvariate(0.0, spread)
        if number >= 500:
            p50, p90 = Calibration(seen[:-1201:-1]).promised(raw) if number % 25 == 0 else (-1.0, -1.0)
            held90 += number % 25 == 0 and actual <= p90
            held50 += number % 25 == 0 and actual <= p50
        seen.append(Seen(raw, actual))
    assert held90 >= 30  # of 40: fewer come by chance once in a thousand
    assert 9 <= held50 <= 34
