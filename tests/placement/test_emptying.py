"""When a node is empty: at the latest by the limits, probably by how long runs took of theirs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement.emptying import FEWEST, Empty, Run, when

EVEN = [part / 100 for part in range(1, 101)]
HISTORY = st.lists(st.floats(0, 1), min_size=FEWEST, max_size=100)


def run(began: float = 0, limit_s: float = 1000) -> Run:
    return Run(began, limit_s, began + limit_s)


RUNS = st.lists(st.builds(run, st.floats(-5000, 0), st.floats(60, 10_000)), min_size=1, max_size=8)


def test_where_nobody_runs_it_is_empty_now() -> None:
    assert when([], EVEN, 50) == Empty(50, 50)


def test_one_run_is_gone_by_the_median_of_what_others_took() -> None:
    empty = when([run()], EVEN, 0)
    assert empty.latest == 1000
    assert empty.probably == pytest.approx(500, abs=15)


def test_what_it_has_run_already_counts() -> None:
    empty = when([run()], EVEN, 800)
    assert empty.probably == pytest.approx(900, abs=15)


def test_the_last_of_several_is_later_than_each_alone() -> None:
    one, three = (when([run()] * runs, EVEN, 0).probably for runs in (1, 3))
    assert one is not None
    assert three is not None
    assert three == pytest.approx(1000 * 0.5 ** (1 / 3), abs=15)


def test_whoever_outlives_all_that_are_known_runs_to_the_limit() -> None:
    assert when([run()], [0.1] * FEWEST, 200).probably == pytest.approx(1000, abs=2)


def test_whoever_is_told_to_leave_is_gone_by_then() -> None:
    empty = when([Run(0, 1000, 60)], [0.9] * FEWEST, 0)
    assert empty.latest == 60
    assert empty.probably == pytest.approx(60, abs=2)


def test_half_of_the_nodes_are_empty_by_then() -> None:
    """Ten thousand nodes with runs as history has them, drawn at random."""
    chance = random.Random(7)
    parts = [chance.betavariate(0.7, 1.4) for _ in range(2000)]
    longer = [part for part in parts if part > 0.25]
    said = when([run(0, 3600), run(0, 36_000), run(-1800, 7200)], parts, 0).probably
    assert said is not None
    empty = sum(
        max(chance.choice(parts) * 3600, chance.choice(parts) * 36_000, chance.choice(longer) * 7200 - 1800) <= said
        for _ in range(10_000)
    )
    assert 4800 < empty < 5200


def test_without_a_history_nothing_is_probable() -> None:
    assert when([run()], EVEN[: FEWEST - 1], 0) == Empty(1000, None)


@given(runs=RUNS, history=HISTORY)
def test_it_is_never_before_now_nor_after_the_limits(runs: list[Run], history: list[float]) -> None:
    empty = when(runs, history, 0)
    assert empty.probably is not None
    assert 0 <= empty.probably <= empty.latest == max(0, *(run.ends for run in runs))
