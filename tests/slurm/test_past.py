"""A site's past becomes history: what sacct says of its jobs is read once, counts everywhere, is billed nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Model

from billing import metering
from billing.models import Usage
from dashboard import boards
from haein.cluster import slurm_site
from haein.cluster.backends.slurm import past
from haein.cluster.backends.slurm.past import Run, StillOpen
from haein.cluster.backends.slurm.records import State
from haein.cluster.models import Node
from haein.lib import clock
from haein.lib.errors import Problem
from haein.placement.model import Gang
from haein.slurmlab.lab import Lab
from haein.tenants.models import AuditEntry, Team, TeamMember, User
from jobs import imports, occupancy, promises, replaying, services
from jobs.models import Allocation, Attempt, Event, Import, Job
from tests.cast import Person, until

SUBMITTED = datetime(2024, 3, 1, 12, tzinfo=UTC)
TRES = "billing=8,cpu=8,gres/gpu:b200=2,gres/gpu=2,mem=64G,node=1"
HEADER = "|".join(past.COLUMNS)
CELLS = {
    "Cluster": "old",
    "JobIDRaw": "7",
    "JobID": "7",
    "User": "bob",
    "Account": "Vision",
    "Partition": "main",
    "State": "COMPLETED",
    "ExitCode": "0:0",
    "Submit": "2024-03-01T12:00:00",
    "Start": "2024-03-01T12:10:00",
    "End": "2024-03-01T13:10:00",
    "ElapsedRaw": "3600",
    "TimelimitRaw": "240",
    "NNodes": "1",
    "NodeList": "node003",
    "ReqTRES": TRES,
    "AllocTRES": TRES,
    "JobName": "train",
}


def line(**cells: str) -> str:
    return "|".join({**CELLS, **cells}.values())


def read(*lines: str) -> tuple[list[Run | StillOpen], list[tuple[int, str]]]:
    faults: list[tuple[int, str]] = []
    found = list(past.runs([HEADER, *lines], lambda number, why: faults.append((number, why))))
    return found, faults


def one(**cells: str) -> Run:
    (run,), faults = read(line(**cells))
    assert isinstance(run, Run)
    assert not faults
    return run


# What sacct writes.


def test_a_line_is_read_to_the_last_column() -> None:
    run = one()
    assert (run.cluster, run.id, run.user, run.account, run.state) == ("old", 7, "bob", "Vision", State.COMPLETED)
    assert run.ran == (SUBMITTED + timedelta(minutes=10), SUBMITTED + timedelta(minutes=70))
    assert (run.elapsed_s, run.limit_s, run.nodes) == (3600, 14_400, 1)
    assert (run.cpus, run.memory_mb, run.gpus, run.types) == (8, 65_536, 2, {"b200": 2})


@pytest.mark.parametrize(
    ("cells", "field", "value"),
    [
        ({"JobName": "a|b"}, "name", "a|b"),
        ({"State": "CANCELLED by 1000"}, "state", State.CANCELLED),
        ({"TimelimitRaw": "UNLIMITED"}, "limit_s", None),
        ({"TimelimitRaw": "Partition_Limit"}, "limit_s", None),
        ({"NodeList": "None assigned", "Start": "None"}, "ran", None),
        ({"NodeList": "node[001-004,7],other1"}, "first_node", "node001"),
        ({"NodeList": "rack[2-3]n[5,9]"}, "first_node", "rack2n5"),
        ({"AllocTRES": "cpu=1,mem=1000M,gres/gpu:1g.23gb=3"}, "gpus", 3),
        ({"AllocTRES": "cpu=1,mem=1.50T"}, "memory_mb", 1_572_864),
        ({"AllocTRES": "cpu=1,gres/shard=3"}, "shards", 3),
        ({"AllocTRES": ""}, "gpus", 0),
        ({"JobID": "5_12"}, "index", 12),
        ({"JobID": "5_[3-9%2]"}, "index", None),
        ({"ExitCode": "0:9"}, "signal", 9),
    ],
)
def test_the_odd_words_of_sacct(cells: dict[str, str], field: str, value: object) -> None:
    assert getattr(one(**cells), field) == value


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "RESIZING"])
def test_what_is_not_over_is_no_past(state: str) -> None:
    assert read(line(State=state, End="Unknown"))[0] == [StillOpen()]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("not a line of sacct", "1 columns instead of 18"),
        (line(State="FINE"), "no state 'FINE'"),
        (line(End="Unknown"), "no time of submission or of its end"),
        (line(Submit="yesterday"), "Submit is 'yesterday'"),
        (line(JobIDRaw="7.batch"), "JobIDRaw is '7.batch'"),
        (line(AllocTRES="cpu=many"), "'many' among its TRES"),
        (line(AllocTRES="mem=lots"), "mem=lots"),
    ],
)
def test_a_line_that_can_t_be_read_is_told_by_its_number(text: str, why: str) -> None:
    runs, faults = read(line(), text, line(JobIDRaw="8"))
    assert len(runs) == 2
    ((number, said),) = faults
    assert number == 3
    assert why in said


def test_a_file_that_does_not_name_its_columns_is_refused_with_the_way_to_make_one() -> None:
    with pytest.raises(past.Unreadable, match=r"Submit.* are missing. Use TZ=UTC sacct"):
        list(past.runs([HEADER.replace("Submit|", "")], print))


def test_one_that_ran_over_midnight_is_told_by_the_day_on_which_it_ended() -> None:
    first, last = past.days(SUBMITTED - timedelta(hours=36), SUBMITTED + timedelta(hours=12))
    assert (first[1], last) == (last[0], (SUBMITTED - timedelta(hours=12), SUBMITTED + timedelta(hours=12)))
    lines = [line(End="2024-02-29T23:59:59"), line(), line(End="Unknown", State="RUNNING")]
    assert list(past.ended_within(lines, *first)) == lines[:1]
    assert list(past.ended_within(lines, *last)) == lines[1:2]


# What becomes of it.


@pytest.fixture
def told(tmp_path: Path, alice: Person) -> Any:
    """Reads lines in for Acme, and says what the command said."""

    def command(*lines: str, options: tuple[str, ...] = ("--apply",)) -> str:
        file = tmp_path / "sacct.txt"
        file.write_text("\n".join([HEADER, *lines]) + "\n")
        said = StringIO()
        call_command("import_sacct", str(file), "--organization", "Acme", *options, stdout=said)
        return said.getvalue()

    return command


MODELS: list[type[Model]] = [Job, Attempt, Import, Team, User, Node]


def counts() -> list[int]:
    return [model._default_manager.count() for model in MODELS]


def test_a_job_of_the_past_is_a_job_that_ended(told: Any, alice: Person) -> None:
    said = told(line())
    assert "account Vision -> team Vision: 1 job, 2.0 GPU-hours" in said
    job = Job.objects.get()
    assert (job.team, job.name, job.state, job.gpus, job.workers) == (alice.team, "train", "succeeded", 2, 1)
    assert (job.cpus, job.memory_mb, job.time_limit_s, job.tags) == (8000, 65_536, 14_400, ["partition:main"])
    assert (job.created_at, job.ended_at) == (SUBMITTED, SUBMITTED + timedelta(minutes=70))
    assert services.why(job) == "Imported: it was job 7 of the Slurm cluster old, which says that it is COMPLETED."
    run = job.attempts.get()
    assert (run.node.name, run.cause, run.exit_code) == ("node003", "exited", 0)
    assert Event.objects.count() == 0


def test_nobody_is_billed_and_nothing_runs(told: Any, alice: Person) -> None:
    told(line())
    assert metering.pull() == 0
    assert (Allocation.objects.count(), Usage.objects.count()) == (0, 0)
    job = Job.objects.get()
    assert not services.may_retry(job, alice.scope)
    with pytest.raises(Problem, match="what it ran is not on record"):
        services.retry(job, scope=alice.scope)
    assert Job.objects.get().state == "succeeded"


def test_its_page_and_the_lists_show_it(told: Any, alice: Person) -> None:
    told(line())
    job = Job.objects.get()
    page = alice.client.get(f"/jobs/{job.pk}/")
    assert page.status_code == 200
    assert b"job 7 of the Slurm cluster old" in page.content
    recent = boards.overview(alice.scope, now=clock.now())["recent"]
    assert [row.id for row in recent] == [job.pk]


def test_replays_forecasts_and_the_week_s_mix_begin_with_it(told: Any, alice: Person) -> None:
    told(line(), line(JobIDRaw="8", NNodes="2", NodeList="node[003-004]", AllocTRES="cpu=9,mem=9M,gres/gpu=6"))
    trace = replaying.own_jobs(SUBMITTED, SUBMITTED + timedelta(days=1), now=clock.now())
    assert [(job.duration, job.units) for job in trace.jobs] == [(3600, 2000), (3600, 6000)]
    gang = trace.jobs[1].request
    assert isinstance(gang, Gang)
    assert (gang.members, gang.each.gpus) == (2, 3)
    assert promises.history(10) == [(alice.team.pk, 0.25)] * 2


def test_a_job_without_a_limit_says_nothing_of_how_limits_are_chosen(told: Any) -> None:
    told(line(TimelimitRaw="UNLIMITED"))
    assert promises.history(10) == []


def test_gpus_that_nodes_do_not_share_evenly_are_all_there(told: Any) -> None:
    told(line(NNodes="2", AllocTRES="cpu=4,gres/gpu=3"), line(JobIDRaw="8", NNodes="4", AllocTRES="cpu=4,gres/gpu=2"))
    assert sorted(Job.objects.values_list("workers", "gpus")) == [(2, 1), (3, 1)]


def test_the_same_again_changes_nothing_and_an_id_that_was_given_twice_is_two_jobs(told: Any) -> None:
    told(line())
    before = counts()
    assert "in history already: 1" in told(line())
    assert counts() == before
    told(line(Submit="2024-03-01T11:00:00"))
    assert Job.objects.count() == 2


def test_one_that_is_told_twice_in_one_file_is_read_once(told: Any) -> None:
    assert "In all 1 job, 2.0 GPU-hours" in told(line(), line())


def test_without_apply_it_says_the_same_and_writes_nothing(told: Any) -> None:
    before = counts()
    lines = [line(), line(JobIDRaw="8", Account="Speech", State="FAILED", ExitCode="1:0"), "rubbish"]
    said = told(*lines, options=())
    assert counts() == before
    assert "Nothing was written" in said
    assert "line 4: 1 columns instead of 18" in said
    assert said.splitlines()[:-1] == told(*lines).splitlines()[:-1]
    assert AuditEntry.objects.filter(action="history.import").count() == 1


def test_what_haein_itself_submitted_is_in_history_already(told: Any) -> None:
    said = told(line(JobName="haein-01990000-0000-7000-8000-0000deadbeef"))
    assert "submitted by Haein itself: 1" in said
    assert Job.objects.count() == 0


def test_users_are_one_placeholder_or_people_without_a_password(told: Any, bob: Person) -> None:
    told(line())
    assert Job.objects.get().submitted_by.email == "slurm@old.invalid"
    assert not Job.objects.get().submitted_by.is_active
    told(line(JobIDRaw="8"), line(JobIDRaw="9", User="dora"), options=("--apply", "--domain", "bob.example"))
    names = {job.submitted_by.email: job.submitted_by for job in Job.objects.all()}
    assert names["bob@bob.example"] == bob.user
    assert not names["dora@bob.example"].has_usable_password()


def test_accounts_go_to_the_teams_that_a_file_names(told: Any, tmp_path: Path, alice: Person) -> None:
    mapping = tmp_path / "teams.csv"
    mapping.write_text("cv,Vision\n")
    told(line(Account="cv"), line(JobIDRaw="8", Account="nlp"), options=("--apply", "--teams", str(mapping)))
    assert sorted(Job.objects.values_list("team__name", flat=True)) == ["Vision", "nlp"]
    mapping.write_text("cv\n")
    with pytest.raises(CommandError, match="'cv' is not account,team"):
        told(line(), options=("--teams", str(mapping)))


def test_a_node_that_is_no_more_is_no_part_of_the_cluster(told: Any) -> None:
    told(line())
    assert Node.objects.filter(name="node003", present=False).exists()
    assert occupancy.now().nodes == ()


def test_undo_takes_all_of_it_out_again(told: Any, alice: Person) -> None:
    before = counts()
    told(line(), line(JobIDRaw="8", Account="Speech"), options=("--apply", "--domain", "old.example"))
    job = Job.objects.filter(team=alice.team).get()
    Job.objects.filter(pk=job.pk).update(cloned_from=Job.objects.exclude(pk=job.pk).get())
    said = StringIO()
    call_command("import_sacct", "--undo", stdout=said)
    assert said.getvalue().startswith("2 jobs from ")
    assert counts() == before
    with pytest.raises(CommandError, match="Nothing was imported"):
        call_command("import_sacct", "--undo")


def test_undo_leaves_what_others_need_by_now(told: Any, alice: Person) -> None:
    told(line(Account="Speech"))
    speech = Team.objects.get(name="Speech")
    told(line(JobIDRaw="8", Account="Speech", User="x"))
    _row, jobs = imports.undo()
    assert jobs == 1
    assert Job.objects.get().team == speech
    alice_joins = TeamMember.objects.create(team=speech, user=alice.user)
    imports.undo()
    assert (Job.objects.count(), TeamMember.objects.get(pk=alice_joins.pk).team) == (0, speech)


def test_many_are_read_in_few_queries(told: Any, django_assert_max_num_queries: Any) -> None:
    lines = [line(JobIDRaw=str(number)) for number in range(2 * imports.BATCH)]
    with django_assert_max_num_queries(40):
        told(*lines)
    assert Job.objects.count() == len(lines)


# From a real Slurm.


@pytest.fixture
def site(slurm: Lab, settings: Any) -> Iterator[Lab]:
    settings.HAEIN_SLURM_CONF = str(slurm.conf)
    slurm_site.runner.cache_clear()
    yield slurm
    slurm_site.runner.cache_clear()


def test_sacct_itself_is_asked_day_by_day(site: Lab, alice: Person) -> None:
    name = "past|of this test"
    asked = ("--gres=gpu:b200:2", "--mem=100", "--time=7", "--account=haein", f"--job-name={name}")
    number = int(site.run("sbatch", "--parsable", "--output=/dev/null", *asked, "--wrap", "exit 3"))
    told = ("sacct", "-X", "-n", "-P", "-j", str(number), "--format=State,JobName")
    # slurmdbd hears of a job's parts one after the other.
    until(lambda: site.run(*told).strip() == f"FAILED|{name}")
    since = f"{clock.now() - timedelta(days=1):%Y-%m-%d}"
    call_command("import_sacct", "--since", since, "--organization", "Acme", "--apply", stdout=StringIO())
    job = Job.objects.get(name=name)
    assert (job.state, job.gpus, job.time_limit_s, job.team.name) == ("failed", 2, 420, "haein")
    run = job.attempts.get()
    assert (run.exit_code, run.node.name[:4]) == (3, "node")
    assert abs((clock.now() - job.created_at).total_seconds()) < 600
