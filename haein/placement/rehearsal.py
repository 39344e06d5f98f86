"""Settles how the default policy weighs its measures: by rehearsing on the empty cluster with the mix it is to serve.

No one weighing wins on every mix (docs/placement.md has the table), and which one does can be tried out: filling a
cluster of a thousand nodes in memory takes seconds. A service does it when its mix has changed, not in each pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

from haein.placement.cluster import Cluster
from haein.placement.mix import Mix, shape_of, units
from haein.placement.model import WHOLE, Request, Snapshot
from haein.placement.policies import CANDIDATES, HAEIN, Policy

# Told every so often how much is done, from 0 to 1; what it raises ends the work.
Watch = Callable[[float], None]

# A decision costs as many steps as the mix has shapes: with this many (node, shape) pairs a rehearsal of one weighing
# takes about two seconds. Of a larger cluster every so many-th node is taken, but no fewer than LEAST stay.
PAIRS, LEAST = 400_000, 300
# The rehearsals' own orders of arrival; far from the small seeds that people try a policy with.
SEEDS = (7_000_001, 7_000_002)


def settle(snapshot: Snapshot, mix: Mix, watch: Watch = lambda _part: None) -> Policy:
    """The default policy with the weighing that gives out most of this cluster when as much as it has was asked for."""
    return settled(best(snapshot, mix, watch))


def settled(name: str) -> Policy:
    """The default policy with the weighing of the candidate called so; its own where there is none (any more)."""
    return replace(next((each for each in CANDIDATES if each.name == name), HAEIN), name=HAEIN.name)


def best(snapshot: Snapshot, mix: Mix, watch: Watch = lambda _part: None) -> str:
    """The name of the candidate that the default is settled to."""
    if not any(shape.gpus for shape in mix.weights) or not any(node.devices for node in snapshot.nodes):
        return HAEIN.name
    stage = _stage(snapshot, max(LEAST, PAIRS // len(mix.weights)))
    orders = [_arrivals(stage, mix, seed) for seed in SEEDS]
    of = len(CANDIDATES) * len(orders)
    given = [
        _given(stage, mix, policy, order, partial(_within, watch, number, of))
        for number, (policy, order) in enumerate(product(CANDIDATES, orders))
    ]
    sums = [sum(given[at : at + len(orders)]) for at in range(0, of, len(orders))]
    return CANDIDATES[sums.index(max(sums))].name


def _within(watch: Watch, done: int, of: int, part: float) -> None:
    watch((done + part) / of)


def _stage(snapshot: Snapshot, nodes: int) -> Snapshot:
    step = -(-len(snapshot.nodes) // nodes)
    return Snapshot(
        tuple(
            replace(
                node,
                free_cpus=node.cpus,
                free_memory_mb=node.memory_mb,
                devices=tuple(device.emptied(usable=device.usable) for device in node.devices),
            )
            for node in snapshot.nodes[::step]
        )
    )


def _arrivals(stage: Snapshot, mix: Mix, seed: int) -> list[Request]:
    """Random requests of the mix, until as many GPUs are asked for as there are."""
    rng = random.Random(seed)
    shapes, weights = list(mix.weights), list(mix.weights.values())
    capacity = sum(WHOLE * len(node.devices) for node in stage.nodes)
    requests: list[Request] = []
    asked = 0
    while asked < capacity:
        for shape in rng.choices(shapes, weights, k=256):
            asked += units(shape)
            requests.append(shape.request(len(requests)))
            if asked >= capacity:
                break
    return requests


def _given(stage: Snapshot, mix: Mix, policy: Policy, order: list[Request], watch: Watch) -> int:
    cluster, given = Cluster(stage, policy, mix), 0
    for at, request in enumerate(order):
        watch(at / len(order))
        if cluster.place(request):
            given += units(shape_of(request))
    return given
