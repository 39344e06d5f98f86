"""What others run on the cluster is shown as theirs, by name to operators alone; instances and problems are said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard import heatmap
from dashboard.heatmap import BROKEN, CARVED
from haein.cluster import inventory
from haein.lib import clock
from jobs import occupancy
from jobs.occupancy import FREE, FULL, PARTLY
from tests.cast import Person, node_fact
from tests.dashboard import crowd
from tests.dashboard.crowd import Slice
from tests.jobs.test_outside import HALVES, SEVENTHS, carved, part, report, work

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared(alice: Person) -> None:
    """Alice's jobs and others' work, side by side: on shares, on instances, on whole devices."""
    facts = [carved(node_fact(devices=4), SEVENTHS), replace(node_fact("node2", devices=1), problem="Down: no answer.")]
    theirs = (part(0, 8, 7, "1g.23gb", 5), part(1, 500), part(2))
    report(facts, work(*theirs, name="4711 secret-bert"))
    crowd.hold(alice, {"node1/gpu0": [Slice(8, "1g.23gb", 0, 1)], "node1/gpu1": [Slice(250)]})


def test_a_frame_says_what_of_each_device_is_held_by_others_and_the_layout_its_instances(shared: None) -> None:
    picture = heatmap.picture(occupancy.now())
    assert [node[4] for node in json.loads(picture.layout)["nodes"]] == [
        [[0, 0, 1, 0b0111_1111, 0b0111_1111], [0, 1, 3]],
        [[0, 0, 1]],
    ]
    body = picture.frame[4:]
    assert list(zip(*(body[at : at + 5] for at in range(0, 20, 5)), strict=True)) == [
        (PARTLY | CARVED, 0b0010_0001, 0b0010_0001, 0b0010_0000),
        (PARTLY, 187, 1, 125),
        (FULL, 250, 0, 250),
        (FREE, 0, 0, 0),
        (FREE | BROKEN, 0, 0, 0),
    ]


def test_devices_carved_otherwise_are_another_layout() -> None:
    report([carved(node_fact(), SEVENTHS)])
    before = heatmap.picture(occupancy.now()).number
    report([carved(node_fact(), HALVES)])
    assert heatmap.picture(occupancy.now()).number != before


def figures(person: Person) -> dict[str, str]:
    return {str(label): value for label, value, _note in person.client.get("/cluster/").context["figures"]}


def test_the_page_counts_it_as_outside_and_says_so_only_where_there_is_some(shared: None, alice: Person) -> None:
    assert figures(alice) == {
        "GPUs": "5", "Held": "0.39", "Outside": "1.64", "Free": "1.96", "Unusable": "1", "Drained": "0",
    }  # fmt: skip
    page = alice.client.get("/cluster/").content.decode()
    assert '<li id="key-outside"><i' in page
    assert "+ 1.64 outside" in page
    assert "out of service" in page
    report([node_fact(devices=4)])
    assert "Outside" not in figures(alice)
    assert '<li id="key-outside" hidden>' in alice.client.get("/cluster/").content.decode()


def test_a_carved_device_is_not_counted_as_a_whole_one(alice: Person) -> None:
    report([carved(node_fact(devices=3), SEVENTHS)])
    notes = {str(label): note for label, _value, note in alice.client.get("/cluster/").context["figures"]}
    assert notes["Free"] == "2 of them whole"


def test_a_node_shows_what_others_hold_and_who_they_are_to_operators(
    shared: None, alice: Person, charlie: Person, oda: Person
) -> None:
    hers, his, ops = (who.client.get("/cluster/nodes/node1/").content.decode() for who in (alice, charlie, oda))
    for page in (hers, his, ops):
        assert "Work not submitted through Haein" in page
        assert "5 of 7 instances free" in page
        assert "carved for good: 7 × 1g.23gb" in page
        assert "25 % free" in page
        assert "16 of 64" in page  # cores: each of her two jobs has 4, they have 8
    for page in (hers, his):
        assert "secret-bert" not in page
        assert "bob" not in page
    assert "4711 secret-bert of bob" in ops


def test_a_node_out_of_service_says_why(shared: None, alice: Person) -> None:
    page = alice.client.get("/cluster/nodes/node2/").content.decode()
    assert "Takes no new work: Down: no answer." in page
    assert ">unusable<" in page


def nodes(person: Person) -> dict[str, Any]:
    return {node["name"]: node for node in person.client.get("/api/v1/nodes").json()["results"]}


def test_the_api_says_the_same(shared: None, alice: Person, oda: Person) -> None:
    told = nodes(alice)
    one, two = told["node1"], told["node2"]
    assert (one["problem"], two["problem"], two["devices"][0]["state"]) == ("", "Down: no answer.", "unusable")
    assert one["devices"][0]["layout"] == [{"profile": "1g.23gb", "start": start} for start in range(7)]
    assert one["devices"][3]["layout"] == []
    theirs = {"share": 125, "profile": "1g.23gb", "start": 5, "work": None, "owner": None}
    assert one["devices"][0]["outside"] == [theirs]
    assert [(device["used"], device["free"]) for device in one["devices"]] == [
        (125, 750),
        (250, 250),
        (0, 0),
        (0, 1000),
    ]
    (seen,) = nodes(oda)["node1"]["devices"][0]["outside"]
    assert (seen["work"], seen["owner"]) == ("4711 secret-bert", "bob")


@pytest.mark.parametrize("path", ["/cluster/", "/cluster/nodes/node1/", "/api/v1/nodes"])
def test_much_of_it_takes_as_many_queries_as_little(alice: Person, path: str) -> None:
    facts = [carved(node_fact(devices=4), SEVENTHS), node_fact("node2")]

    def queries() -> int:
        alice.client.get(path)
        with CaptureQueriesContext(connection) as seen:
            assert alice.client.get(path).status_code == 200
        return len(seen)

    report(facts, work(part(1)))
    few = queries()
    report(facts, *(work(part(index % 4, 10), name=str(index)) for index in range(40)))
    assert queries() == few
    inventory.refresh(facts, now=clock.now())
    assert queries() == few
