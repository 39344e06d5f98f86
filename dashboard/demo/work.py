"""What people ask of a cluster in a month: who submits what and when, how long it runs and how it ends; from a seed.

Durations and shares have the shape of a published trace, the rest is ours, and each table says which.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import accumulate, count
from random import Random
from typing import Any

from dashboard.demo import people
from dashboard.demo.people import Person, Team
from haein.cluster.backends.simulator.backend import SERVES_ONE_IN

HOUR, DAY = 3600, 86_400
NODES, DEVICES = 129, 8
JOBS_A_DAY = 100_000 / 30

Quantiles = tuple[tuple[float, float], ...]

# (part of all, seconds): quantiles of run time, measured in openb's default list (Alibaba cluster-trace-gpu-v2023, the
# trace of Weng et al., USENIX ATC '23) from deletion_time - scheduled_time: of its 2,573 pods with a share of a GPU
# and of its 3,556 with one whole GPU. Between two of them the logarithm is taken to be straight.
SHARE_S: Quantiles = (
    *((0.0, 10), (0.05, 35), (0.1, 55), (0.25, 144), (0.5, 539), (0.75, 1858), (0.9, 9235), (0.95, 20_410)),
    *((0.99, 77_910), (1.0, 120_000)),
)
WHOLE_S: Quantiles = (
    *((0.0, 20), (0.05, 55), (0.1, 80), (0.25, 208), (0.5, 758), (0.75, 2462), (0.9, 6030), (0.95, 13_278)),
    *((0.99, 243_803), (1.0, 259_200)),
)
# Ours: a training that was worth writing down takes hours, one of many nodes hours or days; a service stays for days.
TRAINING_S: Quantiles = ((0.0, 600), (0.25, 4000), (0.5, 9000), (0.75, 22_000), (0.95, 80_000), (1.0, 172_800))
GANG_S: Quantiles = ((0.0, 1200), (0.1, 3600), (0.5, 28_800), (0.75, 72_000), (0.95, 190_000), (1.0, 345_600))
SERVICE_S: Quantiles = ((0.0, 7200), (0.1, 43_200), (0.5, 216_000), (0.9, 518_400), (1.0, 691_200))
NIGHTLY_S: Quantiles = ((0.0, 1200), (0.5, 4500), (0.9, 9000), (1.0, 12_600))
COURSE_S: Quantiles = ((0.0, 20), (0.25, 150), (0.5, 900), (0.9, 5000), (1.0, 10_800))

# How many pods of openb's default list asked for that many thousandths of a GPU: its four most common shares.
SHARES = {810: 1078, 470: 750, 320: 328, 650: 253}

# Jeon et al., USENIX ATC '19, table 6 (Philly): of its jobs 69.3 % passed, 13.5 % were killed by their users, and
# 17.2 % were unsuccessful.
KILLED, FAILED = 0.135, 0.172

# Ours, after the daily and weekly shape in figure 2 of Hu et al., SC '21 (Helios): few jobs come at night, most in the
# afternoon, with dips at lunch and at dinner; at weekends less. By hour of the day, UTC + 9.
OFFICE = (
    *(0.35, 0.25, 0.2, 0.15, 0.15, 0.15, 0.2, 0.35, 0.7, 1.2, 1.6, 1.5),
    *(1.0, 1.6, 1.9, 1.9, 1.8, 1.6, 1.1, 1.2, 1.4, 1.3, 1.0, 0.6),
)
NIGHT = (0.0, 6.0, 9.0, 6.0, 2.0, *(0.0,) * 18, 1.0)
STEADY = (1.0,) * 24
WEEKEND = 0.45
ZONE = timedelta(hours=9)


@dataclass(frozen=True, slots=True)
class Shape:
    """What each worker holds: devices whole, in shares or as instances; `near` and `pool` as a job's spec has them."""

    gpus: int = 1
    share: int = 1000
    profile: str = ""
    workers: int = 1
    near: str = "any"
    pool: str = ""

    def asked(self) -> dict[str, Any]:
        """By the names that a spec and a job share."""
        return {
            "gpus": self.gpus,
            "share": self.share,
            "profile": self.profile,
            "cpus": self.cpus,
            "memory_mb": self.memory_mb,
            "workers": self.workers,
            "near": self.near,
            "pool": self.pool,
        }

    @property
    def part(self) -> float:
        """How much of a device each of its slices is."""
        return int(self.profile[0]) / 7 if self.profile else self.share / 1000

    @property
    def cpus(self) -> int:
        """Thousandths of a core, in step with the devices, so that neither runs out before the other."""
        return max(1000, int(self.gpus * self.part * 26) * 1000)

    @property
    def memory_mb(self) -> int:
        """MiB, in the same step."""
        return max(4, int(self.gpus * self.part * 240)) * 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """A job that somebody submits `at` seconds after the beginning.

    Each run of it takes `duration_s` and ends with `exit_code`, unless its owner cancels it, `cancelled_after_s` after
    it was submitted, or something stops it before.
    """

    number: int
    at: float
    team: Team
    person: Person
    name: str
    words: str
    shape: Shape
    duration_s: float
    exit_code: int
    cancelled_after_s: float | None
    time_limit_s: int
    retries: int
    priority: int
    tags: tuple[str, ...]
    busy: int

    @property
    def command(self) -> str:
        """What the simulator makes of it is what becomes of it here."""
        exit_code = f" exit={self.exit_code}" if self.exit_code else ""
        return f"echo {self.words}; simulate {self.duration_s:.0f}s util={self.busy}{exit_code}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of work. `a_day` on a cluster of NODES nodes; None for what all the jobs that are left over are."""

    a_day: float | None
    rhythm: tuple[float, ...]
    weekend: float
    shapes: Mapping[Shape, int]
    durations: Quantiles
    priority: int
    retries: int
    names: tuple[str, ...]
    words: tuple[str, ...]


_MIG = {"1g.23gb": 34, "1g.45gb": 8, "2g.45gb": 26, "3g.90gb": 22, "4g.90gb": 4, "7g.180gb": 6}
KINDS: Mapping[str, Kind] = {
    people.GANGS: Kind(
        a_day=26,
        rhythm=OFFICE,
        weekend=0.7,
        shapes={Shape(8, workers=n, near="pod", pool="train"): w for n, w in ((2, 36), (4, 34), (8, 22), (16, 8))},
        durations=GANG_S,
        priority=10,
        retries=2,
        names=("pretrain-7b", "pretrain-30b", "midtrain-7b", "moe-ablation", "long-context", "scaling-run", "ensemble"),
        words=("resumes from the newest checkpoint", "tensor parallel 8, data parallel over the nodes"),
    ),
    people.TRAINING: Kind(
        a_day=150,
        rhythm=OFFICE,
        weekend=WEEKEND,
        shapes={Shape(1): 46, Shape(2): 22, Shape(4): 18, Shape(8): 14},
        durations=TRAINING_S,
        priority=0,
        retries=1,
        names=("finetune", "detector", "asr-large", "reward-model", "segmentation", "adapter", "distill"),
        words=("loads its data", "mixed precision, gradient checkpoints"),
    ),
    people.SERVING: Kind(
        a_day=80,
        rhythm=OFFICE,
        weekend=0.3,
        shapes={Shape(1, profile=profile, pool="serve"): weight for profile, weight in _MIG.items()},
        durations=SERVICE_S,
        priority=20,
        retries=5,
        names=("chat-api", "search-rank", "tts", "asr-stream", "embed", "reranker", "triage"),
        words=("listens", "warms its cache"),
    ),
    people.NIGHTLY: Kind(
        a_day=60,
        rhythm=NIGHT,
        weekend=1.0,
        shapes={Shape(1): 30, Shape(4): 40, Shape(8): 30},
        durations=NIGHTLY_S,
        priority=-5,
        retries=2,
        names=("reindex", "align-reads", "forecast", "features", "backfill"),
        words=("reads yesterday's shards", "writes its partitions"),
    ),
    people.EXPERIMENTS: Kind(
        a_day=None,
        rhythm=OFFICE,
        weekend=WEEKEND,
        shapes={
            **{Shape(1, share=share): weight for share, weight in SHARES.items()},
            **{Shape(1, profile=profile): 20 * weight for profile, weight in _MIG.items() if profile < "4"},
            Shape(1): 600,
        },
        durations=SHARE_S,
        priority=0,
        retries=0,
        names=("lr-sweep", "ablation", "probe", "eval", "notebook", "prompt-test", "quantize", "profile-run"),
        words=("reads its config", "one trial of a sweep"),
    ),
    people.COURSE: Kind(
        a_day=None,
        rhythm=OFFICE,
        weekend=1.2,
        shapes={Shape(1, profile="1g.23gb"): 5, Shape(1, share=320): 3, Shape(1, share=470): 1},
        durations=COURSE_S,
        priority=-10,
        retries=0,
        names=("hw3", "hw4", "final-project", "thesis-baseline"),
        words=("trains the course's network", "tries again"),
    ),
}
# Of the jobs that are left over, these parts; ours.
LEFT_OVER = {people.EXPERIMENTS: 0.8, people.COURSE: 0.2}
# A course's day of submission: in the three days before it five times as much is asked for.
DEADLINE_DAYS, RUSH = (17, 18, 19), 5.0


def wishes(seed: int, begin: datetime, *, nodes: int = NODES, jobs_a_day: float = JOBS_A_DAY) -> Iterator[Wish]:
    """Without end, in the order of their coming. `begin` decides what hour of which day it is."""
    numbers = count()
    for hour in count():
        # Drawn anew for each hour, so that what comes does not hang on how many came before.
        random = Random(f"{seed}:{hour}")
        moment = begin + timedelta(hours=hour) + ZONE
        coming = [
            (hour * HOUR + at, kind)
            for kind in KINDS
            for at in _arrivals(random, _a_second(kind, moment, hour // 24, nodes, jobs_a_day))
        ]
        for at, kind in sorted(coming):
            yield _wish(next(numbers), at, kind, random, nodes)


def _arrivals(random: Random, rate: float) -> Iterator[float]:
    """A Poisson process of an hour: seconds in it. `rate` a second."""
    at = random.expovariate(rate) if rate else math.inf
    while at < HOUR:
        yield at
        at += random.expovariate(rate)


def _a_second(kind: str, moment: datetime, day: int, nodes: int, jobs_a_day: float) -> float:
    of = KINDS[kind]
    weight = of.rhythm[moment.hour] / (sum(of.rhythm) / 24)
    weight *= (of.weekend if moment.weekday() >= 5 else 1.0) / ((5 + 2 * of.weekend) / 7)
    if kind == people.COURSE:
        # Over 30 days as much in all as without a deadline.
        weight *= (RUSH if day % 30 in DEADLINE_DAYS else 1.0) * 30 / (30 + (RUSH - 1) * len(DEADLINE_DAYS))
    return _a_day(kind, nodes, jobs_a_day) * weight / DAY


@cache
def _a_day(kind: str, nodes: int, jobs_a_day: float) -> float:
    """Whatever holds much grows with the cluster; small jobs make up the number."""
    fixed = {name: of.a_day * nodes / NODES for name, of in KINDS.items() if of.a_day is not None}
    # Where the largest gangs would not fit, there are more of the smaller ones.
    fixed[people.GANGS] *= _mean_workers(KINDS[people.GANGS].shapes) / _mean_workers(_shapes(people.GANGS, nodes))
    left = max(0.0, jobs_a_day - sum(fixed.values()))
    return fixed[kind] if kind in fixed else left * LEFT_OVER[kind]


def _mean_workers(shapes: Mapping[Shape, int]) -> float:
    return sum(shape.workers * weight for shape, weight in shapes.items()) / sum(shapes.values())


@cache
def _shapes(kind: str, nodes: int) -> Mapping[Shape, int]:
    """No gang takes more than a sixth of the cluster, or a pair; where no node is set aside for serving, all serve."""
    shapes = {shape: weight for shape, weight in KINDS[kind].shapes.items() if shape.workers <= max(2, nodes // 6)}
    return shapes if nodes >= SERVES_ONE_IN else {replace(shape, pool=""): each for shape, each in shapes.items()}


@cache
def _teams(kind: str) -> tuple[tuple[Team, ...], tuple[int, ...]]:
    """Who does it, and the running sums of their parts."""
    found = [(team, part) for team in people.TEAMS for name, part in team.does if name == kind]
    return tuple(team for team, _ in found), tuple(accumulate(part for _, part in found))


def _wish(number: int, at: float, kind: str, random: Random, nodes: int) -> Wish:
    of, shapes = KINDS[kind], _shapes(kind, nodes)
    teams, parts = _teams(kind)
    (team,) = random.choices(teams, cum_weights=parts)
    (shape,) = random.choices(list(shapes), list(shapes.values()))
    durations = WHOLE_S if kind == people.EXPERIMENTS and shape.part == 1 else of.durations
    duration, fate = _drawn(durations, random.random()), random.random()
    limit = next(each for each in _LIMITS if each >= duration * random.choice((0.98, 1.3, 2.0, 3.0)))
    cancelled_after, exit_code = None, 0
    if fate < KILLED:
        cancelled_after = duration * random.uniform(0.1, 0.9) + random.expovariate(1 / 120)
    elif fate < KILLED + FAILED and kind != people.SERVING:
        # What fails, fails early more often than late.
        duration, exit_code = max(1.0, duration * random.betavariate(1, 3)), random.choice((1, 1, 1, 2, 137))
    return Wish(
        number=number,
        at=at,
        team=team,
        person=random.choice(team.people),
        name=f"{random.choice(of.names)}-{random.randrange(1, 400)}",
        words=random.choice(of.words),
        shape=shape,
        duration_s=round(duration),
        exit_code=exit_code,
        cancelled_after_s=cancelled_after,
        time_limit_s=limit,
        retries=of.retries,
        priority=of.priority,
        tags=(kind,),
        busy=round(random.triangular(20, 99, 88)),
    )


# What people type for a limit: some choose one that is a little too short.
_LIMITS = (
    *(600, 1800, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, DAY, 2 * DAY, 3 * DAY, 5 * DAY, 7 * DAY, 14 * DAY),
    *(30 * DAY, 60 * DAY),
)


def _drawn(quantiles: Quantiles, at: float) -> float:
    """The inverse of the distribution, straight in the logarithm between two quantiles."""
    right = min(bisect(quantiles, (at, math.inf)), len(quantiles) - 1)
    (before, low), (after, high) = quantiles[right - 1], quantiles[right]
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * (at - before) / (after - before))
