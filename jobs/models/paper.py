"""The rows of the work done beside the queue: who is alive, replays on paper, what was imported, and what the policy is
settled to."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from haein.lib import ids
from haein.tenants.models import Organization, User


class Pulse(models.Model):
    """When each periodic part last did its work, so that a page can say that one is missing."""

    part = models.CharField(max_length=40, primary_key=True)
    at = models.DateTimeField()
    problem = models.CharField(max_length=300, blank=True)


class Replay(models.Model):
    """A trace run on paper under several policies and cluster sizes, for operators: the wish, its progress, the result.

    `asked` is replays.Asked as JSON, `result` what replaying.py made of it. `trace` is an uploaded file as it came,
    empty for our own jobs and once the replay has ended. `lease` names the one try that may write, until
    `leased_until`: a replay is the same each time, so one whose worker died simply runs again. `progress` is in
    thousandths.
    """

    class State(models.TextChoices):
        QUEUED = "queued", _("Waiting")
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    asked = models.JSONField()
    file_name = models.CharField(max_length=255, blank=True)
    trace = models.BinaryField(default=bytes)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    progress = models.PositiveSmallIntegerField(default=0)
    lease = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    result = models.JSONField(null=True)
    problem = models.TextField(blank=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "done", "failed", "cancelled"]), name="replay_state"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["-created_at"], name="replay_newest"),
            models.Index(fields=["created_at"], condition=Q(state__in=["queued", "running"]), name="replay_open"),
        ]

    @property
    def is_open(self) -> bool:
        return self.state in {self.State.QUEUED, self.State.RUNNING}


class Import(models.Model):
    """Once that a site's past was read into an organization's history; its jobs point to it.

    `made` says what else was made for it, to go with it where nothing else needs it: ids of people, teams and nodes.
    """

    organization = models.ForeignKey(Organization, models.PROTECT, related_name="imports")
    source = models.CharField(max_length=255)
    at = models.DateTimeField(default=timezone.now)
    made = models.JSONField(default=dict)


class Settled(models.Model):
    """What the default policy was settled to last (one row): the candidate, and the mix and the cluster it was for.

    `mix` is the week's most frequent shapes with their weights, `cluster` the kinds of nodes and how many there are.
    """

    candidate = models.CharField(max_length=20)
    mix = models.JSONField()
    cluster = models.JSONField()
    at = models.DateTimeField()
