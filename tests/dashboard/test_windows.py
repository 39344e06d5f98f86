"""The operators' page of windows, what a member sees of them, and the drain that is planned on a node."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from haein.cluster.models import Node
from haein.lib import clock
from haein.placement.stranded import GPU
from haein.tenants.models import AuditEntry
from jobs import occupancy, scheduling, windows
from jobs.models import Attempt, Window
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
PATH = "/operator/windows/"
HOUR = timedelta(hours=1)


def typed(at: datetime) -> str:
    """As a browser's field sends it."""
    return f"{at:%Y-%m-%dT%H:%M}"


@pytest.fixture
def asked() -> dict[str, Any]:
    now = clock.now()
    times = {"starts_at": typed(now + HOUR), "ends_at": typed(now + 3 * HOUR)}
    return {"kind": "maintenance", "nodes": "node1", "reason": "new disks", **times}


def test_oda_takes_a_node_out(oda: Person, alice: Person, asked: dict[str, Any]) -> None:
    answer = oda.client.post(PATH, asked, follow=True)
    assert "the queue drains toward it" in answer.content.decode()
    window = Window.objects.get()
    assert (window.team, windows.nodes_of(window), typed(window.starts_at)) == (None, ["node1"], asked["starts_at"])
    seen = alice.client.get("/cluster/").content.decode()
    assert "1 node goes out for maintenance (node1): new disks" in seen
    assert "1 node goes out for maintenance" in alice.client.get("/cluster/nodes/node1/").content.decode()


def test_oda_reserves_and_cancels(oda: Person, alice: Person, asked: dict[str, Any]) -> None:
    given = {**asked, "kind": "reservation", "team": str(alice.team.pk), "gpus": "3", "model": "B200"}
    assert oda.client.post(PATH, given).status_code == 302
    window = Window.objects.get()
    assert (window.team, window.gpus, window.devices.count(), window.nodes.count()) == (alice.team, 3, 3, 0)
    assert "3 × B200 reserved for Vision" in alice.client.get("/cluster/").content.decode()
    answer = oda.client.post(f"{PATH}{window.pk}/cancel/", follow=True)
    assert "Cancelled" in answer.content.decode()
    assert "is over already" in oda.client.post(f"{PATH}{window.pk}/cancel/", follow=True).content.decode()
    assert "reserved for Vision" not in alice.client.get("/cluster/").content.decode()
    actions = AuditEntry.objects.filter(action__startswith="window.").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["window.reserve", "window.cancel"]


def test_what_is_wrong_stands_beside_its_field(oda: Person, alice: Person, asked: dict[str, Any]) -> None:
    for given, field, said in (
        ({"nodes": "nodeX"}, "nodes", "There is no node nodeX."),
        ({"nodes": ""}, "nodes", "Name a node, or a rack."),
        ({"ends_at": asked["starts_at"]}, "ends_at", "It must end after it begins."),
        ({"kind": "reservation"}, "gpus", "This is needed for a reservation."),
        (
            {"kind": "reservation", "team": str(alice.team.pk), "gpus": "9", "model": "B200"},
            "gpus",
            "Only 8 B200 are in service.",
        ),
    ):
        answer = oda.client.post(PATH, {**asked, **given})
        assert answer.status_code == 422
        assert said in answer.context["form"].errors[field]
    assert not Window.objects.exists()


def test_racks_are_offered_where_there_are_any(oda: Person, asked: dict[str, Any]) -> None:
    assert "rack" not in oda.client.get(PATH).context["form"].fields
    Node.objects.update(rack="r1")
    assert oda.client.post(PATH, {**asked, "nodes": "", "rack": "r1"}).status_code == 302
    assert windows.nodes_of(Window.objects.get()) == ["node1"]


def test_a_drain_may_be_planned(oda: Person, asked: dict[str, Any]) -> None:
    where = "/cluster/nodes/node1/drain/"
    half = oda.client.post(where, {**asked, "ends_at": ""}, follow=True)
    assert "Give both moments" in half.content.decode()
    assert not Window.objects.exists()
    done = oda.client.post(where, asked, follow=True)
    assert "The queue drains toward it." in done.content.decode()
    assert (Window.objects.count(), Node.objects.get().drained_at) == (1, None)
    assert "start" in oda.client.post(where, {**asked, "starts_at": "then"}, follow=True).content.decode()


def test_what_is_set_apart_now_is_not_free(oda: Person, alice: Person, submit: Any) -> None:
    now = clock.now()
    submit(alice, gpus=2)
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    given: dict[str, Any] = {"by": oda.user, "starts_at": now, "ends_at": now + HOUR, "reason": "x", "now": now}
    window = windows.reserve(team=alice.team.pk, gpus=4, model="B200", **given)
    held = window.devices.filter(allocations__ended_at=None, allocations__isnull=False).count()
    totals = occupancy.now().totals()
    assert (totals["reserved"], totals["free"]) == ((4 - held) * GPU, (8 - 2 - 4 + held) * GPU)
    assert "Reserved" in alice.client.get("/cluster/").content.decode()
    windows.cancel(window.pk, by=oda.user, now=now)
    windows.maintain(nodes=["node1"], **given)
    totals = occupancy.now().totals()
    assert (totals["reserved"], totals["free"], totals["drained"], totals["held"]) == (0, 0, 6 * GPU, 2 * GPU)


def test_a_node_says_when_it_is_empty(oda: Person, alice: Person, submit: Any) -> None:
    where = "/cluster/nodes/node1/"
    assert oda.client.get(where).context["empty"] is None
    submit(alice, time_limit_s=7200)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    page = oda.client.get(where)
    assert page.context["empty"] == {"latest": Attempt.objects.get().placed_at + 2 * HOUR, "probably": None}
    assert "If drained, empty at the latest by" in page.content.decode()
    attempt = Attempt.objects.get()
    for number in range(20):
        job = submit(alice, name=f"past{number}", time_limit_s=3600)
        type(job).objects.filter(pk=job.pk).update(state="succeeded", ended_at=now)
        Attempt.objects.create(
            job=job,
            number=1,
            node=attempt.node,
            cpus=1,
            memory_mb=1,
            state="ended",
            placed_at=now - HOUR,
            started_at=now - HOUR,
            ended_at=now - HOUR / 2,
        )
    oda.client.post(f"{where}drain/", {"reason": "it is looked at"})
    page = oda.client.get(where)
    # All that is known took half of their limits.
    assert abs(page.context["empty"]["probably"] - (attempt.placed_at + HOUR)) < timedelta(seconds=5)
    assert "Probably empty by" in page.content.decode()


def test_the_number_of_queries_does_not_grow_with_windows(oda: Person, alice: Person) -> None:
    now = clock.now()
    counts = []
    for day in (1, 2, 3):
        starts = now + timedelta(days=day)
        both: dict[str, Any] = {"by": oda.user, "reason": "new disks", "now": now}
        both |= {"starts_at": starts, "ends_at": starts + HOUR}
        if day % 2:
            windows.maintain(nodes=["node1"], **both)
        else:
            windows.reserve(team=alice.team.pk, gpus=4, model="B200", **both)
        own = []
        for path in (PATH, "/cluster/?node=node1"):
            client = oda.client
            client.get(path)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(path).status_code == 200
            own.append(len(queries))
        counts.append(own)
    # The devices of a first reservation need a question of their own for their nodes.
    assert counts[1] == counts[2]
    assert counts[2][0] <= 18
    assert counts[2][1] <= 33
