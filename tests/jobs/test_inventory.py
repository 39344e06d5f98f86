"""The rows of nodes and devices follow the report, with a few queries however large the cluster is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.cluster import inventory
from haein.cluster.backends.base import NodeFact
from haein.cluster.models import Device, Node
from haein.lib import clock
from tests.cast import node_fact

pytestmark = pytest.mark.django_db

LARGE = [node_fact(f"n{number}") for number in range(129)]


def broken(fact: NodeFact, problem: str) -> NodeFact:
    return replace(fact, devices=tuple(replace(device, problem=problem) for device in fact.devices))


def queries(facts: list[NodeFact]) -> int:
    with CaptureQueriesContext(connection) as seen:
        inventory.refresh(facts, now=clock.now())
    return sum(not query["sql"].startswith(("SAVEPOINT", "RELEASE")) for query in seen)


def test_a_thousand_devices_take_as_many_queries_as_one() -> None:
    first = queries(LARGE)
    assert Device.objects.count() == 1032
    again, changed = queries(LARGE), queries([broken(fact, "hot") for fact in LARGE])
    Device.objects.all().delete()
    Node.objects.all().delete()
    small = [node_fact("n1", devices=1)]
    assert first >= queries(small)
    assert (again, changed) == (queries(small), queries([broken(small[0], "hot")]))
    assert first <= 11
    assert again < changed <= 8


def test_only_what_changed_is_written() -> None:
    inventory.refresh(LARGE, now=clock.now())
    with CaptureQueriesContext(connection) as seen:
        inventory.refresh([broken(LARGE[0], "hot"), *LARGE[1:]], now=clock.now())
    (written,) = [query["sql"] for query in seen if query["sql"].startswith("INSERT")]
    assert written.count("hot") == 8
    assert Device.objects.filter(problem="hot").count() == 8


def test_what_is_no_longer_named_is_absent_and_keeps_its_key_when_it_comes_back() -> None:
    one, two = node_fact("one"), node_fact("two")
    inventory.refresh([one, two], now=clock.now())
    keys = dict(Device.objects.values_list("uuid", "pk"))
    inventory.refresh([replace(one, devices=one.devices[:5], cpus=1000)], now=clock.now())
    assert list(Node.objects.order_by("name").values_list("name", "present", "cpus")) == [
        ("one", True, 1000),
        ("two", False, 64_000),
    ]
    assert list(Device.objects.filter(node__name="one").values_list("present", flat=True)) == [True] * 5 + [False] * 3
    inventory.refresh([one, two], now=clock.now())
    assert dict(Device.objects.values_list("uuid", "pk")) == keys
    assert not Device.objects.filter(present=False).exists()
    assert Node.objects.filter(present=True).count() == 2


def test_a_node_is_seen_each_time_it_reports() -> None:
    before = clock.now()
    inventory.refresh([node_fact()], now=before)
    inventory.refresh([node_fact()], now=before + timedelta(seconds=10))
    assert Node.objects.get().seen_at == before + timedelta(seconds=10)


def test_a_device_that_was_put_into_another_node_is_that_nodes() -> None:
    one, two = node_fact("one", devices=1), node_fact("two", devices=0)
    inventory.refresh([one, two], now=clock.now())
    inventory.refresh([replace(one, devices=()), replace(two, devices=one.devices)], now=clock.now())
    assert Device.objects.get().node.name == "two"
    assert Device.objects.get().usable
