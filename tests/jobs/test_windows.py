"""Windows: what is set apart for a team or taken out, when the queue drains toward it, and who is told to leave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from haein.cluster import inventory
from haein.cluster import services as cluster_services
from haein.cluster.models import Device, Node
from haein.lib import clock
from haein.lib.errors import Forbidden, Invalid, NotFound, Problem
from haein.tenants.models import AuditEntry
from jobs import preempting, scheduling, windows, wording
from jobs.models import Attempt, Job, Window
from tests.cast import Person, node_fact, together

Submit = Callable[..., Job]
HOUR = timedelta(hours=1)
READY = frozenset({"python"})


@pytest.fixture
def three(db: None) -> None:
    """Three nodes of eight."""
    inventory.refresh([node_fact(name) for name in ("node1", "node2", "node3")], now=clock.now())


@pytest.fixture
def now(three: None) -> datetime:
    return clock.now()


@pytest.fixture
def reserve(oda: Person, alice: Person, now: datetime) -> Callable[..., Window]:
    def made(gpus: int, by: Person = oda, **asked: Any) -> Window:
        given: dict[str, Any] = {
            "team": alice.team.pk,
            "model": "B200",
            "starts_at": now + HOUR,
            "ends_at": now + 3 * HOUR,
        }
        given |= {"reason": "a course", "now": now, **asked}
        return windows.reserve(by=by.user, gpus=gpus, **given)

    return made


@pytest.fixture
def maintain(oda: Person, now: datetime) -> Callable[..., Window]:
    def made(*nodes: str, by: Person = oda, **asked: Any) -> Window:
        given: dict[str, Any] = {
            "starts_at": now + HOUR,
            "ends_at": now + 3 * HOUR,
            "reason": "new disks",
            "now": now,
            **asked,
        }
        return windows.maintain(by=by.user, nodes=nodes, **given)

    return made


def look() -> int:
    return scheduling.run_pass(now=clock.now(), ready=READY)


def devices_of(window: Window) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in window.devices.values_list("node__name", flat=True):
        counts[name] = counts.get(name, 0) + 1
    return counts


def test_a_reservation_takes_whole_nodes_that_are_free_soonest(
    reserve: Callable[..., Window], charlie: Person, submit: Submit
) -> None:
    submit(charlie, gpus=8, time_limit_s=2 * 3600)
    look()
    (busy,) = Attempt.objects.values_list("node__name", flat=True)
    (free, other) = sorted({"node1", "node2", "node3"} - {busy})
    first = reserve(8)
    assert devices_of(first) == {free: 8}
    assert devices_of(reserve(2)) == {other: 2}
    assert devices_of(reserve(6)) == {other: 6}
    entry = AuditEntry.objects.get(action="window.reserve", target=str(first.pk))
    assert (entry.actor_name, entry.detail["gpus"], entry.detail["nodes"]) == ("oda@oda.example", 8, [free])


def test_what_is_refused_says_what_is_possible(reserve: Callable[..., Window], now: datetime) -> None:
    window = reserve(20)
    with pytest.raises(Invalid) as refused:
        reserve(8)
    assert refused.value.fields == {
        "gpus": "4 are in no other window then: reserve as many, or fewer.",
        "starts_at": f"As many are free from {window.ends_at:%Y-%m-%d %H:%M:%S} UTC on.",
    }
    assert reserve(8, starts_at=window.ends_at, ends_at=window.ends_at + HOUR)
    with pytest.raises(Invalid) as refused:
        reserve(25)
    assert refused.value.fields == {"gpus": "Only 24 B200 are in service."}
    assert Window.objects.count() == 2


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 201}, "reason"),
        ({"starts_at": datetime(2026, 1, 1, tzinfo=UTC)}, "starts_at"),
        ({"ends_at": datetime(2026, 1, 1, tzinfo=UTC)}, "ends_at"),
        ({"ends_at": datetime(2126, 1, 1, tzinfo=UTC)}, "ends_at"),
    ],
)
def test_both_kinds_refuse_by_field(
    reserve: Callable[..., Window], maintain: Callable[..., Window], asked: dict[str, Any], field: str
) -> None:
    asks: list[Callable[[], Window]] = [lambda: reserve(1, **asked), lambda: maintain("node1", **asked)]
    for ask in asks:
        with pytest.raises(Invalid) as refused:
            ask()
        assert set(refused.value.fields) == {field}
    assert not Window.objects.exists()


def test_a_reservation_wants_gpus_of_a_model_that_is_in_service(reserve: Callable[..., Window], oda: Person) -> None:
    for asked, field in (({"gpus": 0}, "gpus"), ({"gpus": 1, "model": "H100"}, "model")):
        with pytest.raises(Invalid) as refused:
            reserve(**asked)
        assert set(refused.value.fields) == {field}
    cluster_services.drain(by=oda.user, node="node1", reason="it is looked at", now=clock.now())
    Device.objects.filter(node__name="node2").update(problem="it is broken")
    assert devices_of(reserve(8)) == {"node3": 8}


def test_maintenance_is_of_nodes_or_of_a_rack(maintain: Callable[..., Window]) -> None:
    Node.objects.filter(name__in=["node1", "node2"]).update(rack="r1")
    assert windows.nodes_of(maintain(rack="r1")) == ["node1", "node2"]
    for nodes, asked, field in ((["nodeX"], {}, "nodes"), ([], {}, "nodes"), ([], {"rack": "r9"}, "rack")):
        with pytest.raises(Invalid) as refused:
            maintain(*nodes, **asked)
        assert set(refused.value.fields) == {field}
    with pytest.raises(Invalid, match=r"Some are out .* already \(new disks\)"):
        maintain("node2", "node3")
    assert maintain("node3")


def test_nothing_is_taken_out_that_is_reserved(reserve: Callable[..., Window], maintain: Callable[..., Window]) -> None:
    (node,) = windows.nodes_of(reserve(3))
    with pytest.raises(Invalid, match=r"GPUs there are reserved .* \(a course\)"):
        maintain(node)
    maintain(*({"node1", "node2", "node3"} - {node}))
    assert devices_of(reserve(5)) == {node: 5}
    with pytest.raises(Invalid, match="All B200 are in other windows"):
        reserve(1)


@pytest.mark.django_db(transaction=True)
def test_two_at_once_never_reserve_one_device(reserve: Callable[..., Window]) -> None:
    def one(_: int) -> bool:
        try:
            return bool(reserve(8))
        except Invalid:
            return False

    assert sorted(together(one, 5)) == [False, False, True, True, True]
    held = list(Window.objects.values_list("devices", flat=True))
    assert len(held) == len(set(held)) == 24


def test_only_an_operator_makes_and_cancels(
    reserve: Callable[..., Window], maintain: Callable[..., Window], alice: Person, now: datetime
) -> None:
    window = reserve(1)
    asks: list[Callable[[], object]] = [
        lambda: reserve(1, by=alice),
        lambda: maintain("node1", by=alice),
        lambda: windows.over(by=alice.user, now=now),
    ]
    for ask in asks:
        with pytest.raises(Forbidden):
            ask()
    with pytest.raises(NotFound):
        windows.cancel(window.pk, by=alice.user, now=now)
    assert Window.objects.filter(cancelled_at=None).count() == 1


def test_a_team_that_is_not_there(reserve: Callable[..., Window], oda: Person) -> None:
    with pytest.raises(NotFound):
        reserve(1, team=oda.user.pk)


def test_each_sees_what_concerns_him(
    reserve: Callable[..., Window],
    maintain: Callable[..., Window],
    alice: Person,
    charlie: Person,
    oda: Person,
    now: datetime,
) -> None:
    out, kept = maintain("node1"), reserve(1)
    for who, seen in ((alice, {out, kept}), (charlie, {out}), (oda, {out, kept})):
        assert set(windows.seen_by(who.scope, now=now)) == seen
    assert not windows.seen_by(oda.scope, now=out.ends_at)


def test_the_queue_drains_toward_maintenance(
    maintain: Callable[..., Window], alice: Person, submit: Submit, now: datetime
) -> None:
    maintain("node1", "node2", "node3")
    short, long = submit(alice, time_limit_s=1800), submit(alice, time_limit_s=2 * 3600)
    assert look() == 1
    long.refresh_from_db()
    assert short.attempts.exists()
    assert (long.state, long.reason) == ("queued", "window")


def test_only_the_team_is_started_in_its_reservation(
    reserve: Callable[..., Window], alice: Person, charlie: Person, submit: Submit, now: datetime
) -> None:
    reserve(24, starts_at=now, ends_at=now + HOUR)
    foreign, own = submit(charlie, gpus=1), submit(alice, gpus=8)
    assert look() == 1
    foreign.refresh_from_db()
    assert own.attempts.exists()
    assert (foreign.state, foreign.reason) == ("queued", "window")


def running(job: Job, began: datetime) -> Attempt:
    Attempt.objects.filter(job=job).update(state="running", started_at=began)
    Job.objects.filter(pk=job.pk).update(state="running", started_at=began)
    return job.attempts.get()


def test_whoever_would_still_be_there_is_told_to_end_by_its_start(
    maintain: Callable[..., Window], alice: Person, submit: Submit, now: datetime
) -> None:
    jobs = [submit(alice, gpus=8, time_limit_s=limit) for limit in (3600 + 600, 3600)]
    spread = submit(alice, gpus=4, time_limit_s=7200)
    Job.objects.filter(pk=spread.pk).update(workers=2)  # this backend itself starts no gangs
    look()
    long, short = (running(job, now) for job in jobs)
    window = maintain("node1", "node2", "node3")
    early = window.starts_at - timedelta(seconds=61)
    assert windows.enforce(early) == []
    late = window.starts_at - timedelta(seconds=60)
    told = windows.enforce(late)
    assert set(told) == {long.pk, *spread.attempts.values_list("pk", flat=True)}
    assert windows.enforce(late) == []
    long.refresh_from_db()
    short.refresh_from_db()
    assert (long.preempt_at, long.preempt_code, short.preempt_at) == (window.starts_at, "maintenance", None)
    event = long.job.events.get(reason="warned")
    said = wording.sentence(event.reason, event.reason_values)
    assert f"Its machine ({long.node.name}) goes out for maintenance from {preempting.said(window.starts_at)}." in said


def test_whoever_sits_in_a_reservation_is_told_but_not_its_own_team(
    reserve: Callable[..., Window], alice: Person, charlie: Person, submit: Submit, now: datetime
) -> None:
    for who in (alice, charlie):
        submit(who, gpus=8, time_limit_s=7200)
    look()
    window = reserve(24, starts_at=now, ends_at=now + HOUR)
    (told,) = windows.enforce(now)
    attempt = Attempt.objects.get(pk=told)
    assert attempt.job.team == charlie.team
    # The whole notice, though it has begun already.
    assert (attempt.preempt_at, attempt.preempt_code) == (now + timedelta(seconds=60), "reservation")
    windows.cancel(window.pk, by=Window.objects.get().made_by, now=now)
    attempt.refresh_from_db()
    assert attempt.preempt_at is None
    assert windows.enforce(now) == []
    assert AuditEntry.objects.filter(action="window.cancel", target=str(window.pk)).count() == 1


def test_one_that_is_over_is_not_cancelled(
    maintain: Callable[..., Window], oda: Person, alice: Person, now: datetime
) -> None:
    window = maintain("node1")
    windows.cancel(window.pk, by=oda.user, now=now)
    with pytest.raises(Problem, match="over already"):
        windows.cancel(window.pk, by=oda.user, now=now)
    with pytest.raises(NotFound):
        windows.cancel(oda.user.pk, by=oda.user, now=now)
    assert [each.pk for each in windows.over(by=oda.user, now=now)] == [window.pk]
    assert windows.asides(now) == ()


def test_a_tick_asks_once_however_many_there_are(
    maintain: Callable[..., Window], alice: Person, submit: Submit, now: datetime
) -> None:
    for node in ("node1", "node2", "node3"):
        maintain(node, starts_at=now)
    with CaptureQueriesContext(connection) as queries:
        assert windows.enforce(now) == []
    assert len(queries) == 1
    assert Window.objects.filter(starts_at__lt=F("ends_at")).count() == 3
