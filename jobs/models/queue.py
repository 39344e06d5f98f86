"""The rows of the queue: who may use how much, what is kept for whom, and what was promised."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from haein.cluster.models import Device, Node
from haein.lib import ids
from haein.tenants.models import Organization, Owned, Team, User
from jobs.models.work import Job


class Quota(Owned):
    """What an organization, a team or a member may use, in all (pool "") or in one pool.

    GPUs in thousandths. A team's guarantee is its own whenever it asks; what is idle of it is lent while it `lends`.
    Beyond the guarantee it may borrow up to `borrow` (None: whatever is idle). Of what can be borrowed each gets as its
    `weight` (thousandths) says. The others are limits (None: no limit): jobs at once, GPUs of one job, the time limit
    of one job in seconds, GPU-hours a calendar month (UTC). Of a member and of an organization guarantee and borrow
    add up to the most it may hold; only a team's guarantee is kept for it.
    """

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="quotas")
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="quotas")
    member = models.ForeignKey(User, models.PROTECT, null=True, related_name="quotas")
    pool = models.CharField(max_length=60, blank=True)
    guaranteed = models.PositiveIntegerField(default=0)
    borrow = models.PositiveIntegerField(null=True)
    lends = models.BooleanField(default=True)
    weight = models.PositiveIntegerField(default=1000)
    running_jobs = models.PositiveIntegerField(null=True)
    gpus_per_job = models.PositiveIntegerField(null=True)
    time_limit_s = models.PositiveIntegerField(null=True)
    gpu_hours = models.PositiveIntegerField(null=True)
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["organization", "team", "member", "pool"], nulls_distinct=False, name="quota_once"
            ),
            models.CheckConstraint(condition=Q(weight__gte=1), name="quota_weight"),
            models.CheckConstraint(condition=Q(member=None) | Q(team__isnull=False), name="quota_member_in_team"),
        ]


class Spent(Owned):
    """What a member's ended runs used for a team in one calendar month (UTC), in seconds of thousandths of GPUs."""

    team = models.ForeignKey(Team, models.PROTECT)
    member = models.ForeignKey(User, models.PROTECT)
    pool = models.CharField(max_length=60, blank=True)
    month = models.DateField()
    unit_seconds = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["team", "member", "pool", "month"], name="spent_once"),
        ]


class Share(Owned):
    """A team's use as fair share counts it: `used` seconds of thousandths of GPUs, halved every half-life, as of `at`;
    since then `rate` thousandths are held."""

    team = models.OneToOneField(Team, models.PROTECT, related_name="share")
    used = models.FloatField(default=0)
    rate = models.PositiveIntegerField(default=0)
    at = models.DateTimeField()


class Claim(Owned):
    """Room that is kept for a waiting job.

    "reclaim": others were told to leave it; "move": it was moved by an approved repack and has this place; "turn": its
    turn has come and nothing that would delay it is started before it. `places` are [node, [devices]] by key;
    `starts_at` is when it starts at the latest, if what runs ends by its limits.
    """

    team_path = "job__team_id"

    class Kind(models.TextChoices):
        RECLAIM = "reclaim", _("reclaimed")
        MOVE = "move", _("moved")
        TURN = "turn", _("its turn")

    job = models.OneToOneField(Job, models.PROTECT, related_name="claim")
    kind = models.CharField(max_length=10, choices=Kind)
    made_at = models.DateTimeField()
    starts_at = models.DateTimeField(null=True)
    places = models.JSONField(default=list)


class Promise(Owned):
    """What a job was told of its start when it began to wait, and what became of it; kept for the score.

    `raw_s` is what the rehearsal of the queue said, in seconds from `made_at`, before history corrected it. Closed with
    `started_at`, or without when the job was cancelled or changed its place by somebody's doing.
    """

    team_path = "job__team_id"

    job = models.ForeignKey(Job, models.PROTECT, related_name="promises")
    made_at = models.DateTimeField()
    raw_s = models.PositiveIntegerField()
    p50_at = models.DateTimeField()
    p90_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job"], condition=Q(closed_at=None), name="promise_open_once"),
        ]
        indexes: ClassVar = [models.Index(fields=["-made_at"], name="promise_newest")]


class Window(Owned):
    """Room set apart from one moment to another: reserved for a team, or out for maintenance (no team).

    A reservation has `gpus` devices of a `model`, chosen when it was made; maintenance has nodes. From `starts_at` to
    `ends_at` only the team's jobs run there, or none; before it only what ends in time is started there.
    """

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="windows")
    reason = models.CharField(max_length=200)
    gpus = models.PositiveIntegerField(default=0)
    model = models.CharField(max_length=80, blank=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    nodes = models.ManyToManyField(Node, related_name="windows")
    devices = models.ManyToManyField(Device, related_name="windows")
    made_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    made_at = models.DateTimeField(default=timezone.now)
    cancelled_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="window_interval"),
        ]
        indexes: ClassVar = [models.Index(fields=["ends_at"], condition=Q(cancelled_at=None), name="window_open")]


class Repack(Owned):
    """A proposal to move running jobs so that a waiting one finds room; an operator approves it and watches it.

    `moves` says what to move, from where and to where, as repacks.Plan as JSON; `lost_s` is the work lost by it in
    GPU-seconds, `gained_s` how much sooner the waiting job has its GPUs.
    """

    team_path = "job__team_id"

    class State(models.TextChoices):
        PROPOSED = "proposed", _("Proposed")
        MOVING = "moving", _("Moving")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        REJECTED = "rejected", _("Rejected")
        OUTDATED = "outdated", _("Outdated")

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    state = models.CharField(max_length=10, choices=State, default=State.PROPOSED)
    made_at = models.DateTimeField(default=timezone.now)
    job = models.ForeignKey(Job, models.PROTECT, related_name="repacks")
    moves = models.JSONField()
    lost_s = models.PositiveBigIntegerField()
    gained_s = models.PositiveBigIntegerField()
    decided_by = models.ForeignKey(User, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["state"], condition=Q(state__in=["proposed", "moving"]), name="repack_one_of_a_state"
            ),
        ]
