"""The table of MIG profiles against the published facts, which tests/data holds with their sources."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from haein.placement import mig

PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "mig_profiles.json").read_text()
)["gpus"]


def published_layouts(model: str) -> set[frozenset[tuple[str, int]]]:
    """Every legal set of (profile, start), from the published rows alone: no two overlap, none is there too often."""
    rows = [row for row in PUBLISHED[model]["profiles"] if not row["profile"].endswith("+me")]
    spots = [(row["profile"], start, row["memory_slices"]) for row in rows for start in row["starts"]]
    most = {row["profile"]: row["max_count"] for row in rows}
    layouts: set[frozenset[tuple[str, int]]] = {frozenset()}
    sizes = {row["profile"]: row["memory_slices"] for row in rows}

    def overlap(layout: frozenset[tuple[str, int]], start: int, size: int) -> bool:
        return any(start < at + sizes[name] and at < start + size for name, at in layout)

    for profile, start, size in spots:
        layouts |= {
            layout | {(profile, start)}
            for layout in layouts
            if not overlap(layout, start, size) and sum(name == profile for name, _ in layout) < most[profile]
        }
    return layouts


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_profiles_are_the_published_ones(model: str) -> None:
    ours = {name: (p.compute, p.memory, p.starts) for name, p in mig.profiles(model).items()}
    theirs = {
        row["profile"]: (row["compute_slices"], row["memory_slices"], tuple(row["starts"]))
        for row in PUBLISHED[model]["profiles"]
        if not row["profile"].endswith("+me")
    }
    assert ours == theirs


def test_the_legal_layouts_are_the_723() -> None:
    names = {profile: name for name, profile in mig.profiles("B200").items()}
    ours = [frozenset((names[p], start) for p, start in layout) for layout in mig.legal_layouts()]
    assert len(ours) == 723
    assert set(ours) == published_layouts("B200-180GB")


def test_what_is_reachable_is_the_most_that_any_layout_around_it_holds() -> None:
    layouts = list(mig.legal_layouts())
    for layout, mask in ((each, sum(p.bits(start) for p, start in each)) for each in layouts[::7]):
        beyond = [other - layout for other in layouts if layout <= other]
        compute = max(sum(p.compute for p, _ in more) for more in beyond)
        memory = max(sum(p.memory for p, _ in more) for more in beyond)
        assert mig.reachable(mask) == (compute, memory)


def test_two_of_3g_and_seven_of_1g_strand_a_slice() -> None:
    one, three = mig.profiles("B200")["1g.23gb"], mig.profiles("B200")["3g.90gb"]
    assert mig.reachable(three.bits(0) | three.bits(4)) == (0, 0)
    assert mig.reachable(sum(one.bits(start) for start in range(7))) == (0, 0)


@pytest.mark.parametrize(
    ("said", "profile"),
    [
        ("NVIDIA A100-SXM4-80GB", "3g.40gb"),
        ("NVIDIA H100 80GB HBM3", "3g.40gb"),
        ("NVIDIA H200", "3g.71gb"),
        ("NVIDIA B200", "3g.90gb"),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA L4", None),
        ("", None),
    ],
)
def test_a_model_is_known_by_the_driver_s_name(said: str, profile: str | None) -> None:
    assert (profile in mig.profiles(said)) is (profile is not None)
    assert profile or not mig.profiles(said)


def test_no_start_of_a_profile_overlaps_another_so_free_starts_are_copies() -> None:
    for profile in mig.PROFILES:
        for a, b in itertools.combinations(profile.starts, 2):
            assert not profile.bits(a) & profile.bits(b)
