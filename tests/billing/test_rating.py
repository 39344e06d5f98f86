"""Time times price is exact, however the time is cut."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import rating
from billing.rating import Tariff

ALWAYS = Tariff(1, 0, None, 4_000_000)


@settings(deadline=None, database=None)
@given(
    st.integers(0, 10**9),
    st.integers(1, 10**6),
    st.integers(1, 1000),
    st.integers(0, 10**9),
    st.lists(st.integers(0, 10**6), max_size=20),
)
def test_the_parts_of_an_interval_cost_what_the_whole_costs(
    start: int, seconds: int, units: int, price: int, cuts: list[int]
) -> None:
    tariffs = [Tariff(1, 0, None, price)]
    (whole,) = rating.rate(start, start + seconds, units, tariffs)
    parts = rating.rate(start, start + seconds, units, tariffs, cuts=[start + cut for cut in cuts])
    assert rating.add(part.exact for part in parts) == whole.exact == Fraction(seconds * units * price, 3_600_000)
    assert parts[0].start == start
    assert parts[-1].end == start + seconds
    assert all(one.end == next_.start for one, next_ in pairwise(parts))


@settings(deadline=None, database=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50), st.integers(1, 1000), st.integers(1, 10**8))
def test_added_first_and_rounded_once_it_is_never_half_a_micro_unit_off(
    spans: list[int], units: int, price: int
) -> None:
    exact = [rating.amount(span * units, price) for span in spans]
    assert abs(rating.total(exact) - sum(exact, Fraction())) <= Fraction(1, 2)


@settings(deadline=None, database=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.integers(0, 40_000), st.integers(1, 40_000))
def test_every_second_is_charged_at_the_price_of_its_moment(lengths: list[int], start: int, seconds: int) -> None:
    edges = [0]
    for length in lengths:
        edges.append(edges[-1] + length)
    tariffs = [Tariff(n, a, b, n + 1) for n, (a, b) in enumerate(zip(edges, [*edges[1:], None], strict=True))]
    lines = rating.rate(start, start + seconds, 1000, tariffs)
    charged = sum(line.seconds * line.tariff.per_hour for line in lines)
    by_second = 0
    for tariff in tariffs:
        until = tariff.until if tariff.until is not None else start + seconds
        by_second += max(0, min(until, start + seconds) - max(tariff.since, start)) * tariff.per_hour
    assert charged == by_second


def test_a_price_that_changes_makes_two_lines() -> None:
    lines = rating.rate(50, 150, 500, [Tariff(1, 0, 100, 4_000_000), Tariff(2, 100, None, 8_000_000)])
    assert [(line.tariff.id, line.start, line.end, line.seconds) for line in lines] == [
        (1, 50, 100, 50),
        (2, 100, 150, 50),
    ]


def test_a_second_without_a_price_is_an_error_and_not_free() -> None:
    with pytest.raises(LookupError, match="no price at 100 s"):
        rating.rate(50, 150, 1000, [Tariff(1, 0, 100, 4_000_000)])
    with pytest.raises(LookupError):
        rating.rate(50, 150, 1000, [])


def test_the_example_of_the_documentation_is_right() -> None:
    """docs/billing.md works it out by hand: half a GPU for 1,234 s at $4.00, then at $5.00 for 66 s."""
    first, second = rating.amount(1234 * 500, 4_000_000), rating.amount(66 * 500, 5_000_000)
    assert (round(first), round(second)) == (685_556, 45_833)
    assert rating.total([first, second]) == 731_389
