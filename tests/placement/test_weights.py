"""What is on one device at once costs what the device does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement import mig, weights
from haein.placement.model import Grant


def test_no_legal_layout_costs_more_than_the_device_and_a_full_one_costs_all_of_it() -> None:
    costs = [sum(weights.of_instance(profile) for profile, _ in layout) for layout in mig.legal_layouts()]
    assert len(costs) == 723
    assert max(costs) == 1000
    assert weights.of_instance(mig.profiles("B200")["7g.180gb"]) == 1000


@pytest.mark.parametrize(
    ("profile", "weight"),
    [("1g.23gb", 125), ("1g.45gb", 250), ("2g.45gb", 250), ("3g.90gb", 500), ("4g.90gb", 500), ("7g.180gb", 1000)],
)
def test_an_instance_costs_its_memory_slices(profile: str, weight: int) -> None:
    assert weights.of_grant(Grant(1, 8, 7, profile, 0), "B200", 183_359) == weight


@given(st.integers(1, 1000), st.integers(0, 200_000))
def test_a_share_with_its_own_part_of_the_memory_costs_itself(units: int, memory_mb: int) -> None:
    assert weights.of_grant(Grant(1, units, memory_mb * units // 1000), "B200", memory_mb) == units


@given(st.data(), st.integers(8192, 200_000))
def test_shares_of_one_device_add_up_to_it_but_for_the_roundings(data: st.DataObject, memory_mb: int) -> None:
    """Each share with its own part leaves less than a MiB to others, and one of nearly nothing costs a thousandth."""
    units, free_mb, total, rounded = 1000, memory_mb, 0, 0.0
    while units:
        share = data.draw(st.integers(1, units))
        own = memory_mb * share // 1000
        asked = data.draw(st.one_of(st.just(own), st.integers(0, free_mb)))
        if asked > free_mb:
            break
        total += weights.of_share(share, asked, memory_mb)
        rounded += 500 / memory_mb if asked == own else 0.5 * (share == 1)
        units, free_mb = units - share, free_mb - asked
    assert total <= 1000 + rounded
