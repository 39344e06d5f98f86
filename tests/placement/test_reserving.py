"""What a reservation is given: all or nothing, whole nodes first, as few as can be, nobody sent away without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haein.placement.reserving import Room, choose

ROOMS = st.lists(
    st.tuples(st.lists(st.floats(0, 1e4), max_size=8), st.booleans()), min_size=1, max_size=12
).map(
    lambda nodes: [
        Room(at, f"n{at}", tuple((f"n{at}/{index}", end) for index, end in enumerate(ends)), whole)
        for at, (ends, whole) in enumerate(nodes)
    ]
)  # fmt: skip


def room(name: str, *ends: float, whole: bool = True) -> Room:
    return Room(name, name, tuple((f"{name}/{index}", end) for index, end in enumerate(ends)), whole)


@given(rooms=ROOMS, gpus=st.integers(1, 100))
def test_it_is_as_many_as_are_wanted_each_once_or_nothing(rooms: list[Room], gpus: int) -> None:
    chosen = choose(rooms, gpus, 100.0)
    there = {device for each in rooms for device, _ in each.devices}
    if chosen is None:
        assert len(there) < gpus
    else:
        assert len(chosen) == len(set(chosen)) == gpus
        assert set(chosen) <= there


def test_a_whole_node_goes_before_one_that_is_begun() -> None:
    rooms = [room("a", 0, 0, whole=False), room("b", 0, 0)]
    assert choose(rooms, 2, 10) == ["b/0", "b/1"]


def test_among_whole_nodes_goes_the_one_that_nobody_has_to_leave() -> None:
    rooms = [room("a", 0, 500), room("b", 90, 80), room("c", 200, 0)]
    assert choose(rooms, 2, 100) == ["b/1", "b/0"]


def test_what_is_left_over_comes_from_one_node_and_from_the_smallest_that_has_it() -> None:
    rooms = [room("a", 0), room("b", 0, 0, 0, 0), room("c", 0, 0, 0), room("d", 0, 0, 0, whole=False)]
    assert choose(rooms, 6, 10) == ["b/0", "b/1", "b/2", "b/3", "c/0", "c/1"]


def test_where_no_node_has_all_of_it_the_one_with_most_goes_first() -> None:
    rooms = [room("a", 0, whole=False), room("b", 0, 0, whole=False), room("c", 0, 0, 0, whole=False)]
    assert choose(rooms, 5, 10) == ["c/0", "c/1", "c/2", "b/0", "b/1"]
