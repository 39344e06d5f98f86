"""Reads a site's past from Slurm's accounting into history, so that lists, replays and forecasts begin with it.

An imported job is a row as any other, ended, with the run that it had. It has no allocation, so nothing bills it; no
event, since those can't be taken back; and `imported` keeps it from being run again. Its id is made of what Slurm knows
it by (cluster, id and time of submission: ids wrap), so reading it twice finds it there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from uuid import UUID

from django.db import connection, transaction
from django.db.models import ProtectedError
from django.utils.translation import gettext as _

from haein.cluster.backends.base import Cause
from haein.cluster.backends.slurm import names, past
from haein.cluster.backends.slurm.past import Run, StillOpen
from haein.cluster.backends.slurm.records import State as Ended
from haein.cluster.models import DeviceModel, Node
from haein.lib import copying, ids
from haein.lib.errors import Problem
from haein.placement import mig
from haein.tenants import audit
from haein.tenants.models import Organization, OrganizationMember, Team, TeamMember, User
from jobs.models import Attempt, Import, Job
from jobs.spec import MOST_TIME_S
from jobs.states import State

BATCH = 5000
# So many lines that can't be read are told one by one.
MOST_TOLD = 20
HOUR = 3600
STATES: Mapping[Ended, tuple[State, Cause]] = {
    Ended.COMPLETED: (State.SUCCEEDED, Cause.EXITED),
    Ended.FAILED: (State.FAILED, Cause.EXITED),
    Ended.CANCELLED: (State.CANCELLED, Cause.STOPPED),
    Ended.TIMEOUT: (State.TIMED_OUT, Cause.TIME_LIMIT),
    Ended.DEADLINE: (State.TIMED_OUT, Cause.TIME_LIMIT),
    Ended.OUT_OF_MEMORY: (State.FAILED, Cause.MEMORY_LIMIT),
    Ended.PREEMPTED: (State.FAILED, Cause.PREEMPTED),
    Ended.NODE_FAIL: (State.FAILED, Cause.LOST),
    Ended.BOOT_FAIL: (State.FAILED, Cause.NOT_STARTED),
    Ended.REVOKED: (State.CANCELLED, Cause.STOPPED),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose the past is. `teams` gives an account's team by name; one that it does not have goes to the team of its own
    name. With a mail `domain` each user becomes the person user@domain, else all of them are one placeholder."""

    organization: Organization
    source: str
    teams: Mapping[str, str] = field(default_factory=dict)
    domain: str = ""


@dataclass(slots=True)
class Report:
    """What was read, or would be."""

    jobs: Counter[tuple[str, str]] = field(default_factory=Counter)  # by account and team
    gpu_seconds: Counter[tuple[str, str]] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    made: dict[str, list[str]] = field(default_factory=lambda: {"users": [], "teams": [], "nodes": []})
    known: int = 0
    open: int = 0
    own: int = 0
    shared: int = 0
    unreadable: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)

    def cannot_read(self, line: int, why: str) -> None:
        self.unreadable += 1
        if len(self.faults) < MOST_TOLD:
            self.faults.append((line, why))


@transaction.atomic
def read(lines: Iterable[str], asked: Asked, *, keep: bool) -> Report:
    """Write the past down, all or nothing; unless `keep`, everything is as it was before, and the report says what
    would have been written. Raises past.Unreadable for lines that are no such past.
    """
    # One at a time: two would make the same teams.
    Organization.objects.select_for_update().get(pk=asked.organization.pk)
    report = Report()
    pen = _Pen(asked, report)
    wanted = _wanted(past.runs(lines, report.cannot_read), report)
    while batch := list(islice(wanted, BATCH)):
        pen.write(batch)
    count = report.jobs.total()
    if not keep or not count:
        transaction.set_rollback(True)
        return report
    Import.objects.filter(pk=pen.row.pk).update(made=report.made)
    with connection.cursor() as cursor:
        # Until PostgreSQL's own housekeeping comes by, every query would be planned for the few rows of before.
        cursor.execute("ANALYZE jobs_job, jobs_attempt")
    audit.record(
        "history.import",
        f"import {pen.row.pk}",
        by=None,
        organization_id=asked.organization.pk,
        source=asked.source,
        jobs=count,
    )
    return report


def _wanted(found: Iterable[Run | StillOpen], report: Report) -> Iterator[Run]:
    """Those that are over and were not Haein's own: these are in its history already."""
    for each in found:
        if isinstance(each, StillOpen):
            report.open += 1
        elif names.attempt_of(each.name):
            report.own += 1
        else:
            yield each


class _Pen:
    """Turns runs into rows, batch by batch, and makes the people, teams and nodes that they need."""

    def __init__(self, asked: Asked, report: Report) -> None:
        self._asked, self._report = asked, report
        self.row = Import.objects.create(organization=asked.organization, source=asked.source[:255])
        self._teams = {team.name.casefold(): team for team in Team.objects.filter(organization=asked.organization)}
        self._people: dict[str, User] = {}
        self._members: set[tuple[UUID, UUID]] = set()
        self._nodes = {node.name: node for node in Node.objects.all()}
        self._models = {name.casefold(): name for name in DeviceModel.objects.values_list("name", flat=True)}

    def write(self, batch: list[Run]) -> None:
        runs = {_id_of(run, "job"): run for run in batch}
        known = set(Job.objects.filter(pk__in=runs).values_list("pk", flat=True))
        self._report.known += len(batch) - len(runs) + len(known)
        jobs, attempts = [], []
        for pk, run in runs.items():
            if pk not in known:
                job = self._job(pk, run)
                jobs.append(job)
                if run.ran:
                    attempts.append(self._attempt(job, run))
        copying.write(jobs)
        copying.write(attempts)

    def _job(self, pk: UUID, run: Run) -> Job:
        team, state = self._team(run.account), STATES[run.state][0]
        self._count(run, team, state)
        workers, gpus = _shape(run)
        kind = next(iter(run.types)) if len(run.types) == 1 else ""
        return Job(
            id=pk,
            team_id=team.pk,
            submitted_by_id=self._person(run, team).pk,
            imported_id=self.row.pk,
            array=None if run.array is None else _id_of(run, f"array {run.array}"),
            array_index=run.index,
            name=_clean(run.name)[:120] or f"slurm {run.id}",
            command=f"# Slurm job {run.id} of {run.cluster}: what it ran is not on record.",
            environment="",
            gpus=gpus,
            share=1000,
            profile=kind if kind in mig.NAMES else "",
            gpu_model=self._models.get(kind.casefold(), "") if kind not in mig.NAMES else "",
            cpus=ceil(run.cpus * 1000 / workers),
            memory_mb=ceil(run.memory_mb / workers),
            workers=workers,
            time_limit_s=min(run.limit_s or MOST_TIME_S, MOST_TIME_S),
            tags=[f"partition:{run.partition}"[:40]] if run.partition else [],
            state=state,
            reason="imported",
            reason_values={"id": run.id, "cluster": run.cluster, "state": run.state.value},
            attempts_made=int(run.ran is not None),
            created_at=run.submitted,
            queued_at=run.submitted,
            started_at=run.ran[0] if run.ran else None,
            ended_at=run.ended,
        )

    def _attempt(self, job: Job, run: Run) -> Attempt:
        assert run.ran
        began, ended = run.ran
        return Attempt(
            id=_id_of(run, "attempt"),
            job_id=job.pk,
            number=1,
            node_id=self._node(run).pk,
            cpus=job.cpus,
            memory_mb=job.memory_mb,
            state=Attempt.State.ENDED,
            placed_at=began,
            launched_at=began,
            started_at=began,
            ended_at=ended,
            cause=(Cause.SIGNALLED if run.state is Ended.FAILED and run.signal else STATES[run.state][1]).value,
            exit_code=run.exit_code,
            signal=run.signal or None,
            detail=f"In Slurm it was {run.state.value} on {run.node_list}."[:500],
        )

    def _count(self, run: Run, team: Team, state: State) -> None:
        key = run.account, team.name
        self._report.jobs[key] += 1
        self._report.gpu_seconds[key] += run.gpus * run.elapsed_s
        self._report.states[state.value] += 1
        self._report.shared += bool(run.shards)

    def _team(self, account: str) -> Team:
        name = (self._asked.teams.get(account) or account or _("No account"))[:80]
        team = self._teams.get(name.casefold())
        if team is None:
            team = self._teams[name.casefold()] = Team.objects.create(organization=self._asked.organization, name=name)
            self._report.made["teams"].append(str(team.pk))
        return team

    def _person(self, run: Run, team: Team) -> User:
        domain = self._asked.domain
        local = run.user if domain and run.user else "slurm"
        email = f"{local}@{domain or f'{run.cluster}.invalid'}".lower()
        user = self._people.get(email)
        if user is None:
            user = self._people[email] = self._found_or_made(email, run.user if domain else _("Users of Slurm"))
        if str(user.pk) in self._report.made["users"] and (team.pk, user.pk) not in self._members:
            self._join(user, team)
        return user

    def _found_or_made(self, email: str, name: str) -> User:
        user = User.objects.filter(email=email).first()
        if user is None:
            user = User.objects.create_user(email, name=name, is_active=False)
            self._report.made["users"].append(str(user.pk))
        return user

    def _join(self, user: User, team: Team) -> None:
        """Only for those made here: nobody else's reach grows by an import."""
        self._members.add((team.pk, user.pk))
        OrganizationMember.objects.get_or_create(organization=self._asked.organization, user=user)
        TeamMember.objects.create(team=team, user=user)

    def _node(self, run: Run) -> Node:
        """The first that it ran on; one that is no more has nothing to give, and is not there."""
        node = self._nodes.get(run.first_node)
        if node is None:
            node = Node.objects.create(
                name=run.first_node, cpus=0, memory_mb=0, emulated=False, present=False, seen_at=run.ended
            )
            self._nodes[node.name] = node
            self._report.made["nodes"].append(str(node.pk))
        return node


def _id_of(run: Run, what: str) -> UUID:
    """Always the same for the same, and sorted among all others by the time of submission."""
    key = f"{what}|{run.cluster}|{0 if what.startswith('array') else run.id}|{run.submitted.isoformat()}"
    noise = int.from_bytes(hashlib.sha256(key.encode()).digest()[:10], "big")
    return ids.made(int(run.submitted.timestamp()) * 1000, noise)


def _shape(run: Run) -> tuple[int, int]:
    """Workers, and GPUs of each: as many workers as nodes, or the next number that shares the GPUs out evenly."""
    if not run.gpus:
        return run.nodes, 0
    workers = next(count for count in range(min(run.nodes, run.gpus), run.gpus + 1) if run.gpus % count == 0)
    return workers, run.gpus // workers


def _clean(text: str) -> str:
    return "".join(sign for sign in text if sign.isprintable()).strip()


# Takes it out again.

_UNCLONE = """
    UPDATE jobs_job SET cloned_from_id = NULL FROM jobs_job AS old
    WHERE jobs_job.cloned_from_id = old.id AND old.imported_id = %(id)s
"""
_UNDO = (
    _UNCLONE,
    "DELETE FROM jobs_attempt WHERE job_id IN (SELECT id FROM jobs_job WHERE imported_id = %(id)s)",
    "DELETE FROM jobs_job WHERE imported_id = %(id)s",
)


@transaction.atomic
def undo() -> tuple[Import, int]:
    """Take the last import out, with what was made for it and nothing else needs; returns it, and how many jobs went.

    Raises Problem where there is none.
    """
    row = Import.objects.select_for_update().order_by("-pk").first()
    if row is None:
        raise Problem(_("Nothing was imported."))
    with connection.cursor() as cursor:
        for statement in _UNDO:
            cursor.execute(statement, {"id": row.pk})
        jobs = cursor.rowcount
    for user in User.objects.filter(pk__in=row.made["users"], last_login=None):
        _delete_person(user)
    for left in (Team.objects.filter(pk__in=row.made["teams"]), Node.objects.filter(pk__in=row.made["nodes"])):
        for each in left:
            _delete(each)
    row.delete()
    audit.record("history.undo", row.source[:120], by=None, organization_id=row.organization_id, jobs=jobs)
    return row, jobs


def _delete_person(user: User) -> None:
    try:
        with transaction.atomic():
            user.teams.all().delete()
            user.organizations.all().delete()
            user.delete()
    except ProtectedError:
        pass  # there is work of theirs since, or of another import


def _delete(row: Team | Node) -> None:
    try:
        with transaction.atomic():
            row.delete()
    except ProtectedError:
        pass
