"""What was asked for (Job), each run of it (Attempt), what a run held (Allocation) and all that happened (Event)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from haein.cluster.models import Device, Node
from haein.lib import ids
from haein.tenants.models import Owned, Team, User
from jobs.spec import Near, Preemption
from jobs.states import ACTIVE, ENDED, OPEN, State

STATE_NAMES = {
    State.QUEUED: _("Queued"),
    State.STARTING: _("Starting"),
    State.RUNNING: _("Running"),
    State.SUCCEEDED: _("Succeeded"),
    State.FAILED: _("Failed"),
    State.CANCELLED: _("Cancelled"),
    State.TIMED_OUT: _("Timed out"),
}


def _values(states: Iterable[State]) -> list[str]:
    """In one order: a set has another in each process, and a migration would be asked for at random."""
    return sorted(state.value for state in states)


class Upload(Owned):
    """A file that came with a job: kept by the server, copied into the job's folder when it first runs."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    team = models.ForeignKey(Team, models.PROTECT)
    name = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(default=timezone.now)


class Job(Owned):
    """A job: its spec, its state, and what the queue needs to know of it.

    CPUs in thousandths of a core, memory in MiB, `share` in thousandths of each GPU, times in seconds. What is asked
    for (GPUs, CPUs, memory) is for each of its workers; they start together or not at all. `profile` is a MIG profile,
    `near` how near each other the workers should be, or must be. `preemption` says whether others may take its place,
    `checkpoints` that it saves its work when it is signalled, `requeue` that it waits again after it was preempted.
    """

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    team = models.ForeignKey(Team, models.PROTECT, related_name="jobs")
    submitted_by = models.ForeignKey(User, models.PROTECT, related_name="jobs")
    cloned_from = models.ForeignKey("self", models.SET_NULL, null=True, related_name="clones")
    # The jobs that were submitted as one array have the same, and each its own index in it.
    array = models.UUIDField(null=True)
    array_index = models.PositiveIntegerField(null=True)
    # The history of another system that it is from: it ran there, nobody is billed for it, and it can't run again.
    imported = models.ForeignKey("jobs.Import", models.PROTECT, null=True, db_index=False, related_name="jobs")

    name = models.CharField(_("name"), max_length=120)
    command = models.TextField(_("command"))
    upload = models.ForeignKey(Upload, models.PROTECT, null=True)
    variables = models.JSONField(default=dict)
    environment = models.CharField(max_length=200)
    gpus = models.PositiveIntegerField()
    share = models.PositiveIntegerField()
    gpu_memory_mb = models.PositiveIntegerField(default=0)
    profile = models.CharField(max_length=20, blank=True)
    gpu_model = models.CharField(max_length=80, blank=True)
    cpus = models.PositiveIntegerField()
    memory_mb = models.PositiveIntegerField()
    workers = models.PositiveIntegerField(default=1)
    near = models.CharField(max_length=10, default=Near.ANY.value)
    near_required = models.BooleanField(default=False)
    pool = models.CharField(max_length=60, blank=True)
    labels = ArrayField(models.CharField(max_length=60), default=list)
    time_limit_s = models.PositiveIntegerField()
    retries = models.PositiveIntegerField(default=0)
    priority = models.IntegerField(default=0)
    preemption = models.CharField(max_length=10, default=Preemption.ALLOWED.value)
    checkpoints = models.BooleanField(default=False)
    requeue = models.BooleanField(default=True)
    tags = ArrayField(models.CharField(max_length=40), default=list)

    state = models.CharField(max_length=12, choices=[(s.value, STATE_NAMES[s]) for s in State], default=State.QUEUED)
    # Why it is where it is, as a code of jobs/wording.py with its values; for a queued job only the class of reason.
    reason = models.CharField(max_length=40, blank=True)
    reason_values = models.JSONField(default=dict)
    cancel_requested_at = models.DateTimeField(null=True)
    attempts_made = models.PositiveIntegerField(default=0)
    # How many of the attempts count against `retries`: those the operator's machines spoiled do not.
    failures = models.PositiveIntegerField(default=0)
    preemptions = models.PositiveIntegerField(default=0)
    # After a failure it rests until then.
    not_before = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    queued_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=[s.value for s in State]), name="job_state"),
            models.CheckConstraint(condition=Q(share__gte=1, share__lte=1000), name="job_share"),
            models.CheckConstraint(condition=Q(workers__gte=1), name="job_workers"),
            models.CheckConstraint(
                condition=Q(ended_at=None, state__in=_values(OPEN))
                | Q(ended_at__isnull=False, state__in=_values(ENDED)),
                name="job_ended_at",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["team", "-created_at"], name="job_by_team"),
            models.Index(fields=["team", "state", "-created_at"], name="job_by_team_state"),
            models.Index(fields=["team", "name", "-id"], name="job_by_team_name"),
            models.Index(fields=["team", "-priority", "-id"], name="job_by_team_priority"),
            models.Index(F("priority").desc(), "queued_at", "id", condition=Q(state="queued"), name="job_queue"),
            models.Index(fields=["state"], condition=Q(state__in=_values(ACTIVE)), name="job_active"),
            models.Index(fields=["array", "array_index"], condition=Q(array__isnull=False), name="job_by_array"),
            models.Index(fields=["imported"], condition=Q(imported__isnull=False), name="job_by_import"),
            GinIndex(fields=["tags"], name="job_by_tag"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.short_id})"

    @property
    def short_id(self) -> str:
        return ids.short(self.pk)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE


class Attempt(Owned):
    """One run of a job. `launched_at` is the lease of whoever is launching it.

    `node` is where it runs, or the first of its workers; CPUs (thousandths of a core) and memory (MiB) are for each
    worker. `guaranteed` says that it runs inside its team's guarantee; what does not is borrowed. One that must yield
    is asked for its end at `preempt_at`, for the reason `preempt_code` (of jobs/wording.py) with its values and, where
    that is why, for the job `preempted_for`; it was told, and signalled to save its work, at `warned_at`.
    `checkpoint_at` is when it last said that it had saved it. `waits_for` is what the engine below says it waits for,
    in English, while it was handed over and has not begun.
    """

    team_path = "job__team_id"

    class State(models.TextChoices):
        STARTING = "starting", _("starting")
        RUNNING = "running", _("running")
        ENDED = "ended", _("ended")

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    job = models.ForeignKey(Job, models.PROTECT, related_name="attempts")
    number = models.PositiveIntegerField()
    node = models.ForeignKey(Node, models.PROTECT)
    cpus = models.PositiveIntegerField()
    memory_mb = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=State, default=State.STARTING)
    placed_at = models.DateTimeField()
    launched_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    cause = models.CharField(max_length=20, blank=True)
    exit_code = models.IntegerField(null=True)
    signal = models.IntegerField(null=True)
    detail = models.CharField(max_length=500, blank=True)
    guaranteed = models.BooleanField(default=False)
    preempt_at = models.DateTimeField(null=True)
    preempt_code = models.CharField(max_length=40, blank=True)
    preempt_values = models.JSONField(default=dict)
    preempted_for = models.ForeignKey(Job, models.PROTECT, null=True, related_name="+")
    warned_at = models.DateTimeField(null=True)
    checkpoint_at = models.DateTimeField(null=True)
    waits_for = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "number"], name="attempt_number_once"),
            # Law 1 in the database itself: a job never runs twice at once.
            models.UniqueConstraint(fields=["job"], condition=~Q(state="ended"), name="attempt_one_at_a_time"),
            models.CheckConstraint(condition=Q(state__in=["starting", "running", "ended"]), name="attempt_state"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["state"], condition=~Q(state="ended"), name="attempt_open"),
        ]


class Worker(Owned):
    """A further worker of a gang: rank 0 runs on the attempt's own node, the ranks from 1 on those named here."""

    team_path = "attempt__job__team_id"

    attempt = models.ForeignKey(Attempt, models.PROTECT, related_name="workers")
    rank = models.PositiveIntegerField()
    node = models.ForeignKey(Node, models.PROTECT)

    class Meta:
        ordering: ClassVar = ["rank"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["attempt", "rank"], name="worker_once"),
            models.CheckConstraint(condition=Q(rank__gte=1), name="worker_rank"),
        ]


class Allocation(Owned):
    """A slice of one device that an attempt held; what billing pulls.

    Of a whole device or a share, `units` are thousandths of it and `memory` is MiB of its memory. Of a MIG instance
    (`profile`, and the memory slice it starts at) both are 56ths: 8 a compute slice, 7 a memory slice. `weight` is the
    part of the device's price that it costs, in thousandths (haein.placement.weights).

    It is held from `held_from` to `ended_at`; it costs from `billable_from` (the process runs) to `ended_at`, unless it
    is waived because the operator's machine was at fault. The last two are the runner's own clock readings. The last
    `credited_s` seconds are the operator's: work since the last checkpoint, lost by being preempted inside a guarantee.
    """

    team_path = "attempt__job__team_id"

    attempt = models.ForeignKey(Attempt, models.PROTECT, related_name="allocations")
    rank = models.PositiveIntegerField(default=0)
    device = models.ForeignKey(Device, models.PROTECT, related_name="allocations")
    units = models.PositiveIntegerField()
    memory = models.PositiveIntegerField(default=0)
    profile = models.CharField(max_length=20, blank=True)
    start = models.PositiveSmallIntegerField(null=True)
    weight = models.PositiveIntegerField()
    held_from = models.DateTimeField()
    billable_from = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    waived = models.BooleanField(default=False)
    credited_s = models.PositiveIntegerField(default=0)
    metered = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            # Several instances of one device only where an engine that chooses them itself has given a worker so many.
            models.UniqueConstraint(
                fields=["attempt", "rank", "device", "start"], nulls_distinct=False, name="allocation_once"
            ),
            models.CheckConstraint(condition=Q(units__gt=0), name="allocation_units"),
            models.CheckConstraint(condition=Q(weight__gt=0, weight__lte=1000), name="allocation_weight"),
            # Law 2 in the database itself, as far as a start says it: no two instances begin at one memory slice.
            models.UniqueConstraint(
                fields=["device", "start"],
                condition=Q(ended_at=None, start__isnull=False),
                name="allocation_one_at_a_start",
            ),
            models.CheckConstraint(
                condition=Q(profile="", start=None) | (~Q(profile="") & Q(start__isnull=False)),
                name="allocation_instance",
            ),
            models.CheckConstraint(
                condition=Q(ended_at=None) | Q(billable_from=None) | Q(ended_at__gte=F("billable_from")),
                name="allocation_interval",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["device"], condition=Q(ended_at=None), name="allocation_open"),
            models.Index(fields=["id"], condition=Q(metered=False), name="allocation_unmetered"),
        ]


class Event(Owned):
    """One thing that happened to a job. Append-only: a trigger refuses every update and delete."""

    team_path = "job__team_id"

    job = models.ForeignKey(Job, models.PROTECT, related_name="events")
    at = models.DateTimeField()
    kind = models.CharField(max_length=20)
    old_state = models.CharField(max_length=12, blank=True)
    new_state = models.CharField(max_length=12)
    attempt = models.PositiveIntegerField(null=True)
    reason = models.CharField(max_length=40, blank=True)
    reason_values = models.JSONField(default=dict)
    actor_name = models.CharField(max_length=254, blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["job", "id"], name="event_by_job")]
