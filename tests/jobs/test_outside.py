"""Work that was not submitted here, nodes that the engine has out of service and devices that it has carved for good:
all of it is counted, by whichever way one looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from haein.cluster import inventory
from haein.cluster import services as cluster
from haein.cluster.backends.base import Cut, NodeFact, Outside, SliceGrant
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.cluster.models import Device, Node
from haein.cluster.models import Outside as Row
from haein.lib import clock
from haein.lib.errors import Invalid
from haein.placement import books, engine, mig, stranded
from haein.placement.cluster import Cluster
from haein.placement.ledger import Kind
from haein.placement.mix import Mix
from haein.placement.model import Grant, NodeState, Placement, Snapshot
from haein.placement.policies import HAEIN
from haein.tenants import services as tenants
from jobs import explaining, occupancy, scheduling, services, snapshots, waiting, windows
from jobs.models import Allocation, Job
from tests.cast import Person, node_fact, person
from tests.dashboard import crowd
from tests.dashboard.crowd import Slice
from tests.placement.test_slices import slice_
from tests.placement.worlds import ask

pytestmark = pytest.mark.django_db
Submit = Callable[..., Job]
READY = frozenset({"python"})
NOW = 1_800_000_000.0

SEVENTHS = tuple(Cut("1g.23gb", start) for start in range(7))
HALVES = (Cut("3g.90gb", 0), Cut("3g.90gb", 4))
MIXED = (Cut("2g.45gb", 0), Cut("1g.45gb", 2), Cut("1g.23gb", 4))


def carved(fact: NodeFact, *layouts: tuple[Cut, ...]) -> NodeFact:
    """The node with its devices carved so, in their order."""
    devices = tuple(replace(device, layout=layout) for device, layout in zip(fact.devices, layouts, strict=False))
    return replace(fact, devices=devices + fact.devices[len(layouts) :])


def part(
    device: int, units: int = 1000, memory: int = 0, profile: str = "", start: int = -1, node: str = "node1"
) -> SliceGrant:
    return SliceGrant(f"GPU-{node}-{device}", device, units, memory, profile, start)


def work(*slices: SliceGrant, name: str = "17 bert", node: str = "node1", cpus: int = 8000) -> Outside:
    return Outside(name, "bob", node, cpus, 4096, slices, NOW)


def report(facts: Sequence[NodeFact], *outside: Outside) -> None:
    inventory.refresh(facts, outside, now=clock.now())


def node() -> NodeState:
    (only,) = snapshots.now().nodes
    assert snapshots.glance() == snapshots.now()
    return only


def test_the_report_becomes_rows_and_what_is_gone_from_it_is_gone() -> None:
    report([node_fact()], work(part(0), part(1)), work(name="18", cpus=100))
    assert list(Row.objects.order_by("name").values_list("name", "owner", "cpus", "slices")) == [
        ("17 bert", "bob", 8000, [["GPU-node1-0", 1000, 0, "", -1], ["GPU-node1-1", 1000, 0, "", -1]]),
        ("18", "bob", 100, []),
    ]
    key = Row.objects.get(name="18").pk
    report([node_fact()], work(name="18", cpus=200), work(name="elsewhere", node="unknown"))
    assert list(Row.objects.values_list("pk", "cpus")) == [(key, 200)]


def test_much_outside_work_takes_as_many_queries_as_little_and_only_what_changed_is_written() -> None:
    facts = [node_fact(f"n{number}") for number in range(129)]
    all_of_it = [work(part(0, node=fact.name), node=fact.name) for fact in facts]

    def queries(*outside: Outside) -> list[str]:
        with CaptureQueriesContext(connection) as seen:
            report(facts, *outside)
        return [query["sql"] for query in seen]

    def counted(*outside: Outside) -> tuple[int, int, int]:
        """When it comes, when it stays as it is, when it changes."""
        report(facts)
        changed = [replace(each, owner="eve") for each in outside]
        return len(queries(*outside)), len(queries(*outside)), len(queries(*changed))

    assert counted(*all_of_it) == counted(all_of_it[0])
    report(facts, *all_of_it)
    (written,) = [
        sql for sql in queries(replace(all_of_it[0], owner="eve"), *all_of_it[1:]) if sql.startswith("INSERT")
    ]
    assert written.count("17 bert") == 1


def test_what_others_hold_is_not_given() -> None:
    report([node_fact(devices=2)], work(part(0)))
    now = node()
    assert [device.free for device in now.devices] == [0, 1000]
    assert (now.free_cpus, now.free_memory_mb) == (56_000, 512_000 - 4096)


def test_a_job_waits_for_what_others_hold_and_starts_when_they_have_left(alice: Person, submit: Submit) -> None:
    report([node_fact(devices=1)], work(part(0)))
    job = submit(alice, gpus=1)
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 0
    job.refresh_from_db()
    assert explaining.explain(job) == "No whole GPU is free; the most left on one is 0 of 1000."
    report([node_fact(devices=1)])
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 1


def test_the_queue_counts_it_where_it_is_in_service(alice: Person, oda: Person) -> None:
    facts = [node_fact("node1", devices=4), node_fact("node2", devices=4), node_fact("node3", devices=4)]
    facts[2] = replace(facts[2], problem="Drained in Slurm by root: disk.")
    report(facts, work(part(0), part(1, 300)), *(work(part(0, node=name), node=name) for name in ("node2", "node3")))
    cluster.drain(by=oda.user, node="node2", reason="a fan", now=clock.now())
    held = waiting.of(alice.scope, now=clock.now()).held
    assert (held.all, held.outside, held.free) == (4000, 1300, 2700)
    assert alice.client.get("/api/v1/queue").json()["gpus"]["outside"] == 1.3
    assert "GPUs outside" in alice.client.get("/queue/").content.decode()


def test_a_node_that_the_engine_has_out_of_service_takes_nothing_and_keeps_the_sentence(
    alice: Person, submit: Submit
) -> None:
    report([replace(node_fact(), problem="Drained in Slurm by root: disk.")])
    assert Node.objects.get().problem == "Drained in Slurm by root: disk."
    submit(alice, gpus=1)
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 0
    assert not node().usable
    totals = occupancy.now().totals()
    assert (totals["unusable"], totals["free"]) == (totals["capacity"], 0)
    report([node_fact()])
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 1


@pytest.fixture
def gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A backend that gives instances, as far as whoever submits is concerned."""
    made = SimulatorBackend(tmp_path, nodes=1)
    monkeypatch.setattr(services, "backend", lambda: made)


def test_a_device_that_is_carved_for_good_gives_its_instances(gives: None, alice: Person, submit: Submit) -> None:
    report([carved(node_fact(devices=1), SEVENTHS)])
    (device,) = node().devices
    assert (device.capacity, device.free, len(device.layout)) == (56, 56, 7)
    for _ in range(8):
        submit(alice, gpus=1, profile="1g.23gb")
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 7
    assert set(Allocation.objects.values_list("start", flat=True)) == set(range(7))
    waits = Job.objects.get(state="queued")
    assert explaining.explain(waits) == "The instances of 1g.23gb here are all held."
    assert_law_2()


NO_SUCH = (
    "No GPU of the cluster has an instance of 3g.90gb, and none can be carved anew; the instances there are: 1g.23gb."
)
ONLY = "Each GPU of the cluster is carved for good and gives only its instances: 1g.23gb."


@pytest.mark.parametrize(
    ("asked", "field", "sentence"),
    [
        (
            {"profile": "3g.90gb"},
            "profile",
            NO_SUCH + " Nearest that fits: profile 1g.23gb.",
        ),
        (
            {},
            "gpus",
            ONLY + " Nearest that fits: profile 1g.23gb.",
        ),
        (
            {"share": 200},
            "gpus",
            ONLY + " Nearest that fits: profile 1g.23gb.",
        ),
    ],
)
def test_what_no_instance_is_is_refused_at_the_door(
    gives: None, alice: Person, submit: Submit, asked: dict[str, Any], field: str, sentence: str
) -> None:
    report([carved(node_fact(devices=1), SEVENTHS)])
    with pytest.raises(Invalid) as refused:
        submit(alice, gpus=1, **asked)
    assert refused.value.fields == {field: sentence}


def test_where_others_carve_the_devices_nothing_is_carved_here(gives: None, alice: Person, submit: Submit) -> None:
    report([carved(node_fact(devices=2), HALVES)])
    for _ in range(3):
        submit(alice, gpus=1, profile="3g.90gb")
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 2
    assert {row.device.index for row in Allocation.objects.select_related("device")} == {0}
    whole = submit(alice, gpus=1)
    assert scheduling.run_pass(now=clock.now(), ready=READY) == 1
    assert Allocation.objects.get(attempt__job=whole).device.index == 1


def test_a_reservation_is_of_whole_devices_and_of_those_that_others_hold_last(alice: Person, oda: Person) -> None:
    away = replace(node_fact("node2"), problem="Down.")
    report([carved(node_fact(devices=4), SEVENTHS), away], work(part(1)))

    def reserved(gpus: int, day: int) -> set[int]:
        begins = clock.now() + timedelta(days=day)
        window = windows.reserve(
            by=oda.user, team=alice.team.pk, gpus=gpus, model="B200", starts_at=begins,
            ends_at=begins + timedelta(hours=1), reason="a deadline", now=clock.now(),
        )  # fmt: skip
        return set(window.devices.values_list("index", flat=True))

    assert reserved(2, day=1) == {2, 3}
    assert reserved(3, day=2) == {1, 2, 3}
    with pytest.raises(Invalid, match="Only 3 B200 are in service"):
        reserved(4, day=3)


def test_the_form_offers_the_instances_there_are(gives: None) -> None:
    report([node_fact()])
    assert len(services.offers().profiles) == 6
    report([carved(node_fact(), SEVENTHS, HALVES)])
    assert services.offers().profiles == ["1g.23gb", "3g.90gb"]


def test_instances_that_are_not_known_are_the_device_s_problem() -> None:
    report([carved(node_fact(devices=2), (Cut("1g.5gb", 0),))])
    bad, good = Device.objects.all()
    assert bad.problem == "It is carved into instances that are not known of a B200: 1g.5gb."
    assert not good.problem
    assert [device.usable for device in node().devices] == [False, True]


def test_what_both_hold_for_a_moment_counts_once_and_as_ours(alice: Person) -> None:
    report([node_fact(devices=1)], work(part(0)))
    crowd.hold(alice, {"node1/gpu0": [Slice(1000)]})
    totals = occupancy.now().totals()
    assert (totals["held"], totals["outside"], totals["free"]) == (stranded.GPU, 0, 0)
    assert node().devices[0].free == 0


def assert_law_2(others: Sequence[Grant] = ()) -> None:
    """On every device in both of its dimensions; what others hold as well is told by the page's columns."""
    rows = Allocation.objects.filter(ended_at=None)
    ours = [
        Grant(row.device_id, row.units, row.memory, row.profile, -1 if row.start is None else row.start) for row in rows
    ]
    kinds = [(grant, Kind.BILLABLE) for grant in ours] + [(grant, Kind.OUTSIDE) for grant in others]
    for balance in books.check(snapshots.now(), kinds).values():
        parts = (balance.billable, balance.outside, balance.unusable, balance.free)
        assert sum(parts) == balance.capacity


def test_outside_work_is_a_term_of_law_2(alice: Person) -> None:
    report([carved(node_fact(devices=3), SEVENTHS)], work(part(0, 8, 7, "1g.23gb", 3), part(1, 400)))
    crowd.hold(alice, {"node1/gpu0": [Slice(8, "1g.23gb", 0, 1)], "node1/gpu1": [Slice(500)]})
    keys = dict(Device.objects.values_list("index", "pk"))
    memory_mb = node().devices[1].memory_mb - node().devices[1].free_memory_mb
    Allocation.objects.filter(device_id=keys[1]).update(memory=memory_mb)
    assert_law_2([Grant(keys[0], 8, 7, "1g.23gb", 3), Grant(keys[1], 400)])
    assert occupancy.now().totals() == {
        "capacity": 3 * stranded.GPU,
        "held": 4500,
        "outside": 3800,
        "free": 5000 + 700 + 7000,
        "drained": 0,
        "reserved": 0,
        "unusable": 0,
    }


LAYOUTS = st.sampled_from([(), (), SEVENTHS, HALVES, MIXED])
INSTANCES = st.lists(
    st.sampled_from(
        [
            Slice(8, "1g.23gb", 0, 1),
            Slice(8, "1g.23gb", 5, 1),
            Slice(24, "3g.90gb", 4, 4),
            Slice(16, "2g.45gb", 0, 2),
        ]
    ),
    max_size=3,
)
SHARES = st.sampled_from([[], [Slice(1000)], [Slice(250), Slice(500)]])
GRANTS = st.lists(
    st.sampled_from(
        [
            (1000, 0, "", -1), (250, 0, "", -1), (8, 7, "1g.23gb", 0), (8, 7, "1g.23gb", 6), (16, 14, "2g.45gb", 0),
            (24, 28, "3g.90gb", 4), (8, 7, "1g.5gb", 0), (8, 7, "1g.23gb", -1),
        ]
    ),
    max_size=3,
)  # fmt: skip
DEVICE = st.tuples(LAYOUTS, st.one_of(st.just([]), INSTANCES, SHARES), GRANTS)


def legal(held: Sequence[Slice]) -> bool:
    """Whether our own rows could be so."""
    return mig.is_legal("B200", tuple((each.profile, each.start or 0) for each in held if each.profile))


@settings(max_examples=40, deadline=None)
@given(st.lists(DEVICE.filter(lambda device: legal(device[1])), min_size=4, max_size=4), st.booleans(), st.booleans())
def test_whatever_others_do_columns_and_snapshot_agree_and_law_2_holds(
    devices: list[tuple[Any, ...]], out: bool, drained: bool
) -> None:
    """Whatever the engine says, and however it differs from our rows: nothing is raised, and all of it adds up."""
    with transaction.atomic():
        owner = person("Hana")
        tenants.create_organization(by=owner, name="Hana")
        fact = carved(node_fact(devices=4), *(layout for layout, _, _ in devices))
        grants = [part(at, *grant) for at, (_, _, others) in enumerate(devices) for grant in others]
        other = replace(node_fact("node2", devices=1), problem="Down." if out else "")
        report([fact, other], work(*grants, cpus=100_000))
        crowd.hold(Person(owner), {f"node1/gpu{at}": ours for at, (_, ours, _) in enumerate(devices)})
        Node.objects.filter(name="node1").update(drained_at=clock.now() if drained else None)
        occupied, snapshot = occupancy.now(), snapshots.now()
        assert snapshots.glance() == snapshot
        asked = stranded.standard(["B200"])
        told = tuple(map(stranded.Kinds(occupied.rooms()).report, asked))
        assert told == stranded.of(snapshot, asked)
        totals = occupied.totals()
        assert totals["free"] == told[0].free
        assert all(units >= 0 for units in totals.values())
        parts = ("held", "outside", "free", "unusable", "drained", "reserved")
        assert sum(totals[part] for part in parts) == totals["capacity"] == 5 * stranded.GPU
        engine.plan(snapshot, [ask(1, id="whole"), slice_("1g.23gb")])
        _end_all(snapshot)
        transaction.set_rollback(True)


def _end_all(snapshot: Snapshot) -> None:
    """Whoever of ours runs can be taken off in thought, as whoever looks for room does."""
    cluster = Cluster(snapshot, HAEIN, Mix({}))
    for row in Allocation.objects.filter(ended_at=None).select_related("device"):
        grant = Grant(row.device_id, row.units, row.memory, row.profile, -1 if row.start is None else row.start)
        placement = Placement(row.pk, row.device.node_id, (grant,))
        cluster.finish(replace(ask(1), cpus=0, memory_mb=0), placement)
