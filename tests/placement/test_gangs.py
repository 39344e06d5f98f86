"""A gang is placed whole, as near together as it must be, or refused with what would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement.engine import ever_fits, plan
from haein.placement.model import Gang, Near, Reason, Snapshot

from .worlds import after, ask, node, snapshots


def racks(*free: int, per_rack: int = 2) -> Snapshot:
    """Nodes of that many free whole devices out of four, two to a rack, four to a pod."""
    return Snapshot(
        tuple(
            replace(
                node(f"n{at}", *[1000] * count, *[0] * (4 - count)),
                rack=f"r{at // per_rack}",
                pod=f"p{at // (2 * per_rack)}",
            )
            for at, count in enumerate(free)
        )
    )


def gang(members: int, near: Near = Near.ANYWHERE, *, gpus: int = 4, required: bool = False) -> Gang:
    return Gang(each=ask(gpus), members=members, near=near, required=required)


def where(snapshot: Snapshot, wanted: Gang) -> list[str]:
    made = plan(snapshot, [wanted])
    assert [placement.member for placement in made.placements] == list(range(len(made.placements)))
    assert len(made.placements) in (0, wanted.members)
    return [str(placement.node_id) for placement in made.placements]


def test_all_of_it_or_nothing() -> None:
    assert sorted(where(racks(4, 4, 0, 4), gang(3))) == ["n0", "n1", "n3"]
    assert where(racks(4, 4, 0, 0), gang(3)) == []


def test_what_a_refused_gang_would_have_taken_is_there_for_the_next() -> None:
    made = plan(racks(4, 4), [gang(3), replace(gang(2), each=ask(4, id="other"))])
    assert [placement.request_id for placement in made.placements] == ["other", "other"]


def test_it_is_kept_in_one_rack_where_that_is_possible_and_in_the_one_it_fills() -> None:
    assert sorted(where(racks(4, 4, 4, 0, 4, 4), gang(2, Near.RACK))) == ["n0", "n1"]
    assert sorted(where(racks(4, 4, 4, 4, 2, 4), gang(3, Near.RACK, gpus=2))) == ["n4", "n5", "n5"]


def test_where_no_rack_has_room_a_pod_will_do_unless_the_rack_is_required() -> None:
    snapshot = racks(4, 0, 4, 0)
    assert sorted(where(snapshot, gang(2, Near.RACK))) == ["n0", "n2"]
    (refusal,) = plan(snapshot, [gang(2, Near.RACK, required=True)]).refusals
    assert refusal.reason is Reason.NO_CAPACITY_NOW
    assert refusal.sentence == ("Room for 2 workers at once is needed in one rack; there is room for 1 at most now.")
    assert refusal.nearest == gang(1, Near.RACK, required=True)


def test_members_on_one_node_share_its_nvlink() -> None:
    assert where(racks(2, 4), gang(2, Near.NODE, gpus=2, required=True)) == ["n1", "n1"]


def test_a_node_of_no_known_rack_is_in_no_rack() -> None:
    lone = Snapshot((node("a", 1000), node("b", 1000)))
    assert where(lone, gang(2, Near.RACK, gpus=1, required=True)) == []
    assert where(lone, gang(2, Near.RACK, gpus=1)) == ["a", "b"]


@pytest.mark.parametrize(
    ("snapshot", "wanted", "reason", "sentence"),
    [
        (
            racks(0, 0),
            gang(3),
            Reason.NEVER_FITS,
            "Room for 3 workers at once is needed in the cluster; even an empty cluster has room for 2 at most.",
        ),
        (racks(0), gang(2, gpus=5), Reason.NEVER_FITS, "5 GPUs on one node were asked for; the largest node has 4."),
        (racks(0, 0), gang(2), Reason.NO_CAPACITY_NOW, "4 whole GPUs must be free on one node; the best node has 0."),
    ],
)
def test_a_refusal_says_whether_it_could_ever_fit(
    snapshot: Snapshot, wanted: Gang, reason: Reason, sentence: str
) -> None:
    (refusal,) = plan(snapshot, [wanted]).refusals
    assert (refusal.reason, refusal.request_id) == (reason, wanted.id)
    assert refusal.sentence.startswith(sentence)
    assert (ever_fits(snapshot, wanted) is None) == (reason is Reason.NO_CAPACITY_NOW)


def test_a_gang_that_would_fit_with_all_nodes_back_waits_for_them() -> None:
    broken = Snapshot((*racks(4).nodes, replace(node("x", *[1000] * 4), usable=False)))
    assert plan(broken, [gang(2)]).refusals[0].reason is Reason.OUT_OF_SERVICE


@given(snapshots(), st.integers(1, 6), st.integers(0, 4), st.sampled_from([250, 500, 1000]))
def test_a_gang_is_never_split_and_never_given_what_is_not_there(
    snapshot: Snapshot, members: int, gpus: int, share: int
) -> None:
    wanted = Gang(each=ask(gpus, share), members=members)
    made = plan(snapshot, [wanted])
    assert len(made.placements) == (0 if made.refusals else members)
    for placement in made.placements:  # taking more than there is raises
        snapshot = after(snapshot, wanted.each, placement)
    for refusal in made.refusals:
        if isinstance(refusal.nearest, Gang):
            assert refusal.nearest.members < members
