"""Slurm's ways of writing, against what 22.05 really printed and against themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.cluster.backends.slurm import parsing
from haein.cluster.backends.slurm.records import Gres, State

heads = st.from_regex(r"[a-z]([a-z0-9-]{0,5}[a-z-])?", fullmatch=True)
names = st.builds(
    lambda head, number, width: f"{head}{number:0{width}}", heads, st.integers(0, 1200), st.integers(1, 5)
)


@given(st.sets(st.one_of(names, heads), max_size=60))
def test_a_list_of_nodes_survives_being_compressed(nodes: set[str]) -> None:
    assert sorted(parsing.expand(parsing.compress(nodes))) == sorted(nodes)


@given(st.integers(0, 10**8))
def test_a_duration_survives_being_written(seconds: int) -> None:
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    assert parsing.duration(f"{days}-{clock}") == seconds
    assert parsing.duration(clock) == rest


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_indices_survives_being_compressed(numbers: set[int]) -> None:
    listed = parsing.compress(f"n{number:03}" for number in numbers).removeprefix("n").strip("[]")
    assert parsing.indices(listed) == tuple(sorted(numbers))


@pytest.mark.parametrize(
    ("word", "nodes"),
    [
        ("", ()),
        ("(null)", ()),
        ("None assigned", ()),
        ("gpu1", ("gpu1",)),
        ("gpu1,login", ("gpu1", "login")),
        ("node[001-003,007],gpu1", ("node001", "node002", "node003", "node007", "gpu1")),
        ("node[098-101]", ("node098", "node099", "node100", "node101")),
        ("n[9-11]", ("n9", "n10", "n11")),
        ("r[1-2]n[01-02]", ("r1n01", "r1n02", "r2n01", "r2n02")),
        ("a[1,3]-ib,b[7]", ("a1-ib", "a3-ib", "b7")),
    ],
)
def test_node_lists_are_expanded(word: str, nodes: tuple[str, ...]) -> None:
    assert parsing.expand(word) == nodes


def test_a_node_list_is_short() -> None:
    assert parsing.compress([f"node{number:03}" for number in (1, 2, 3, 4, 7)]) == "node[001-004,007]"
    assert parsing.compress(["n9", "n10", "login", "n9"]) == "login,n10,n9"


@pytest.mark.parametrize("word", ["node[001", "node001-003]", "node[1-x]", "a(1"])
def test_a_broken_node_list_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"is no|bracket"):
        parsing.expand(f"x[1],{word}")


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("0:00", 0),
        ("02:03", 123),
        ("02:03.417", 123),
        ("1:02:03", 3723),
        ("2-01:02:03", 176523),
        ("1-02", 93600),
        ("10", 600),
        ("UNLIMITED", None),
        ("N/A", None),
    ],
)
def test_durations(word: str, seconds: int | None) -> None:
    assert parsing.duration(word) == seconds


@pytest.mark.parametrize("word", ["1:2:3:4", "soon", "1-"])
def test_a_broken_duration_is_refused(word: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # int() words one of them
        parsing.duration(word)


@pytest.mark.parametrize(
    ("word", "at"),
    [("1795611089", 1795611089), ("2026-11-25T12:51:29", 1795611089), ("N/A", None), ("Unknown", None), ("0", None)],
)
def test_moments(word: str, at: int | None) -> None:
    assert parsing.moment(word) == at


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("RUNNING", State.RUNNING),
        ("CANCELLED by 1000", State.CANCELLED),
        ("CANCELLED+", State.CANCELLED),
        ("RESIZING", State.RUNNING),
        ("SPECIAL_EXIT", State.PENDING),
        ("LAUNCH_FAILED", State.FAILED),
        ("A_WORD_OF_TOMORROW", State.COMPLETING),
    ],
)
def test_states(word: str, state: State) -> None:
    assert parsing.state(word) is state


@pytest.mark.parametrize(
    ("word", "states"),
    [
        ("IDLE", {"IDLE"}),
        ("IDLE*+DRAIN", {"IDLE", "NOT_RESPONDING", "DRAIN"}),
        ("IDLE+COMPLETING+DRAIN", {"IDLE", "COMPLETING", "DRAIN"}),
        ("DOWN+DRAIN+NOT_RESPONDING", {"DOWN", "DRAIN", "NOT_RESPONDING"}),
        ("IDLE~", {"IDLE", "POWERED_DOWN"}),
        ("MIXED$", {"MIXED", "MAINTENANCE"}),
    ],
)
def test_node_states(word: str, states: set[str]) -> None:
    assert parsing.node_states(word) == states


@pytest.mark.parametrize(
    ("word", "status"), [("0:0", (0, None)), ("3:9", (3, 9)), ("768", (3, None)), ("15", (0, 15)), ("9:0", (9, None))]
)
def test_exit_statuses(word: str, status: tuple[int, int | None]) -> None:
    assert parsing.exit_status(word) == status


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("", ()),
        ("(null)", ()),
        ("gpu:b200:8(S:0-1),shard:80", (Gres("gpu", "b200", 8), Gres("shard", "", 80))),
        ("gpu:1g.23gb:3(IDX:0-2)", (Gres("gpu", "1g.23gb", 3, (0, 1, 2)),)),
        ("gpu:1g.23gb:0(IDX:N/A)", (Gres("gpu", "1g.23gb", 0),)),
        ("gpu:b200:6,gpu:3g.90gb:2", (Gres("gpu", "b200", 6), Gres("gpu", "3g.90gb", 2))),
        ("gpu:4(IDX:0,2,6-7)", (Gres("gpu", "", 4, (0, 2, 6, 7)),)),
        ("gpu:4090:2(IDX:0-1)", (Gres("gpu", "4090", 2, (0, 1)),)),
        ("shard:b200:4(0/10,4/10)", (Gres("shard", "b200", 4),)),
        ("gpu:(null):8", (Gres("gpu", "", 8),)),
        ("gres:gpu:b200:2", (Gres("gpu", "b200", 2),)),
        ("gres/gpu:b200=2", (Gres("gpu", "b200", 2),)),
        ("gpu:b200", (Gres("gpu", "b200", 1),)),
        ("gpu", (Gres("gpu", "", 1),)),
    ],
)
def test_generic_resources(word: str, found: tuple[Gres, ...]) -> None:
    assert parsing.gres(word) == found
