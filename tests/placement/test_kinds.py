"""Scoring kinds of nodes, and only those that changed, decides as scoring every node each time would."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from haein.placement.cluster import Cluster
from haein.placement.engine import plan
from haein.placement.mix import Mix
from haein.placement.model import NodeState, Request, Snapshot
from haein.placement.policies import FGD, HAEIN, PACKED, POLICIES

from .worlds import after, node, requests, snapshots

Free = list[int]


def packed(each: NodeState, free: Free, request: Request, order: int) -> tuple[int, ...]:
    fitting = sorted(units for units in free if units >= request.share)[: request.gpus]
    opened = fitting.count(1000)
    return (
        opened,
        sum(fitting) - len(fitting) * request.share,
        free.count(1000) - opened,
        sum(free) - request.gpus * request.share,
        each.free_cpus - request.cpus,
        each.free_memory_mb - request.memory_mb,
        order,
    )


def fragmentation(free: Free, cpus: int, memory_mb: int, mix: list[Request]) -> Fraction:
    """The definition: idle units that a random request of the mix can't use."""
    lost = 0
    for wanted in mix:
        fitting = [units for units in free if units >= wanted.share]
        able = len(fitting) >= wanted.gpus and cpus >= wanted.cpus and memory_mb >= wanted.memory_mb
        lost += sum(free) - sum(fitting) if able else sum(free)
    return Fraction(lost, max(1, len(mix)))


def growth(each: NodeState, free: Free, request: Request, mix: list[Request]) -> int:
    """FGD's key of the best choice of devices on a node; of one device any, of several the fullest."""
    before = fragmentation(free, each.free_cpus, each.free_memory_mb, mix)
    fitting = sorted(units for units in free if units >= request.share)
    choices = [[units] for units in fitting] if request.gpus == 1 else [fitting[: request.gpus]]
    keys = []
    for taken in choices:
        left = list(free)
        for units in taken:
            left[left.index(units)] -= request.share
        grown = (
            fragmentation(left, each.free_cpus - request.cpus, each.free_memory_mb - request.memory_mb, mix) - before
        )
        keys.append(-math.floor(100 / (1 + math.exp(float(grown) / 1000))))
    return min(keys)


def naively(snapshot: Snapshot, request: Request, policy: str, mix: list[Request]) -> object:
    """The node, every one scored from scratch; None where none fits."""
    ranked = []
    for order, each in enumerate(snapshot.nodes):
        free = [device.free for device in each.devices if device.usable]
        fits = sum(units >= request.share for units in free) >= request.gpus
        if each.usable and fits and each.free_cpus >= request.cpus and each.free_memory_mb >= request.memory_mb:
            key = (
                packed(each, free, request, order) if policy == "packed" else (growth(each, free, request, mix), order)
            )
            ranked.append((key, each.id))
    return min(ranked)[1] if ranked else None


@given(snapshots(), requests(), st.sampled_from([PACKED.name, FGD.name]))
def test_it_decides_as_if_every_node_were_scored(snapshot: Snapshot, asked: list[Request], policy: str) -> None:
    asked = [Request(id=r.id, gpus=min(r.gpus, 4), share=r.share, cpus=r.cpus, memory_mb=r.memory_mb) for r in asked]
    mix = [request for request in asked if request.gpus]
    cluster = Cluster(snapshot, POLICIES[policy], Mix.of(asked))
    for request in asked:
        expected = naively(snapshot, request, policy, mix)
        placement = cluster.place(request)
        assert (placement.node_id if placement else None) == expected
        if placement:
            snapshot = after(snapshot, request, placement)


@given(snapshots(), requests(), st.sampled_from(sorted(POLICIES)))
def test_what_is_remembered_changes_no_decision(snapshot: Snapshot, asked: list[Request], policy: str) -> None:
    mix = Mix.of(asked)
    cluster = Cluster(snapshot, POLICIES[policy], mix)
    for request in asked:
        fresh = Cluster(cluster.snapshot(), POLICIES[policy], mix).place(request)
        assert cluster.place(request) == fresh


@given(snapshots(), requests())
def test_the_same_queue_has_the_same_plan(snapshot: Snapshot, asked: list[Request]) -> None:
    assert plan(snapshot, asked, HAEIN) == plan(snapshot, asked, HAEIN)


def test_a_thousand_equal_nodes_are_one_kind_and_the_first_of_them_is_taken() -> None:
    cluster = Cluster(Snapshot(tuple(node(f"n{at:04}", *[1000] * 8) for at in range(1000))), HAEIN, Mix({}))
    assert len(list(cluster.rooms())) == 1
    for expected in ("n0000", "n0001"):
        placement = cluster.place(Request(id=0, gpus=8, cpus=0, memory_mb=0))
        assert placement is not None
        assert placement.node_id == expected
    assert len(list(cluster.rooms())) == 2
