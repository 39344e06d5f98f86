"""MIG instances, shares with memory, gangs and places: from the spec through a pass into rows, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from billing import prices, statements
from haein.cluster import inventory
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.cluster.models import DeviceModel, Node
from haein.lib import clock
from haein.lib.errors import Invalid
from haein.placement import books
from haein.placement.ledger import Kind
from haein.placement.model import Grant
from jobs import lifecycle, scheduling, services, snapshots, standing
from jobs.models import Allocation, Attempt, Job, Worker
from jobs.spec import Spec
from tests.cast import SPEC, Person, node_fact

Submit = Callable[..., Job]
READY = frozenset({"python"})


@pytest.fixture
def paper(db: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> SimulatorBackend:
    """The simulator's nine nodes as the cluster: racks of four, the last of them in the pool that serves."""
    made = SimulatorBackend(tmp_path, nodes=9)
    monkeypatch.setattr(services, "backend", lambda: made)
    inventory.refresh(made.inventory(), now=clock.now())
    prices.fill_gaps()
    return made


def look() -> int:
    placed = scheduling.run_pass(now=clock.now(), ready=READY)
    assert_law_2()
    return placed


def assert_law_2() -> None:
    """What the rows hold, and what the snapshot says is free, add up on every device in both of its dimensions."""
    held = [
        (
            Grant(row.device_id, row.units, row.memory, row.profile, -1 if row.start is None else row.start),
            Kind.BILLABLE,
        )
        for row in Allocation.objects.filter(ended_at=None)
    ]
    books.check(snapshots.now(), held)


def held(job: Job) -> list[Allocation]:
    rows = Allocation.objects.filter(attempt__job=job).select_related("device__node")
    return list(rows.order_by("rank", "device__node__name", "device__index"))


def why(job: Job) -> str:
    job.refresh_from_db()
    return services.why(job)


@pytest.mark.usefixtures("paper")
def test_instances_of_one_device_fill_it_and_each_pays_its_memory_slices(alice: Person, submit: Submit) -> None:
    jobs = [submit(alice, name=name, profile=name) for name in ("3g.90gb", "2g.45gb", "1g.23gb", "1g.23gb")]
    assert look() == 4
    rows = [held(job)[0] for job in jobs]
    assert len({row.device_id for row in rows}) == 1, "the instances are packed on one device"
    assert [(row.profile, row.units, row.memory, row.weight) for row in rows] == [
        ("3g.90gb", 24, 28, 500),
        ("2g.45gb", 16, 14, 250),
        ("1g.23gb", 8, 7, 125),
        ("1g.23gb", 8, 7, 125),
    ]
    carved = [job.events.get(kind="place").reason_values["carved"] for job in jobs]
    device = f"{rows[0].device.node.name}/gpu{rows[0].device.index}"
    assert set(carved) == {
        f"carve {device} into "
        + " + ".join(profile for _, profile in sorted((row.start, row.profile) for row in rows))
        + ": touches no running job, lets 4 waiting jobs start"
    }


@pytest.mark.usefixtures("paper")
def test_a_carved_device_takes_more_instances_and_nothing_else(alice: Person, submit: Submit) -> None:
    Node.objects.exclude(name="sim-001").update(present=False)
    submit(alice, profile="1g.23gb", gpus=8)
    assert look() == 1
    whole, share = submit(alice, name="whole"), submit(alice, name="share", share=100)
    more = submit(alice, name="more", profile="2g.45gb", gpus=8)
    assert look() == 1
    assert [row.profile for row in held(more)] == ["2g.45gb"] * 8
    assert "No whole GPU is free" in why(whole)
    assert "100 of 1000" in why(share)
    assert "carve what is free of sim-001/gpu0 into 2g.45gb" in str(more.events.get(kind="place").reason_values)


@pytest.mark.usefixtures("paper")
def test_an_ended_instance_leaves_its_start_to_the_next_and_an_empty_device_is_whole_again(
    alice: Person, submit: Submit
) -> None:
    Node.objects.exclude(name="sim-001").update(present=False)
    first = submit(alice, profile="7g.180gb", gpus=8)
    assert look() == 1
    waits = submit(alice, name="waits", gpus=8)
    assert look() == 0
    assert "none is free to be carved anew" in services.outlook(replace(SPEC, profile="1g.23gb"))[0]
    Allocation.objects.filter(attempt__job=first).update(ended_at=timezone.now())
    Attempt.objects.filter(job=first).update(state="ended")
    assert look() == 1
    assert {row.units for row in held(waits)} == {1000}


@pytest.mark.usefixtures("paper")
def test_two_instances_never_begin_at_one_start(alice: Person, submit: Submit) -> None:
    job = submit(alice, profile="1g.23gb")
    look()
    (row,) = held(job)
    row.pk, row.rank = None, 1
    with pytest.raises(IntegrityError, match="allocation_one_at_a_start"), transaction.atomic():
        row.save()


@pytest.mark.usefixtures("paper")
def test_the_memory_of_a_share_is_given_once(alice: Person, submit: Submit) -> None:
    Node.objects.exclude(name="sim-001").update(present=False)
    model = DeviceModel.objects.get()
    greedy = [submit(alice, name=f"greedy {n}", share=300, gpu_memory_mb=model.memory_mb * 7 // 10) for n in range(8)]
    assert look() == 8
    assert len({held(job)[0].device_id for job in greedy}) == 8
    assert {held(job)[0].weight for job in greedy} == {499}, "the mean of 300 and 699 thousandths, rounded down"
    fits = submit(alice, name="fits", share=700, gpu_memory_mb=model.memory_mb * 3 // 10 - 10)
    too_large = submit(alice, name="too large", share=600)
    assert look() == 1
    assert held(fits)[0].weight == (700 + 299) // 2
    assert "of its memory free together" in why(too_large)
    assert held(greedy[0])[0].weight + held(fits)[0].weight <= 1000


@pytest.mark.usefixtures("paper")
def test_a_gang_starts_in_one_attempt_on_as_many_nodes_or_not_at_all(alice: Person, submit: Submit) -> None:
    gang = submit(alice, name="gang", gpus=8, workers=4, near="rack", near_required=True)
    assert look() == 1
    attempt = Attempt.objects.get(job=gang)
    nodes = [attempt.node, *(worker.node for worker in attempt.workers.all())]
    assert len({node.pk for node in nodes}) == 4
    assert len({node.rack for node in nodes}) == 1
    assert [worker.rank for worker in attempt.workers.all()] == [1, 2, 3]
    rows = held(gang)
    assert len(rows) == 32
    assert all(row.device.node == nodes[row.rank] for row in rows)
    launch = lifecycle._launch_of(attempt, {})
    assert [place.node for place in launch.places] == [node.name for node in nodes]
    assert [len(place.slices) for place in launch.places] == [8] * 4
    used = snapshots.used_by_node()
    assert {used[node.pk] for node in nodes} == {(gang.cpus, gang.memory_mb)}

    second = submit(alice, name="second", gpus=8, workers=4, near="rack", near_required=True)
    third = submit(alice, name="third", gpus=8, workers=4, near="rack", near_required=True)
    assert look() == 1
    assert held(second)
    assert not held(third)
    assert not Worker.objects.filter(attempt__job=third)
    assert "Room for 4 workers at once is needed in one rack" in why(third)
    assert standing.sooner(third, now=clock.now())[0] == "with 1 worker"


@pytest.mark.usefixtures("paper")
def test_workers_of_one_gang_may_share_a_device(alice: Person, submit: Submit) -> None:
    job = submit(alice, workers=4, share=250, near="node", near_required=True)
    assert look() == 1
    rows = held(job)
    assert [row.rank for row in rows] == [0, 1, 2, 3]
    assert len({row.device.node_id for row in rows}) == 1


@pytest.mark.usefixtures("paper")
def test_it_goes_only_where_it_said_it_may(alice: Person, submit: Submit) -> None:
    serving = submit(alice, name="serving", pool="serve")
    fast = submit(alice, name="fast", labels=["infiniband"], gpu_model="H100|B200")
    assert look() == 2
    assert [row.device.node.pool for row in held(serving)] == ["serve"]
    assert [row.device.node.labels for row in held(fast)] == [["infiniband"]]
    full = submit(alice, name="full", pool="serve", gpus=8)
    assert look() == 0
    assert "8 whole GPUs must be free on one node; the best node has 7" in why(full)


@pytest.mark.usefixtures("paper")
def test_a_drained_node_takes_nothing_new(alice: Person, submit: Submit) -> None:
    Node.objects.exclude(name="sim-009").update(drained_at=timezone.now(), drain_reason="new firmware")
    first, second = submit(alice, name="first", gpus=5), submit(alice, name="second", gpus=5)
    assert look() == 1
    assert [row.device.node.name for row in held(first)] == ["sim-009"] * 5
    Node.objects.update(drained_at=timezone.now())
    Node.objects.filter(name="sim-009").update(drained_at=None)
    assert look() == 0
    assert "5 whole GPUs" in why(second)


FAULTS = [
    ({"profile": "9g.1tb"}, "profile", "1g.23gb"),
    ({"profile": "1g.10gb"}, "profile", "there are: 1g.23gb"),
    ({"profile": "1g.23gb", "share": 500}, "share", "not for both"),
    ({"profile": "1g.23gb", "gpus": 0}, "profile", "at least one"),
    ({"profile": "1g.23gb", "gpu_memory_mb": 100}, "gpu_memory_mb", "leave this out"),
    ({"gpu_memory_mb": 100}, "gpu_memory_mb", "all its memory"),
    ({"share": 500, "gpu_memory_mb": 200_000}, "gpu_memory_mb", "183359 MiB"),
    ({"gpu_model": "H100"}, "gpu_model", "it has: B200"),
    ({"gpu_model": "<b>"}, "gpu_model", "for example B200"),
    ({"pool": "no such"}, "pool", "letters, digits"),
    ({"pool": "nowhere"}, "pool", "in pool nowhere"),
    ({"labels": ["blue"]}, "labels", "labelled blue"),
    ({"labels": ["a b"]}, "labels", "a b"),
    ({"workers": 0}, "workers", "From 1 to"),
    ({"workers": 10, "gpus": 8}, "workers", "room for 9 at most"),
    ({"near": "street"}, "near", "node, rack, pod, any"),
]


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize(("asked", "field", "words"), FAULTS)
def test_what_can_never_be_is_refused_by_the_name_of_its_field(
    alice: Person, submit: Submit, asked: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        submit(alice, **asked)
    assert words in refused.value.fields[field]
    assert not Job.objects.exists()


@pytest.mark.usefixtures("big")
@pytest.mark.parametrize("asked", [{"workers": 2}, {"profile": "1g.23gb"}])
def test_one_machine_refuses_gangs_and_instances_at_the_door(
    alice: Person, submit: Submit, asked: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as refused:
        submit(alice, **asked)
    assert set(refused.value.fields) == set(asked)


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize(
    ("asked", "cost"),
    [
        ({"profile": "1g.23gb"}, 125),
        ({"profile": "3g.90gb", "gpus": 2}, 1000),
        ({"profile": "7g.180gb"}, 1000),
        ({"share": 250}, 250),
        ({"share": 250, "gpu_memory_mb": 183_359 // 2}, 374),
        ({"gpus": 8, "workers": 4}, 32_000),
        ({"gpu_model": "B200"}, 1000),
    ],
)
def test_the_quote_is_what_the_slice_then_costs(
    alice: Person, submit: Submit, asked: dict[str, Any], cost: int
) -> None:
    now = clock.now()
    whole = statements.quote(SPEC, now=now).most
    assert statements.quote(replace(SPEC, **asked), now=now).most == whole * cost // 1000
    job = submit(alice, **asked)
    look()
    Allocation.objects.update(billable_from=now)
    assert statements.of_job(job, now=clock.now()).per_hour == whole * cost // 1000


def test_a_spec_comes_back_from_the_job_that_it_made(alice: Person, submit: Submit, paper: SimulatorBackend) -> None:
    asked: dict[str, Any] = {
        "gpus": 2, "share": 500, "gpu_memory_mb": 1024, "gpu_model": "B200", "workers": 2, "near": "pod",
        "near_required": True, "pool": "train", "labels": ["infiniband"],
    }  # fmt: skip
    again = services.spec_of(submit(alice, **asked))
    assert {name: getattr(again, name) for name in asked} == asked
    assert services.spec_of(submit(alice, profile="2g.45gb")).profile == "2g.45gb"


def test_whoever_reports_a_node_says_where_it_stands(db: None) -> None:
    fact = replace(node_fact(), pool="a", labels=("x", "b"), rack="r1", pod="p1")
    for told in (fact, replace(fact, pool="b")):
        inventory.refresh([told], now=clock.now())
    node = Node.objects.get()
    assert (node.pool, node.labels, node.rack, node.pod) == ("b", ["b", "x"], "r1", "p1")


def test_an_empty_spec_asks_for_one_whole_gpu_anywhere() -> None:
    assert not Spec("a", "true").slice_faults()
