"""An array is one wish for many jobs: each with its index, all written at once, refused, counted and ended together."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from threading import Thread
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from haein.cluster.registry import backend
from haein.lib import clock
from haein.lib.errors import Invalid, NotFound, Problem
from haein.tenants.models import AuditEntry
from jobs import arrays, indexes, lifecycle, quotas, scheduling, search, services
from jobs.models import Attempt, Event, Job
from jobs.quotas import Owner, Values
from tests.cast import SPEC, Person, until
from tests.jobs.test_cancel import somebody_waits_for_a_lock

Submit = Callable[..., Job]
READY = frozenset({"python"})


def members(job: Job) -> list[Job]:
    return list(Job.objects.filter(array=job.array).order_by("array_index"))


def array_of(job: Job) -> Any:
    assert job.array is not None
    return job.array


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ()),
        ("5", (5,)),
        ("0-3", (0, 1, 2, 3)),
        ("1,3, 7", (1, 3, 7)),
        ("0-30:10", (0, 10, 20, 30)),
        ("9,0-2,1", (0, 1, 2, 9)),
        ("999990-999999:9", (999_990, 999_999)),
        ("1-1000", tuple(range(1, 1001))),
    ],
)
def test_indexes_are_read_as_sbatch_reads_them(text: str, read: tuple[int, ...]) -> None:
    assert indexes.read(text) == read


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a-b", "“a-b”: write indexes such as 0-9"),
        ("1,,2", "“”: write indexes"),
        ("-3", "“-3”: write indexes"),
        ("0-", "“0-”: write indexes"),
        ("3-1", "“3-1” has no index in it"),
        ("0-9:0", "“0-9:0” has no index in it"),
        ("0-1000", "at most 1000 jobs"),
        ("0-600,1000-1600", "at most 1000 jobs"),
        ("0-999999999", "at most 999999"),
        ("1000000", "at most 999999"),
        ("0-9%2", "a matter of quotas"),
        ("٣", "write indexes"),
    ],
)
def test_what_is_no_index_is_a_fault_of_the_field(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        indexes.read(text)


@pytest.mark.usefixtures("big")
def test_one_submit_makes_a_job_for_each_index(alice: Person, submit: Submit) -> None:
    first = submit(alice, name="sweep", array="3,1,10-20:5", tags=["night"])
    jobs = members(first)
    assert [job.array_index for job in jobs] == [1, 3, 10, 15, 20]
    assert jobs[0] == first
    assert {(job.name, job.state, job.team, job.queued_at) for job in jobs} == {
        ("sweep", "queued", alice.team, first.queued_at)
    }
    # The queue goes by the id among those that came at once.
    assert [job.pk for job in jobs] == sorted(job.pk for job in jobs)
    assert Event.objects.filter(kind="submit", job__array=first.array).count() == 5
    entry = AuditEntry.objects.get(action="job.submit")
    assert entry.detail == {"name": "sweep", "array": str(first.array), "jobs": 5}


@pytest.mark.usefixtures("big")
def test_a_thousand_take_no_more_statements_than_two(alice: Person, submit: Submit) -> None:
    submit(alice)  # what a process remembers of the cluster is asked for once
    counts = []
    for array in ("0-1", "1-1000"):
        with CaptureQueriesContext(connection) as queries:
            submit(alice, array=array)
        counts.append(len(queries))
    assert Job.objects.count() == 1003
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("big")
def test_a_fault_leaves_no_member_behind(alice: Person, submit: Submit) -> None:
    with pytest.raises(Invalid) as refused:
        submit(alice, array="0-4", gpus=12)
    assert list(refused.value.fields) == ["gpus"]
    with pytest.raises(Invalid) as refused:
        submit(alice, array="0-")
    assert list(refused.value.fields) == ["array"]
    assert not Job.objects.exists()


@pytest.mark.usefixtures("big")
def test_a_months_gpu_hours_are_for_all_of_them(alice: Person, oda: Person, submit: Submit) -> None:
    owner = Owner(organization=alice.scope.organization, team=alice.team)
    quotas.set_quota(by=oda.user, owner=owner, values=Values(gpu_hours=10))
    submit(alice, array="0-9", time_limit_s=3600)
    with pytest.raises(Invalid, match=r"this could use 20\. A time limit of at most 1:00 would fit") as refused:
        submit(alice, array="0-9", time_limit_s=7200)
    assert list(refused.value.fields) == ["time_limit_s"]
    submit(alice, time_limit_s=7200)


@pytest.mark.usefixtures("big")
def test_the_outlook_says_how_many_fit_inside_the_guarantee(alice: Person, oda: Person, submit: Submit) -> None:
    owner = Owner(organization=alice.scope.organization, team=alice.team)
    quotas.set_quota(by=oda.user, owner=owner, values=Values(guaranteed=4000))
    told, fault = services.quota_outlook(alice.scope, replace(SPEC, array="0-9"))
    assert not fault
    assert told.startswith("4 of the 10 jobs fit inside the team’s guarantee at once: 0 of 4 GPUs are used.")
    told, _ = services.quota_outlook(alice.scope, replace(SPEC, array="0-3"))
    assert told == "Inside the team’s guarantee: 0 of 4 GPUs are used."


@pytest.mark.usefixtures("big")
def test_a_member_knows_its_place(alice: Person, submit: Submit) -> None:
    one, three, seven = members(submit(alice, array="1,3,7"))
    submit(alice, array="0-9")
    place = arrays.place(three)
    assert place is not None
    assert (place.id, place.index, place.number, place.size) == (three.array, 3, 2, 3)
    assert (place.previous, place.next) == (one.pk, seven.pk)
    ends = [arrays.place(one), arrays.place(seven)]
    assert [(end.number, end.previous, end.next) for end in ends if end] == [(1, None, three.pk), (3, three.pk, None)]
    assert arrays.place(submit(alice)) is None


@pytest.mark.usefixtures("big")
def test_a_list_may_be_of_one_array_by_its_indexes(alice: Person, charlie: Person, submit: Submit) -> None:
    first = submit(alice, array="0-11")
    submit(alice, array="0-2")
    listed = search.find(scope=alice.scope, array=first.array)
    assert [job.array_index for job in listed] == list(range(12))
    newest = search.find(scope=alice.scope, array=first.array, sort="-created_at").first()
    assert newest
    assert newest.array_index == 11
    assert not search.find(scope=charlie.scope, array=first.array)


@pytest.mark.usefixtures("big")
def test_a_clone_of_a_member_is_that_member_alone(alice: Person, submit: Submit) -> None:
    three = members(submit(alice, array="0-3"))[3]
    spec = services.spec_of(three)
    clone = services.submit(scope=alice.scope, spec=spec, cloned_from=three)
    assert (clone.array_index, len(members(clone))) == (3, 1)
    assert clone.array != three.array
    assert services.spec_of(submit(alice)).array == ""


@pytest.mark.usefixtures("big")
def test_its_users_know_it_by_slurms_name_too_unless_they_set_it(alice: Person, submit: Submit) -> None:
    plain = members(submit(alice, array="4-6", variables={"X": "1"}))[0]
    own = members(submit(alice, array="4-6", variables={"SLURM_ARRAY_TASK_ID": "mine"}))[1]
    sizes = arrays.sizes([plain.array, own.array, None])
    assert arrays.variables(plain, sizes) == {
        "X": "1",
        "SLURM_ARRAY_TASK_ID": "4",
        "HAEIN_ARRAY_ID": str(plain.array),
        "HAEIN_ARRAY_INDEX": "4",
        "HAEIN_ARRAY_SIZE": "3",
    }
    assert arrays.variables(own, sizes)["SLURM_ARRAY_TASK_ID"] == "mine"
    assert arrays.variables(submit(alice, variables={"X": "1"}), {}) == {"X": "1"}
    with CaptureQueriesContext(connection) as queries:
        assert arrays.sizes([None, None]) == {}
    assert not queries


def test_each_finds_its_index_and_runs_alone(alice: Person, submit: Submit, drive: Any, finish: Any) -> None:
    command = 'echo "$HAEIN_ARRAY_INDEX of $HAEIN_ARRAY_SIZE, $SLURM_ARRAY_TASK_ID, $HAEIN_ARRAY_ID" > said'
    first = submit(alice, array="2,5", command=command, gpus=0)
    said = []
    for job in members(first):
        finish(job)
        assert job.state == "succeeded", job.reason_values
        with backend().open_file(job.pk, PurePosixPath("said"))[0] as file:
            said.append(file.read().decode().strip())
    assert said == [f"2 of 2, 2, {first.array}", f"5 of 2, 5, {first.array}"]


@pytest.mark.usefixtures("big")
def test_its_states_are_counted_in_one_query(alice: Person, submit: Submit) -> None:
    first = submit(alice, name="sweep", array="0-5")
    Job.objects.filter(array=first.array, array_index__lt=2).update(state="succeeded", ended_at=clock.now())
    Job.objects.filter(array=first.array, array_index=3).update(state="running", cancel_requested_at=clock.now())
    scope = alice.scope
    with CaptureQueriesContext(connection) as queries:
        array = arrays.get(array_of(first), scope=scope)
    assert len(queries) == 1
    assert (array.name, array.size, array.ended, array.cancellable) == ("sweep", 6, 2, 3)
    assert list(array.states.items()) == [("queued", 3), ("running", 1), ("succeeded", 2)]


@pytest.mark.usefixtures("big")
def test_all_that_have_not_ended_are_cancelled(alice: Person, bob: Person, submit: Submit) -> None:
    first = submit(alice, array="0-9")
    other = submit(alice, array="0-1")
    Job.objects.filter(array=first.array, array_index=9).update(state="succeeded", ended_at=clock.now())
    scheduling.run_pass(now=clock.now(), ready=READY)
    started = set(Attempt.objects.filter(job__array=first.array).values_list("job__array_index", flat=True))
    assert 0 < len(started) < 9
    assert services.cancel_array(array_of(first), scope=bob.scope) == 9
    for job in members(first):
        if job.array_index in started:
            assert services.why(job) == "Being cancelled: its processes were asked to end."
            assert job.events.order_by("-id")[0].reason == "cancel_asked"
        elif job.array_index != 9:
            assert (job.state, services.why(job)) == ("cancelled", "Cancelled by Bob before it started.")
    assert all(job.cancel_requested_at is None for job in members(other))
    entry = AuditEntry.objects.get(action="array.cancel")
    assert (entry.target, entry.detail["jobs"], entry.actor_name) == (str(first.array), 9, bob.user.email)
    with pytest.raises(Problem, match="have ended already"):
        services.cancel_array(array_of(first), scope=alice.scope)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("big")
def test_what_is_being_placed_at_that_moment_is_cancelled_too(alice: Person, submit: Submit) -> None:
    array, scope = array_of(submit(alice, array="0-9")), alice.scope

    def cancel() -> None:
        services.cancel_array(array, scope=scope)
        connection.close()

    canceller = Thread(target=cancel)
    with transaction.atomic():
        assert scheduling.run_pass(now=clock.now(), ready=READY) == 8
        canceller.start()
        until(somebody_waits_for_a_lock)
    canceller.join(20)
    states = Job.objects.filter(array=array, cancel_requested_at__isnull=False).values_list("state", flat=True)
    assert sorted(states) == ["cancelled"] * 2 + ["starting"] * 8


@pytest.mark.usefixtures("big")
def test_cancelling_takes_as_many_statements_for_a_hundred_as_for_two(alice: Person, submit: Submit) -> None:
    counts = []
    for array in ("0-1", "0-99"):
        first = submit(alice, array=array)
        with CaptureQueriesContext(connection) as queries:
            services.cancel_array(array_of(first), scope=alice.scope)
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("big")
def test_a_stranger_can_not_tell_an_array_from_none_and_a_viewer_may_only_look(
    alice: Person, charlie: Person, vera: Person, submit: Submit
) -> None:
    array = array_of(submit(alice, array="0-9"))
    for verb in (arrays.get, services.cancel_array):
        with pytest.raises(NotFound, match=r"^There is no such array\.$"):
            verb(array, scope=charlie.scope)
    assert arrays.get(array, scope=vera.scope).size == 10
    with pytest.raises(Problem, match="not change it"):
        services.cancel_array(array, scope=vera.scope)
    assert not Job.objects.exclude(cancel_requested_at=None).exists()


def test_a_member_is_retried_alone(alice: Person, submit: Submit, finish: Any) -> None:
    command = 'test -e ran || { touch ran; exit 3; }; test "$HAEIN_ARRAY_INDEX" = 1'
    first, second = members(submit(alice, array="0-1", command=command, gpus=0))
    for job in (first, second):
        assert finish(job).state == "failed"
    services.retry(second, scope=alice.scope)
    assert finish(second).state == "succeeded"
    first.refresh_from_db()
    assert (first.state, first.attempts_made, second.attempts_made) == ("failed", 1, 2)


@pytest.mark.usefixtures("big")
def test_a_launch_asks_for_sizes_once(alice: Person, submit: Submit) -> None:
    first = submit(alice, array="0-3", gpus=1)
    scheduling.run_pass(now=clock.now(), ready=READY)
    attempts = list(Attempt.objects.filter(job__array=first.array).select_related("job", "node"))
    sizes = arrays.sizes(attempt.job.array for attempt in attempts)
    launches = [lifecycle._launch_of(attempt, sizes) for attempt in attempts]
    assert {launch.variables["HAEIN_ARRAY_SIZE"] for launch in launches} == {"4"}
    assert {launch.variables["HAEIN_ARRAY_INDEX"] for launch in launches} == {"0", "1", "2", "3"}
