"""Instances, fractions with memory, and where a request may go at all."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from haein.placement.engine import plan
from haein.placement.model import DeviceState, Grant, Instance, NodeState, Reason, Request, Snapshot

from .worlds import ask, node


def b200(name: str, *devices: tuple[tuple[str, int], ...] | None, memory_mb: int = 0) -> NodeState:
    """A node of B200s: None is an untouched one, a tuple one that is carved so."""
    compute = {"1g.23gb": 1, "1g.45gb": 1, "2g.45gb": 2, "3g.90gb": 3, "4g.90gb": 4, "7g.180gb": 7}
    return replace(
        node(name),
        devices=tuple(
            DeviceState(
                id=f"{name}/{index}",
                node=name,
                model="B200",
                capacity=56 if carved else 1000,
                free=56 - 8 * sum(compute[profile] for profile, _ in carved) if carved else 1000,
                usable=True,
                memory_mb=memory_mb,
                free_memory_mb=0 if carved else memory_mb,
                slices=tuple(Instance(*each) for each in carved or ()),
            )
            for index, carved in enumerate(devices)
        ),
    )


def slice_(profile: str, id: str = "job", gpus: int = 1) -> Request:
    return Request(id=id, gpus=gpus, cpus=1000, memory_mb=1024, profile=profile)


def test_a_free_device_is_carved_for_what_waits_and_the_plan_says_so() -> None:
    asked = [slice_("3g.90gb", "a"), slice_("2g.45gb", "b"), slice_("1g.23gb", "c"), slice_("1g.23gb", "d")]
    made = plan(Snapshot((b200("n017", None, None),)), asked)
    assert not made.refusals
    (carving,) = made.carvings
    assert sorted(each.profile for each in carving.instances) == ["1g.23gb", "1g.23gb", "2g.45gb", "3g.90gb"]
    assert re.fullmatch(
        r"carve n017/gpu0 into [\w. +]+: touches no running job, lets 4 waiting jobs start", carving.sentence
    )


def test_what_runs_on_a_device_stays_where_it_is() -> None:
    made = plan(Snapshot((b200("a", (("3g.90gb", 0),)),)), [slice_("3g.90gb")])
    assert made.placements[0].grants == (Grant("a/0", 24, 28, "3g.90gb", 4),)
    assert made.carvings[0].sentence == (
        "carve what is free of a/gpu0 into 3g.90gb: touches no running job, lets 1 waiting job start"
    )


def test_a_carved_device_is_filled_before_a_free_one_is_broken_up() -> None:
    made = plan(Snapshot((b200("a", None, (("3g.90gb", 0),)),)), [slice_("2g.45gb")])
    assert made.placements[0].grants[0].device_id == "a/1"


def test_a_small_instance_starts_where_it_keeps_the_large_ones_possible() -> None:
    made = plan(Snapshot((b200("a", None),)), [slice_("1g.23gb", "first"), slice_("4g.90gb", "second")])
    assert not made.refusals


def test_a_carved_device_gives_no_whole_one_and_a_shared_one_no_instance() -> None:
    shared = replace(b200("b", None), devices=(replace(b200("b", None).devices[0], free=500),))
    carved = b200("a", (("1g.23gb", 6),), (("7g.180gb", 0),))
    made = plan(Snapshot((carved, shared)), [ask(1, id="whole"), slice_("1g.45gb", "x", gpus=2)])
    assert [refusal.request_id for refusal in made.refusals] == ["whole", "x"]
    assert made.refusals[1].sentence == (
        "1g.45gb must fit on each of 2 GPUs of one node; the best node has room for it on 1."
    )
    assert made.refusals[1].nearest == slice_("1g.45gb", "x", gpus=1)


def test_a_device_in_mig_mode_with_nothing_on_it_is_a_free_device() -> None:
    empty = replace(b200("a", None), devices=(replace(b200("a", None).devices[0], capacity=56, free=56),))
    assert not plan(Snapshot((empty,)), [ask(1)]).refusals


def test_without_a_start_the_next_smaller_profile_is_offered() -> None:
    full = b200("a", (("4g.90gb", 0), ("2g.45gb", 4)))
    (refusal,) = plan(Snapshot((full,)), [slice_("3g.90gb")]).refusals
    assert refusal.reason is Reason.NO_CAPACITY_NOW
    assert refusal.sentence == "No GPU has a legal start free for 3g.90gb, and none is free to be carved anew."
    assert refusal.nearest == slice_("1g.45gb")


def test_a_profile_that_no_device_has_is_refused_for_good() -> None:
    (refusal,) = plan(Snapshot((b200("a", None),)), [slice_("3g.40gb")]).refusals
    assert refusal.reason is Reason.NEVER_FITS
    assert refusal.sentence == (
        "No GPU of the cluster can be carved into 3g.40gb; there are: "
        "1g.23gb, 1g.45gb, 2g.45gb, 3g.90gb, 4g.90gb, 7g.180gb."
    )


def test_a_share_has_the_same_share_of_memory_unless_it_asks_for_other() -> None:
    snapshot = Snapshot((b200("a", None, memory_mb=180_000),))
    asked = [ask(1, 250, id="a"), replace(ask(1, 250, id="b"), gpu_memory_mb=90_000), ask(1, 500, id="c")]
    made = plan(snapshot, asked)
    assert [placement.grants[0] for placement in made.placements] == [
        Grant("a/0", 250, 45_000),
        Grant("a/0", 250, 90_000),
    ]
    (refusal,) = made.refusals
    assert refusal.sentence == (
        "No GPU has 500 of 1000 and 90000 MiB of its memory free together; "
        "the most memory free beside that share is 45000 MiB."
    )
    assert refusal.nearest == ask(1, 250, id="c")


def test_a_share_of_more_memory_than_a_gpu_has_is_refused_for_good() -> None:
    snapshot = Snapshot((b200("a", None, memory_mb=180_000),))
    (refusal,) = plan(snapshot, [replace(ask(1, 500), gpu_memory_mb=181_000)]).refusals
    assert refusal.reason is Reason.NEVER_FITS
    assert refusal.sentence == "181000 MiB of one GPU's memory were asked for; the largest has 180000 MiB."
    assert refusal.nearest == replace(ask(1, 500), gpu_memory_mb=180_000)


def test_it_goes_only_where_pool_and_labels_say() -> None:
    plain, fast = node("a", 1000), replace(node("b", 1000), pool="night", labels=frozenset({"nvme", "ib"}))
    asked = replace(ask(1), pool="night", labels=frozenset({"ib"}))
    assert plan(Snapshot((plain, fast)), [asked]).placements[0].node_id == "b"
    (refusal,) = plan(Snapshot((plain,)), [asked]).refusals
    assert (refusal.reason, refusal.sentence) == (Reason.NEVER_FITS, "No node is in pool night, labelled ib.")
    assert refusal.nearest == ask(1)


def test_one_of_several_models_may_be_asked_for() -> None:
    mixed = Snapshot((node("a", 1000, model="L4"), node("b", 1000, model="T4"), node("c", 1000)))
    made = plan(mixed, [replace(ask(1, model="T4|B200"), id=str(number)) for number in range(3)])
    assert {placement.node_id for placement in made.placements} == {"b", "c"}
    assert made.refusals[0].sentence == "No whole T4 or B200 GPU is free; the most left on one is 0 of 1000."


@pytest.mark.parametrize(
    ("slices", "free", "message"),
    [
        ((("3g.90gb", 1),), 32, "slices: B200 has no 3g.90gb that starts at 1."),
        ((("3g.40gb", 0),), 32, "slices: B200 has no 3g.40gb that starts at 0."),
        ((("3g.90gb", 0), ("1g.23gb", 3)), 24, "slices: 1g.23gb at 3 overlaps another."),
        ((("3g.90gb", 0),), 56, "free: its slices leave 32 of 56 units, not 56."),
    ],
)
def test_it_refuses_a_layout_that_no_driver_makes(slices: tuple[tuple[str, int], ...], free: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DeviceState(
            id=0, node="a", model="B200", capacity=56, free=free, usable=True,
            slices=tuple(Instance(*each) for each in slices),
        )  # fmt: skip


def test_it_refuses_an_instance_on_a_device_that_is_not_in_mig_mode_and_an_unknown_profile() -> None:
    with pytest.raises(ValueError, match=r"^slices: a device of 1000 units is not in MIG mode"):
        replace(b200("a", None).devices[0], slices=(Instance("1g.23gb", 0),))
    with pytest.raises(ValueError, match=r"^profile: there is no '9g.1gb'; there are 1g\.10gb, "):
        slice_("9g.1gb")
    with pytest.raises(ValueError, match=r"^profile: an instance has the memory and the share of its profile"):
        replace(slice_("1g.23gb"), share=500)
