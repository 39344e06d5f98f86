"""MIG slices come and go on a full cluster: how much of the compute asked for finds a place."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics

from bench.ground import Figure
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix
from haein.placement.model import DeviceState, NodeState, Request, Snapshot
from haein.placement.policies import BEST_FIT, FGD, FIRST_FIT, HAEIN, Policy

DEVICES, WARM_UP, ARRIVALS, SEEDS = 100, 2_000, 20_000, (1, 2, 3, 4, 5)
COMPUTE = {"1g.23gb": 1, "1g.45gb": 1, "2g.45gb": 2, "3g.90gb": 3, "4g.90gb": 4, "7g.180gb": 7}
# How often each profile is asked for, in parts of 100.
MIXES = {
    "even": {"1g.23gb": 20, "1g.45gb": 10, "2g.45gb": 20, "3g.90gb": 20, "4g.90gb": 15, "7g.180gb": 15},
    "small": {"1g.23gb": 55, "1g.45gb": 15, "2g.45gb": 20, "3g.90gb": 6, "4g.90gb": 3, "7g.180gb": 1},
    "middle": {"1g.23gb": 10, "1g.45gb": 5, "2g.45gb": 35, "3g.90gb": 35, "4g.90gb": 10, "7g.180gb": 5},
    "large": {"1g.23gb": 10, "1g.45gb": 5, "2g.45gb": 10, "3g.90gb": 20, "4g.90gb": 25, "7g.180gb": 30},
    "two ends": {"1g.23gb": 60, "1g.45gb": 5, "2g.45gb": 5, "3g.90gb": 0, "4g.90gb": 5, "7g.180gb": 25},
}
ALLOWED = 0.2  # percentage points below the better of best fit and FGD


def _cluster() -> Snapshot:
    """Devices of their own: an instance is on one device, so how many a node has changes nothing."""
    return Snapshot(
        tuple(
            NodeState(
                id=number,
                name=f"n{number:03}",
                cpus=0,
                memory_mb=0,
                free_cpus=0,
                free_memory_mb=0,
                usable=True,
                devices=(DeviceState(id=number, node=f"n{number:03}", model="B200", free=1000, usable=True),),
            )
            for number in range(DEVICES)
        )
    )


def _requests(weights: dict[str, int]) -> dict[str, Request]:
    return {name: Request(id=name, gpus=1, cpus=0, memory_mb=0, profile=name) for name in weights if weights[name]}


def accepted(policy: Policy, weights: dict[str, int], seed: int) -> float:
    """Percent of the compute asked for that was placed, at a load that would fill every slice if all were."""
    asks = _requests(weights)
    cluster = Cluster(_cluster(), policy, Mix.of(asks[name] for name in asks for _ in range(weights[name])))
    mean = sum(COMPUTE[name] * weight for name, weight in weights.items()) / sum(weights.values())
    per_life = 7 * DEVICES / mean
    rng = random.Random(seed)
    names, parts = list(asks), [weights[name] for name in asks]
    ends: list[tuple[float, int, Request, object]] = []
    counter = itertools.count()
    now, asked, given = 0.0, 0, 0
    for arrival in range(WARM_UP + ARRIVALS):
        now += rng.expovariate(per_life)
        (name,), life = rng.choices(names, parts), rng.expovariate(1)
        while ends and ends[0][0] <= now:
            _, _, request, placement = heapq.heappop(ends)
            cluster.finish(request, placement)  # type: ignore[arg-type]
        made = cluster.place(asks[name])
        if made:
            heapq.heappush(ends, (now + life, next(counter), asks[name], made))
        if arrival >= WARM_UP:
            asked += COMPUTE[name]
            given += COMPUTE[name] * (made is not None)
    return 100 * given / asked


def mig_accepted() -> Figure:
    """The worst mix decides: the value is by how much the default is above the better of the two, at the least."""
    table = {
        mix: {
            policy.name: statistics.mean(accepted(policy, weights, seed) for seed in SEEDS)
            for policy in (FIRST_FIT, BEST_FIT, FGD, HAEIN)
        }
        for mix, weights in MIXES.items()
    }
    margins = {mix: row["haein"] - max(row["bestfit"], row["fgd"]) for mix, row in table.items()}
    detail = {
        "accepted_percent": {mix: {name: round(value, 2) for name, value in row.items()} for mix, row in table.items()},
        "margin": {mix: round(margin, 2) for mix, margin in margins.items()},
        "weights": MIXES,
        "seeds": SEEDS,
    }
    mean = statistics.mean(row["haein"] for row in table.values())
    reached = min(margins.values()) >= -ALLOWED
    target = statistics.mean(max(row["bestfit"], row["fgd"]) for row in table.values()) - ALLOWED
    return Figure(round(mean, 2), "%", round(target, 2), detail, more_is_better=True, besides=reached)
