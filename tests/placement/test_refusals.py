"""A refusal is true, says why with numbers, and names a request that would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement.engine import ever_fits, plan
from haein.placement.model import Gang, NodeState, Reason, Refusal, Request, Snapshot
from haein.placement.policies import BEST_FIT, FGD, FIRST_FIT, HAEIN, PACKED, Policy
from haein.placement.sentences import TEMPLATES, Code, cores, english, memory

from .worlds import after, ask, emptied, fits_somewhere, node, requests, snapshots

TWO_NODES = (node("a", 1000, 500, 0), node("b", 0, 300))


def refused_now(request: Request, *nodes: NodeState) -> Refusal:
    (refusal,) = plan(Snapshot(nodes), [request]).refusals
    assert refusal.reason is Reason.NO_CAPACITY_NOW
    return refusal


def refused_ever(request: Request, *nodes: NodeState) -> Refusal:
    refusal = ever_fits(Snapshot(nodes), request)
    assert refusal is not None
    assert plan(Snapshot(nodes), [request]).refusals == (refusal,)
    return refusal


@pytest.mark.parametrize(
    ("request_", "nodes", "sentence"),
    [
        (
            ask(2),
            TWO_NODES,
            "2 whole GPUs must be free on one node; the best node has 1 whole and one more with 500 of 1000 left.",
        ),
        (ask(2), (node("a", 1000, 0),), "2 whole GPUs must be free on one node; the best node has 1."),
        (ask(1), (node("a", 700, 500),), "No whole GPU is free; the most left on one is 700 of 1000."),
        (
            ask(1, 800, model="B200"),
            (node("a", 700, 0),),
            "No B200 GPU has 800 of 1000 free; the most left on one is 700.",
        ),
        (
            ask(3, 400),
            TWO_NODES,
            "400 of 1000 must be free on each of 3 GPUs of one node; the best node has that much on 2.",
        ),
        (
            ask(1, cpus=2500),
            (node("a", 1000, free_cpus=1500), node("b", 0)),
            "Too few CPU cores are free: 2.5 asked for, at most 1.5 free on a node where the GPUs fit.",
        ),
        (
            ask(0, cpus=2000),
            (node("a", free_cpus=1500),),
            "Too few CPU cores are free: 2 asked for, at most 1.5 free on one node.",
        ),
        (
            ask(0, cpus=2000, memory_mb=4096),
            (node("a", free_cpus=1000), node("b", free_memory_mb=1000)),
            "Too little memory is free: 4 GiB asked for, at most 1000 MiB free on a node where the rest fits.",
        ),
    ],
)
def test_it_says_what_is_missing_now(request_: Request, nodes: tuple[NodeState, ...], sentence: str) -> None:
    assert refused_now(request_, *nodes).sentence == sentence


@pytest.mark.parametrize(
    ("request_", "nodes", "sentence"),
    [
        (
            ask(16, model="B200"),
            (node("a", *[0] * 8), node("b", *[0] * 4)),
            "16 B200 GPUs on one node were asked for; the largest node has 8. Ask for 8 or fewer.",
        ),
        (
            ask(1, model="H100"),
            (node("a", 0), node("b", 0, model="L4")),
            "The cluster has no H100 GPU; it has: B200, L4.",
        ),
        (ask(1), (node("a"),), "GPUs asked for: 1; the cluster has none."),
        (ask(0), (), "The cluster has no node."),
        (
            ask(1, cpus=99_000),
            (node("a", 0), node("b", cpus=128_000)),
            (
                "Too many CPU cores on one node: 99 asked for, the largest node that has the GPUs has 64. "
                "Ask for 64 or fewer."
            ),
        ),
        (
            ask(0, cpus=64_001),
            (node("a", 0),),
            "Too many CPU cores on one node: 64.001 asked for, the largest node has 64. Ask for 64 or fewer.",
        ),
        (
            ask(1, memory_mb=100_000),
            (node("a", 0),),
            (
                "Too much memory on one node: 100000 MiB asked for, the largest node that has the rest has 64 GiB. "
                "Ask for 64 GiB or less."
            ),
        ),
    ],
)
def test_it_says_what_could_never_fit(request_: Request, nodes: tuple[NodeState, ...], sentence: str) -> None:
    refusal = refused_ever(request_, *nodes)
    assert (refusal.reason, refusal.sentence) == (Reason.NEVER_FITS, sentence)


def test_it_tells_what_is_out_of_service_from_what_is_impossible() -> None:
    refusal = refused_ever(ask(2), node("a", 0, 0, usable=False), node("b", 0))
    assert refusal.reason is Reason.OUT_OF_SERVICE
    assert refusal.sentence == (
        "What could take this is out of service now (nodes out of service: 1 of 2, GPUs: 2 of 3)."
    )
    assert refusal.nearest == ask(1)


def test_never_counts_what_is_out_of_service_and_the_nearest_request_does_not() -> None:
    refusal = refused_ever(ask(16), node("a", *[0] * 8, usable=False), node("b", *[0] * 4))
    assert (refusal.reason, refusal.params["most"], refusal.nearest) == (Reason.NEVER_FITS, 8, ask(4))


def test_a_full_cluster_could_still_take_it_some_day() -> None:
    assert ever_fits(Snapshot((node("a", 0, 0, free_cpus=0, free_memory_mb=0),)), ask(2)) is None


@pytest.mark.parametrize(
    ("request_", "nodes", "near"),
    [
        pytest.param(ask(2), TWO_NODES, ask(1), id="a whole GPU before two halves"),
        pytest.param(ask(2), (node("a", 400, 500),), ask(2, 400), id="two smaller slices before one"),
        pytest.param(ask(1, 800), TWO_NODES[1:], ask(1, 300), id="a smaller slice"),
        pytest.param(
            ask(8, cpus=65_000),
            (node("a", *[1000] * 8, cpus=66_000, free_cpus=64_000), node("b", 1000)),
            ask(8, cpus=64_000),
            id="fewer CPUs before fewer GPUs",
        ),
        pytest.param(
            ask(8, memory_mb=200_000),
            (node("a", 1000, memory_mb=200_000), node("b", *[1000] * 8, memory_mb=200_000, free_memory_mb=150_000)),
            ask(8, memory_mb=150_000),
            id="a little less memory before one GPU of eight",
        ),
        pytest.param(ask(1, model="L4"), (node("a", 1000), node("b", 0, model="L4")), ask(1), id="another model"),
        pytest.param(ask(1), (node("a", 0),), None, id="nothing where nothing is left"),
    ],
)
def test_the_nearest_request_keeps_the_most_of_what_was_asked(
    request_: Request, nodes: tuple[NodeState, ...], near: Request | None
) -> None:
    assert refused_now(request_, *nodes).nearest == near


def test_two_jobs_of_one_shape_are_refused_each_in_its_own_name() -> None:
    refusals = plan(Snapshot((node("a", 500),)), [ask(1, id="alice"), ask(1, id="bob")]).refusals
    assert [(r.request_id, r.nearest) for r in refusals] == [
        ("alice", ask(1, 500, id="alice")),
        ("bob", ask(1, 500, id="bob")),
    ]


def test_a_refusal_speaks_of_what_the_requests_before_it_left() -> None:
    asked = [ask(2, id="alice"), ask(1, 500, id="bob"), ask(2, id="carol")]
    first, second = plan(Snapshot((node("a", 1000, 500),)), asked).refusals
    assert (first.params["whole"], first.params["left"]) == (1, 500)
    assert (second.params["whole"], "left" in second.params) == (1, False)


@given(snapshots(), requests(), st.sampled_from([FIRST_FIT, BEST_FIT, PACKED, FGD, HAEIN]))
def test_every_refusal_is_true_and_its_nearest_request_fits(
    snapshot: Snapshot, asked: list[Request], policy: Policy
) -> None:
    made = plan(snapshot, asked, policy)
    placements = {placement.request_id: placement for placement in made.placements}
    refusals = {refusal.request_id: refusal for refusal in made.refusals}
    for request in asked:
        if request.id in placements:
            snapshot = after(snapshot, request, placements[request.id])
            continue
        refusal = refusals[request.id]
        assert not fits_somewhere(snapshot, request)
        assert fits_somewhere(emptied(snapshot), request) == (refusal.reason is Reason.NO_CAPACITY_NOW)
        repaired = emptied(snapshot, repaired=True)
        assert fits_somewhere(repaired, request) == (refusal.reason is not Reason.NEVER_FITS)
        room = snapshot if refusal.reason is Reason.NO_CAPACITY_NOW else emptied(snapshot)
        assert_nearest_fits(room, request, refusal.nearest)


def assert_nearest_fits(room: Snapshot, request: Request, near: Request | Gang | None) -> None:
    assert not isinstance(near, Gang), "one request is not offered a gang"
    if near is None:
        part = replace(
            request,
            model="",
            gpus=min(request.gpus, 1),
            share=1,
            cpus=min(request.cpus, 1),
            memory_mb=min(request.memory_mb, 1),
        )
        assert not fits_somewhere(room, part), "something could have been offered"
        return
    assert fits_somewhere(room, near)
    assert near.id == request.id
    assert near.model in (request.model, "")
    assert near.gpus <= request.gpus
    assert near.share <= request.share
    assert near.cpus <= request.cpus
    assert near.memory_mb <= request.memory_mb
    assert bool(near.gpus) == bool(request.gpus)
    assert near != request


@given(snapshots(), requests())
def test_asking_whether_it_ever_fits_agrees_with_the_plan(snapshot: Snapshot, asked: list[Request]) -> None:
    now = {refusal.request_id: refusal for refusal in plan(snapshot, asked).refusals}
    for request in asked:
        ever = ever_fits(snapshot, request)
        assert (ever is None) == fits_somewhere(emptied(snapshot), request)
        assert ever is None or ever == now[request.id]


@given(snapshots(), requests())
def test_a_sentence_can_be_made_again_from_its_code_and_numbers(snapshot: Snapshot, asked: list[Request]) -> None:
    for refusal in plan(snapshot, asked).refusals:
        assert english(refusal.code, refusal.params) == refusal.sentence
        assert english(Code(refusal.code.value), dict(refusal.params)) == refusal.sentence


def test_every_code_has_a_sentence() -> None:
    assert set(TEMPLATES) == set(Code)


@pytest.mark.parametrize(("thousandths", "text"), [(0, "0"), (1, "0.001"), (2500, "2.5"), (100_000, "100")])
def test_cores_are_written_exactly(thousandths: int, text: str) -> None:
    assert cores(thousandths) == text


@pytest.mark.parametrize(("mb", "text"), [(0, "0 MiB"), (1, "1 MiB"), (1024, "1 GiB"), (65_000, "65000 MiB")])
def test_memory_is_written_exactly(mb: int, text: str) -> None:
    assert memory(mb) == text
