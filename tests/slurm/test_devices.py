"""Slurm's generic resources as our devices, and what Slurm gave as our slices."""

from __future__ import annotations

import pytest

from haein.cluster.backends.base import SliceGrant
from haein.cluster.backends.slurm import devices
from haein.cluster.backends.slurm.records import Gres, Held, NodeRecord, ReservationRecord
from haein.placement import mig


def node(*gres: Gres, features: tuple[str, ...] = ("b200",), states: str = "IDLE", reason: str = "") -> NodeRecord:
    return NodeRecord("n1", 112, 2_000_000, gres, features, ("main",), frozenset(states.split("+")), reason, "root")


def rig(*gres: Gres, features: tuple[str, ...] = ("b200",)) -> devices.Rig:
    return devices.rig_of(node(*gres, features=features), emulated=False)


def test_a_typed_gpu_is_a_device_of_that_model() -> None:
    found = rig(Gres("gpu", "b200", 8))
    assert [device.model for device in found.devices] == ["b200"] * 8
    assert {device.memory_mb for device in found.devices} == {183_359}
    assert len({device.uuid for device in found.devices}) == 8


def test_fifty_six_small_instances_are_eight_boards_of_seven() -> None:
    found = rig(Gres("gpu", "1g.23gb", 56))
    assert len(found.devices) == 8
    assert [[cut.start for cut in device.layout] for device in found.devices] == [list(range(7))] * 8
    assert {device.model for device in found.devices} == {"b200"}


@pytest.mark.parametrize(
    "gres",
    [
        (Gres("gpu", "1g.23gb", 4), Gres("gpu", "3g.90gb", 2)),
        (Gres("gpu", "2g.45gb", 3), Gres("gpu", "1g.23gb", 1), Gres("gpu", "4g.90gb", 1)),
    ],
)
def test_boards_that_are_put_together_are_legal(gres: tuple[Gres, ...]) -> None:
    found = rig(*gres)
    for device in found.devices:
        table, mask = mig.profiles(device.model), 0
        for cut in device.layout:
            assert cut.start in table[cut.profile].starts
            assert not mask & table[cut.profile].bits(cut.start)
            mask |= table[cut.profile].bits(cut.start)
    assert len(found.units) == sum(each.count for each in gres)


def test_the_model_of_instances_is_the_one_that_the_node_names() -> None:
    assert rig(Gres("gpu", "1g.10gb", 7), features=("h100",)).devices[0].model == "h100"
    assert rig(Gres("gpu", "1g.10gb", 7), features=()).devices[0].model in mig.MODELS


def test_slurm_numbers_gpus_through_all_types_of_a_node() -> None:
    mixed = rig(Gres("gpu", "b200", 6), Gres("gpu", "1g.23gb", 7), Gres("gpu", "3g.90gb", 2))
    held = Held("n1", 4, 100, (Gres("gpu", "3g.90gb", 1, (13,)), Gres("gpu", "b200", 2, (1, 4))))
    place = devices.place_of(held, mixed)
    assert place is not None
    assert [(grant.profile, grant.units) for grant in place.slices] == [("", 1000), ("", 1000), ("3g.90gb", 24)]
    assert [grant.device_index for grant in place.slices[:2]] == [1, 4]


def test_an_index_that_is_not_known_yet_is_no_place() -> None:
    assert devices.place_of(Held("n1", 4, 100, (Gres("gpu", "b200", 1, (9,)),)), rig(Gres("gpu", "b200", 8))) is None
    assert devices.place_of(Held("n1", 4, 100, (Gres("gpu", "b200", 1),)), rig(Gres("gpu", "b200", 8))) is None


def test_shards_are_shares_of_one_device() -> None:
    shared = rig(Gres("gpu", "b200", 8), Gres("shard", "b200", 80))
    assert shared.shards == 10
    place = devices.place_of(Held("n1", 1, 100, (Gres("shard", "b200", 3, (2,)),)), shared)
    assert place is not None
    assert place.slices == (SliceGrant(shared.devices[2].uuid, 2, 300),)


@pytest.mark.parametrize(
    ("slices", "workers", "asked"),
    [
        ((), 1, ""),
        ((SliceGrant("slurm:n1:b200:0", 0, 1000),) * 2, 1, "gpu:b200:2"),
        ((SliceGrant("slurm:n1:b200:0", 0, 1000),) * 2, 3, "gpu:b200:6"),
        ((SliceGrant("slurm:n1:/mig:0", 0, 8, 7, "1g.23gb", 0),), 1, "gpu:1g.23gb:1"),
        ((SliceGrant("slurm:n1:b200:0", 0, 300),), 1, "shard:3"),
        ((SliceGrant("slurm:n1::0", 0, 1000),), 1, "gpu:1"),
    ],
)
def test_what_is_asked_of_slurm_names_the_type(slices: tuple[SliceGrant, ...], workers: int, asked: str) -> None:
    assert devices.gres_for(slices, 10, workers) == asked


@pytest.mark.parametrize(
    ("states", "reason", "said"),
    [
        ("IDLE", "", ""),
        ("MIXED", "", ""),
        ("IDLE+DRAIN", "disk", "Drained in Slurm by root: disk."),
        ("IDLE+DRAIN", "haein: firmware", ""),
        ("DOWN+DRAIN", "haein: firmware", "Slurm says that it is down: haein: firmware."),
        ("DOWN+NOT_RESPONDING", "", "Slurm says that it is down, not responding."),
    ],
)
def test_a_node_that_takes_no_work_says_why(states: str, reason: str, said: str) -> None:
    assert devices.problem_of(node(Gres("gpu", "b200", 8), states=states, reason=reason)) == said


def test_a_reservation_of_others_keeps_its_nodes_from_us_while_it_lasts() -> None:
    theirs = ReservationRecord("exam", 100, 200, ("n1", "n2"), ("bob",), (), frozenset())
    ours = ReservationRecord("haein", 100, 200, ("n3",), (), (), frozenset())
    assert devices.reserved_nodes([theirs, ours], now=150, ours="haein") == {"n1": "exam", "n2": "exam"}
    assert devices.reserved_nodes([theirs, ours], now=200, ours="haein") == {}
