"""Room that work from outside holds can't be had back: it is not counted on for anybody's guarantee."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import pytest

from haein.placement.allowances import BORROWED, Allowances
from haein.placement.model import Grant, Instance, NodeState, Placement, Snapshot
from haein.placement.queueing import Account, Running, Waiting

from .test_layouts import SEVENTHS, fixed
from .worlds import ask, node

ACCOUNTS: dict[Hashable, Account] = {"a": Account(id="a"), "b": Account(id="b", guaranteed=1000)}
NEVER = Waiting(
    id="job", request=ask(1), units=1000, team="a", accounts=("a",), priority=0, queued=0.0, limit_s=60, never=True
)  # fmt: skip


def running(*grants: Grant) -> Running:
    placement = Placement("run", "n", grants)
    return Running(
        id="run", job="run", request=ask(1), placements=(placement,), units=1000, team="b", accounts=("b",), began=0.0,
        ends=100.0, saved=None, saves=False, guaranteed=True, fixed=False, spot=False, ending=None, yields_to=None,
    )  # fmt: skip


def refusal(of: NodeState, *runs: Running) -> str:
    return Allowances(ACCOUNTS, runs, Snapshot((of,)), now=0.0).refusal(NEVER, BORROWED)


def test_a_job_that_stays_does_not_take_what_a_guarantee_needs_beside_the_work_of_others() -> None:
    assert refusal(node("n", 1000, 1000)) == ""
    assert refusal(node("n", 0, 1000, 1000)) == "", "one of three is others', and two are needed"
    assert refusal(node("n", 0, 1000)) == "promised"


def test_what_runs_here_is_not_taken_for_the_work_of_others() -> None:
    assert refusal(node("n", 0, 1000), running(Grant("n/0", 1000))) == ""
    assert refusal(node("n", 0, 1000), running(Grant("n/0", 250))) == "promised"


@pytest.mark.parametrize("ours", [7, 6])
def test_instances_are_counted_to_the_last_one(ours: int) -> None:
    empty = fixed("n", SEVENTHS, SEVENTHS)
    held = empty.devices[0].carved([Instance(*each) for each in SEVENTHS])
    grants = [Grant("n/0", 8, 7, profile, start) for profile, start in SEVENTHS[:ours]]
    told = refusal(replace(empty, devices=(held, empty.devices[1])), running(*grants))
    assert told == ("" if ours == 7 else "promised")
