"""The verbs on replays, for operators, and the lease of whoever works on one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from haein.lib import clock, live
from haein.lib.errors import Forbidden, Invalid, NotFound, Problem
from haein.placement import traces
from haein.placement.policies import POLICIES
from haein.tenants import audit
from haein.tenants.models import User
from jobs import wakeup
from jobs.models import Replay

MOST_BYTES = 8 << 20
MOST_UNPACKED = 64 << 20
# So much of a file is looked at before it is accepted: most faults are in the header or in every line.
LOOKED_AT = 64 << 10
MOST_JOBS = 200_000
MOST_RUNS = 12
MOST_NODES, MOST_GPUS = 10_000, 100_000
MOST_OPEN = 20
MOST_DAYS = 366
MOST_TRIES = 3
LEASE = timedelta(seconds=20)
OPEN = (Replay.State.QUEUED, Replay.State.RUNNING)
AUDIENCE = live.group("replays", "all")


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A node as it might be bought: CPUs in thousandths of a core, memory in MiB."""

    gpus: int
    model: str
    cpus: int
    memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be replayed, under which policies, on which clusters.

    Our own jobs submitted in [since, until), or where both are None the uploaded file. `own`: on our cluster as it is;
    `nodes`: and on clusters of so many nodes of the `kind`, or without one of the kinds of ours in turn.
    """

    policies: tuple[str, ...]
    own: bool = True
    nodes: tuple[int, ...] = ()
    kind: NodeKind | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def runs(self) -> int:
        return len(self.policies) * (self.own + len(self.nodes))

    def as_json(self) -> dict[str, Any]:
        moments = {
            name: each.isoformat() if each else None for name, each in (("since", self.since), ("until", self.until))
        }
        return {**asdict(self), **moments}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Asked:
        return cls(
            policies=tuple(found["policies"]),
            own=found["own"],
            nodes=tuple(found["nodes"]),
            kind=NodeKind(**found["kind"]) if found["kind"] else None,
            since=datetime.fromisoformat(found["since"]) if found["since"] else None,
            until=datetime.fromisoformat(found["until"]) if found["until"] else None,
        )

    def check(self) -> None:
        """Raises Invalid with a sentence for every field that is wrong."""
        faults = {name: fault for name, fault in self._faults() if fault}
        if faults:
            raise Invalid(faults)

    def _faults(self) -> list[tuple[str, str]]:
        return [
            ("policies", self._policies()),
            ("nodes", self._nodes()),
            ("until", self._span()),
        ]

    def _policies(self) -> str:
        if not self.policies or set(self.policies) - POLICIES.keys() or len(set(self.policies)) < len(self.policies):
            return _("Choose at least one policy, each once: %(all)s.") % {"all": ", ".join(POLICIES)}
        if self.runs > MOST_RUNS:
            return _("That makes %(runs)d runs, and %(most)d are the most: take fewer policies or sizes.") % {
                "runs": self.runs,
                "most": MOST_RUNS,
            }
        return ""

    def _nodes(self) -> str:
        if not self.own and not self.nodes:
            return _("Choose our cluster as it is, or write one number of nodes or several.")
        if not all(1 <= count <= MOST_NODES for count in self.nodes):
            return _("A cluster has from 1 to %(most)d nodes here.") % {"most": MOST_NODES}
        if self.kind and max(self.nodes, default=0) * self.kind.gpus > MOST_GPUS:
            return _("A cluster has at most %(most)d GPUs here: take fewer nodes.") % {"most": MOST_GPUS}
        return ""

    def _span(self) -> str:
        if self.since is None or self.until is None:
            return ""
        if self.since >= self.until:
            return _("The last day is before the first: choose a later one.")
        if self.until - self.since > timedelta(days=MOST_DAYS):
            return _("At most %(days)d days at once: choose a shorter span.") % {"days": MOST_DAYS}
        return ""


def get(replay_id: UUID, *, by: User) -> Replay:
    """Without its trace. Raises NotFound, also for anybody who is no operator."""
    found = newest(by=by).filter(pk=replay_id).first()
    if found is None:
        raise NotFound(_("There is no such replay."))
    return found


def newest(*, by: User) -> QuerySet[Replay]:
    """All of them without their traces, newest first; none for anybody who is no operator."""
    replays = Replay.objects.select_related("by").defer("trace").order_by("-created_at")
    return replays if by.is_operator else replays.none()


@transaction.atomic
def start(*, by: User, asked: Asked, file_name: str = "", content: bytes = b"") -> Replay:
    """Write the wish down. Raises Forbidden, Invalid, Problem."""
    _must_operate(by)
    asked.check()
    if asked.since is None:
        check_file(file_name, content)
    if Replay.objects.filter(state__in=OPEN).count() >= MOST_OPEN:
        raise Problem(_("%(most)d replays wait already: cancel one, or wait for one to end.") % {"most": MOST_OPEN})
    replay = Replay.objects.create(by=by, asked=asked.as_json(), file_name=file_name, trace=content)
    audit.record("replay.start", str(replay.pk), by=by, file_name=file_name, **asked.as_json())
    _changed(replay.pk)
    wakeup.replay_soon()
    return replay


def check_file(name: str, content: bytes) -> None:
    """Its size and its beginning; the worker reads the rest, and says as well where a fault is. Raises Invalid."""
    if fault := _fault_of(name, content):
        raise Invalid({"trace": fault})


def _fault_of(name: str, content: bytes) -> str:
    if not content:
        return _("The file is empty: choose one with a line of column names and a line for each job.")
    if len(content) > MOST_BYTES:
        most = {"most": MOST_BYTES >> 20}
        return _("The file is larger than %(most)d MiB: give a part of it, or pack it with gzip.") % most
    try:
        traces.timed(name, traces.beginning(name, content, LOOKED_AT))
    except traces.Fault as fault:
        return str(fault)
    return ""


@transaction.atomic
def cancel(replay_id: UUID, *, by: User) -> None:
    """It ends within a second or so. Raises NotFound, Problem when it has ended."""
    replay = get(replay_id, by=by)
    ended = {"state": Replay.State.CANCELLED, "ended_at": clock.now(), "trace": b"", "lease": None}
    if not Replay.objects.filter(pk=replay.pk, state__in=OPEN).update(**ended):
        raise Problem(_("It has ended already."))
    audit.record("replay.cancel", str(replay.pk), by=by)
    _changed(replay.pk)


@transaction.atomic
def delete(replay_id: UUID, *, by: User) -> None:
    """The row goes, and with it the outcome; who works on it stops. Raises NotFound."""
    replay = get(replay_id, by=by)
    Replay.objects.filter(pk=replay.pk).delete()
    audit.record("replay.delete", str(replay.pk), by=by, file_name=replay.file_name, **replay.asked)
    _changed(replay.pk)


def _must_operate(by: User) -> None:
    if not by.is_operator:
        raise Forbidden(_("Only an operator replays traces."))


def _changed(replay_id: UUID) -> None:
    live.push(AUDIENCE, live.group("replay", replay_id))


# For whoever works on one.


@transaction.atomic
def take(*, now: datetime) -> Replay | None:
    """The oldest that waits, or whose worker has not been heard of; now the caller's alone until the lease is over."""
    lost = Q(state=Replay.State.RUNNING, leased_until__lt=now)
    waiting = Replay.objects.filter(Q(state=Replay.State.QUEUED) | lost).order_by("created_at")
    while replay := waiting.select_for_update(skip_locked=True).first():
        if replay.tries < MOST_TRIES:
            _lease(replay, now)
            return replay
        _end(replay, Replay.State.FAILED, now, problem=_given_up())
    return None


def _lease(replay: Replay, now: datetime) -> None:
    replay.state, replay.lease, replay.tries, replay.progress = Replay.State.RUNNING, uuid4(), replay.tries + 1, 0
    replay.started_at, replay.leased_until = now, now + LEASE
    replay.save(update_fields=["state", "lease", "tries", "progress", "started_at", "leased_until"])
    _changed(replay.pk)


def _given_up() -> str:
    return _("Its worker died %(tries)d times in the middle: try fewer jobs, or a smaller cluster.") % {
        "tries": MOST_TRIES
    }


def _mine(replay: Replay) -> QuerySet[Replay]:
    return Replay.objects.filter(pk=replay.pk, state=Replay.State.RUNNING, lease=replay.lease)


@transaction.atomic
def go_on(replay: Replay, *, progress: int, now: datetime) -> bool:
    """Says how far it is (in thousandths) and keeps the lease; False when it is not the caller's any more."""
    mine = _mine(replay).update(progress=progress, leased_until=now + LEASE) == 1
    if mine:
        _changed(replay.pk)
    return mine


@transaction.atomic
def give_back(replay: Replay) -> None:
    """The worker ends before the replay does: the next one takes it, and it does not count as a try."""
    _mine(replay).update(state=Replay.State.QUEUED, lease=None, tries=F("tries") - 1, progress=0)
    _changed(replay.pk)


@transaction.atomic
def finish(replay: Replay, result: Mapping[str, Any], *, now: datetime) -> None:
    _end(replay, Replay.State.DONE, now, result=result, progress=1000)


@transaction.atomic
def fail(replay: Replay, problem: str, *, now: datetime) -> None:
    _end(replay, Replay.State.FAILED, now, problem=problem)


def _end(replay: Replay, state: Replay.State, now: datetime, **outcome: Any) -> None:
    _mine(replay).update(state=state, ended_at=now, trace=b"", lease=None, **outcome)
    _changed(replay.pk)
