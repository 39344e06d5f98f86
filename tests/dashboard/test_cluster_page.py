"""The cluster's page: frames say what the rows say, the table and a node say it in words, and nobody's names leave."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard import camera, heatmap, hub
from dashboard.heatmap import BROKEN, CARVED, DRAINED
from haein.cluster import inventory
from haein.cluster.models import Device, Node
from haein.lib import clock, live
from haein.placement import stranded
from haein.tenants import services as tenants
from haein.tenants.models import AuditEntry
from jobs import occupancy, scheduling, snapshots
from jobs.models import Allocation, Job
from jobs.occupancy import FREE, FULL, PARTLY
from tests.cast import Person, node_fact, person
from tests.dashboard import crowd
from tests.dashboard.crowd import Slice
from tests.sockets import Socket, fragment, run

pytestmark = pytest.mark.django_db
Submit = Callable[..., Job]


def columns() -> dict[str, tuple[int, ...]]:
    """What the frame says of each device, by its name."""
    picture = heatmap.picture(occupancy.now())
    told = json.loads(picture.layout)
    names = [
        f"{name}/gpu{index}"
        for name, _pod, _rack, _pool, runs in told["nodes"]
        for _model, first, many, *_carving in runs
        for index in range(first, first + many)
    ]
    body, count = picture.frame[4:], len(names)
    assert len(body) == 4 * count
    return dict(zip(names, zip(*(body[at * count :][:count] for at in range(3)), strict=True), strict=True))


@pytest.fixture
def two(db: None) -> None:
    inventory.refresh([node_fact("a"), node_fact("b", devices=3)], now=clock.now())


def test_a_frame_says_how_each_device_is_held(two: None, alice: Person) -> None:
    crowd.hold(
        alice,
        {
            "a/gpu1": [Slice(1000)],
            "a/gpu2": [Slice(250), Slice(250)],
            "a/gpu3": [Slice(24, "3g.90gb", 0, 4), Slice(8, "1g.23gb", 6, 1)],
            "a/gpu4": [Slice(24, "3g.90gb", 0, 4), Slice(24, "3g.90gb", 4, 4)],
            "a/gpu5": [Slice(1)],
        },
    )
    Device.objects.filter(node__name="b", index=0).update(problem="hot")
    Node.objects.filter(name="b").update(drained_at=timezone.now(), drain_reason="moving")
    assert columns() == {
        "a/gpu0": (FREE, 0, 0),
        "a/gpu1": (FULL, 250, 1),
        "a/gpu2": (PARTLY, 125, 2),
        "a/gpu3": (PARTLY | CARVED, 0b0100_1111, 0b0100_0001),
        "a/gpu4": (FULL | CARVED, 0b1111_1111, 0b0001_0001),
        "a/gpu5": (PARTLY, 1, 1),
        "a/gpu6": (FREE, 0, 0),
        "a/gpu7": (FREE, 0, 0),
        "b/gpu0": (FREE | BROKEN | DRAINED, 0, 0),
        "b/gpu1": (FREE | DRAINED, 0, 0),
        "b/gpu2": (FREE | DRAINED, 0, 0),
    }


def test_a_device_that_is_gone_is_not_drawn_and_one_of_a_node_that_is_away_is_unusable(two: None) -> None:
    Device.objects.filter(node__name="a", index__gte=2).update(present=False)
    Node.objects.filter(name="b").update(present=False)
    assert columns() == {
        "a/gpu0": (FREE, 0, 0),
        "a/gpu1": (FREE, 0, 0),
        **{f"b/gpu{index}": (FREE | BROKEN, 0, 0) for index in range(3)},
    }


def test_the_number_of_a_frame_changes_with_the_layout_alone(two: None, alice: Person) -> None:
    empty = heatmap.picture(occupancy.now())
    crowd.hold(alice, {"a/gpu1": [Slice(1000)]})
    held = heatmap.picture(occupancy.now())
    assert (held.number, held.layout) == (empty.number, empty.layout)
    assert held.frame != empty.frame
    Node.objects.filter(name="b").update(rack="r1")
    assert heatmap.picture(occupancy.now()).number != held.number


def test_devices_that_have_changed_places_are_drawn_where_they_are_now(two: None, alice: Person) -> None:
    """As after a restart of the machine: the same devices, counted in another order."""
    crowd.hold(alice, {"a/gpu1": [Slice(1000)]})
    assert columns()["a/gpu1"][0] == FULL
    held, other = Device.objects.get(node__name="a", index=1), Device.objects.get(node__name="a", index=6)
    Device.objects.filter(pk=held.pk).update(index=6)
    Device.objects.filter(pk=other.pk).update(index=1)
    assert (columns()["a/gpu1"][0], columns()["a/gpu6"][0]) == (FREE, FULL)


WAYS = st.lists(st.sampled_from(crowd.HELD), min_size=11, max_size=11)


@settings(max_examples=25, deadline=None)
@given(WAYS, st.sets(st.integers(0, 7), max_size=3), st.booleans())
def test_the_columns_agree_with_what_placement_is_given(ways: Any, broken: set[int], drained: bool) -> None:
    """The same rows by two ways: the engine's snapshot, device by device, and the page's columns."""
    with transaction.atomic():
        owner = person("Hana")
        tenants.create_organization(by=owner, name="Hana")
        inventory.refresh([node_fact("a"), node_fact("b", devices=3)], now=clock.now())
        names = [f"a/gpu{index}" for index in range(8)] + [f"b/gpu{index}" for index in range(3)]
        crowd.hold(Person(owner), dict(zip(names, ways, strict=True)))
        Device.objects.filter(node__name="a", index__in=broken).update(problem="hot")
        Node.objects.filter(name="b").update(drained_at=timezone.now() if drained else None)
        occupied = occupancy.now()
        asked = stranded.standard(["B200"])
        told = tuple(map(stranded.Kinds(occupied.rooms()).report, asked))
        assert told == stranded.of(snapshots.now(), asked)
        (first, *_) = stranded.of(snapshots.now(), asked)
        totals = occupied.totals()
        assert totals["free"] == first.free
        parts = ("held", "free", "unusable", "drained", "reserved")
        assert sum(totals[part] for part in parts) == totals["capacity"] == 11 * stranded.GPU
        assert all(totals[part] >= 0 for part in parts)
        transaction.set_rollback(True)


def test_the_table_is_searched_filtered_and_sorted(two: None, alice: Person) -> None:
    crowd.hold(alice, {"a/gpu1": [Slice(1000)]})
    Node.objects.filter(name="b").update(pool="red")

    def listed(query: str) -> list[str]:
        page = alice.client.get(f"/cluster/{query}", headers={"HX-Request": "true"})
        return [row["name"] for row in page.context["rows"]]

    assert listed("") == ["a", "b"]
    assert listed("?sort=-held") == ["a", "b"]
    assert listed("?sort=-free") == ["a", "b"]
    assert listed("?q=B") == ["b"]
    assert listed("?pool=red") == ["b"]
    assert listed("?state=full") == ["a"]
    assert listed("?state=drained") == []
    assert listed("?model=L4") == []
    assert listed("?model=B200&state=free") == ["a", "b"]


def test_what_still_fits_is_said_for_the_readers_own_waiting_jobs(
    two: None, alice: Person, charlie: Person, oda: Person, submit: Submit
) -> None:
    for number in range(2):
        submit(alice, name=f"w{number}", gpus=8, share=300, cpus=2000)
    shape = "8 × 30 % GPU, 2 cores, 256 MiB"
    assert [row["waiting"] for row in rows(alice) if row["shape"] == shape] == [2]
    assert [row["waiting"] for row in rows(oda) if row["shape"] == shape] == [2]
    assert shape not in [row["shape"] for row in rows(charlie)]


def test_a_gang_that_waits_is_told_how_many_of_its_workers_fit(two: None, alice: Person, submit: Submit) -> None:
    submit(alice, gpus=4, cpus=2000)
    Job.objects.update(workers=3)  # this machine's backend has one node, and would refuse it
    (first, *_) = rows(alice)
    assert (first["shape"], first["fits"]) == ("3 × (4 GPUs, 2 cores, 256 MiB)", "2 workers")


def rows(person: Person) -> Any:
    return person.client.get("/cluster/").context["shapes"]


def test_stranded_gpus_are_explained(two: None, alice: Person) -> None:
    crowd.hold(alice, {"a/gpu1": [Slice(500)]})
    (one, eight, *_) = rows(alice)
    assert (one["shape"], one["fits"], one["stranded"]) == ("1 GPU", "10", "0.5")
    assert one["why"] == "Too little left on each device: 0.5."
    assert (eight["fits"], eight["stranded"]) == ("0", "10.5")
    assert eight["why"] == "Too few such devices on one node: 10; too little left on each device: 0.5."


def test_what_was_carved_last_is_said_without_a_name(two: None, alice: Person, charlie: Person, submit: Submit) -> None:
    assert alice.client.get("/cluster/").context["carvings"] == []
    for number in range(2):
        submit(alice, name=f"secret-name-{number}", gpus=1)
    Job.objects.update(profile="3g.90gb")  # this machine's backend carves none, and would refuse it
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    page = charlie.client.get("/cluster/")
    (carving,) = page.context["carvings"]
    assert re.fullmatch(
        r"Carve [ab]/gpu\d into 3g\.90gb \+ 3g\.90gb: touches no running job, lets 2 waiting jobs start",
        carving["text"],
    )
    assert "secret-name" not in page.content.decode()


def test_a_node_shows_its_slices_and_who_holds_them_to_those_who_may_know(
    two: None, alice: Person, charlie: Person, oda: Person
) -> None:
    crowd.hold(alice, {"a/gpu0": [Slice(24, "3g.90gb", 4, 4), Slice(16, "2g.45gb", 0, 2)], "a/gpu1": [Slice(250)]})
    job = Job.objects.order_by("pk")[0]
    hers, his, ops = (who.client.get("/cluster/nodes/a/").content.decode() for who in (alice, charlie, oda))
    for page in (hers, his, ops):
        assert "3g.90gb from 4" in page
        assert "2 of 7 compute slices free" in page
        assert "75 % free" in page
    assert f'href="/jobs/{job.pk}/"' in hers
    assert job.name not in his
    assert "another team" in his
    assert job.name in ops
    assert str(job.pk) not in ops


def test_an_operator_drains_a_node_and_lets_it_work_again(two: None, alice: Person, oda: Person) -> None:
    crowd.hold(alice, {"a/gpu0": [Slice(1000)]})
    answer = oda.client.post("/cluster/nodes/a/drain/", {"reason": "a new fan"}, follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain == [("/cluster/?node=a", 302)]
    assert "a takes no new work." in page
    assert "Takes no new work: a new fan." in page
    assert "1 job runs there and goes on." in page
    assert Allocation.objects.filter(ended_at=None).count() == 1
    assert occupancy.now().totals()["drained"] == 7 * stranded.GPU
    oda.client.post("/cluster/nodes/a/undrain/")
    assert Node.objects.get(name="a").usable
    assert list(
        AuditEntry.objects.filter(action__startswith="node.").values_list("action", "target", "actor_name")
    ) == [
        ("node.drain", "a", "oda@oda.example"),
        ("node.undrain", "a", "oda@oda.example"),
    ]


def test_a_drained_node_takes_no_new_job(two: None, alice: Person, oda: Person, submit: Submit) -> None:
    for name in ("a", "b"):
        oda.client.post(f"/cluster/nodes/{name}/drain/", {"reason": "moving"})
    job = submit(alice, gpus=1)
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    job.refresh_from_db()
    assert (job.state, job.reason) == ("queued", "out_of_service")
    oda.client.post("/cluster/nodes/b/undrain/")
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    job.refresh_from_db()
    assert job.state == "starting"


@pytest.mark.parametrize(
    ("reason", "said"), [("  ", "Say why"), ("x" * 201, "200 characters or fewer"), ("again", "drained already")]
)
def test_a_drain_that_can_not_be_is_refused_in_words(two: None, oda: Person, reason: str, said: str) -> None:
    if reason == "again":
        oda.client.post("/cluster/nodes/a/drain/", {"reason": "first"})
    answer = oda.client.post("/cluster/nodes/a/drain/", {"reason": reason}, follow=True)
    assert said in answer.content.decode()
    assert Node.objects.get(name="a").drain_reason == ("first" if reason == "again" else "")


@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_nobody_else_drains_a_node_and_no_other_is_drained(two: None, alice: Person, oda: Person, verb: str) -> None:
    assert alice.client.post(f"/cluster/nodes/a/{verb}/", {"reason": "mine"}).status_code == 404
    assert oda.client.get(f"/cluster/nodes/a/{verb}/").status_code == 405
    assert oda.client.post(f"/cluster/nodes/nowhere/{verb}/", {"reason": "x"}).status_code == 404
    assert not Node.objects.exclude(drained_at=None).exists()
    assert "Drain it" not in alice.client.get("/cluster/nodes/a/").content.decode()
    assert "Drain it" in oda.client.get("/cluster/nodes/a/").content.decode()


@pytest.mark.parametrize("path", ["/cluster/nodes/nowhere/", "/cluster/?node=nowhere", "/cluster/?node=%00"])
def test_a_node_that_is_none_is_not_found(two: None, alice: Person, path: str) -> None:
    assert alice.client.get(path).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_the_page_is_sent_the_layout_then_a_frame_and_another_when_something_starts(two: None, alice: Person) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/cluster/") as page:
            layout = await page.until(lambda told: told["type"] == "layout")
            assert [node[0] for node in layout["layout"]["nodes"]] == ["a", "b"]
            first = await page.until(lambda told: told["type"] == "frame")
            await page.send(type="drawn")
            await sync_to_async(crowd.hold)(alice, {"a/gpu1": [Slice(1000)]})
            await sync_to_async(live.push)(live.CLUSTER)
            second = await page.until(lambda told: told["type"] == "frame", seconds=3)
            assert second["bytes"][:4] == first["bytes"][:4]
            assert [at for at in range(4 + 3 * 11) if first["bytes"][at] != second["bytes"][at]] == [5, 16, 27]
            await page.until(fragment("cluster-totals", "on 1 devices"))

    run(story)


@pytest.mark.django_db(transaction=True)
def test_a_page_that_does_not_draw_is_sent_one_frame_and_then_the_newest(two: None, alice: Person) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/cluster/") as slow, Socket(client, "/ws/cluster/") as quick:
            await slow.until(lambda told: told["type"] == "frame")
            for index in range(3):
                await quick.until(lambda told: told["type"] == "frame")
                await quick.send(type="drawn")
                await sync_to_async(crowd.hold)(alice, {f"a/gpu{index}": [Slice(1000)]})
                await sync_to_async(live.push)(live.CLUSTER)
            newest = await quick.until(lambda told: told["type"] == "frame")
            told = list[dict[str, Any]]()
            while len(told) < 3 or told[-1]["type"] != "fresh":
                told.append(await slow.receive())
            assert "frame" not in {message["type"] for message in told}
            await slow.send(type="drawn")
            frame = await slow.until(lambda told: told["type"] == "frame")
            assert frame["bytes"] == newest["bytes"]
            assert frame["bytes"][4 : 4 + 8] == bytes([FULL] * 3 + [FREE] * 5)

    run(story)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_looked_at_when_nobody_watches(two: None, alice: Person) -> None:
    client = alice.client

    async def story() -> None:
        async with Socket(client, "/ws/cluster/") as page:
            await page.until(lambda told: told["type"] == "frame")
            assert camera.current().latest
        assert camera.current().latest is None
        assert camera.current()._task is None
        assert hub.current()._waiting == {}

    run(story)


@pytest.mark.django_db(transaction=True)
def test_a_page_closes_when_no_pictures_are_taken_any_more(two: None, alice: Person, monkeypatch: Any) -> None:
    """What is broken here is the machine's memory, say; a map that stands still must not look alive."""
    client = alice.client

    def broken() -> None:
        raise MemoryError

    monkeypatch.setattr(camera, "_picture", broken)

    async def story() -> None:
        async with Socket(client, "/ws/cluster/") as page:
            await page.until(lambda told: told == {"closed": 1011})

    run(story)
