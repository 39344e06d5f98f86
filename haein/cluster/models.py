"""Where it runs: nodes and their devices, as the backend last reported them."""

from __future__ import annotations

from typing import ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

WHOLE = 1000  # a device in thousandths


class DeviceModel(models.Model):
    """A kind of GPU: what prices and requests name."""

    name = models.CharField(max_length=80, unique=True)
    memory_mb = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.name


class NodeQuerySet(models.QuerySet["Node"]):
    def of_the_cluster(self) -> Self:
        """Those that the backend has told of. One that is known from an imported past alone has nothing to give."""
        return self.exclude(present=False, cpus=0)


class Node(models.Model):
    """A machine. CPUs in thousandths of a core, memory in MiB: what jobs may use of it.

    Pool, labels, rack and pod as the backend reports them ("" where it knows none), and `problem`, a sentence, when it
    says that the node takes no work. A node that is drained takes no new work; what runs on it ends in its own time.
    """

    name = models.CharField(max_length=253, unique=True)
    cpus = models.PositiveIntegerField()
    memory_mb = models.PositiveIntegerField()
    emulated = models.BooleanField()
    present = models.BooleanField(default=True)
    seen_at = models.DateTimeField()
    pool = models.CharField(max_length=60, blank=True)
    labels = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    rack = models.CharField(max_length=60, blank=True)
    pod = models.CharField(max_length=60, blank=True)
    problem = models.CharField(max_length=300, blank=True)
    drained_at = models.DateTimeField(null=True)
    drain_reason = models.CharField(max_length=200, blank=True)

    objects = NodeQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def usable(self) -> bool:
        return self.present and self.drained_at is None and not self.problem


class Device(models.Model):
    """One GPU. `problem` is a sentence when it can't be used; a device that is gone stays, for the bills' sake.

    One that somebody else has carved for good has a `layout`, a list of [profile, start]: it gives these MIG instances
    and nothing else.
    """

    node = models.ForeignKey(Node, models.PROTECT, related_name="devices")
    uuid = models.CharField(max_length=80, unique=True)
    index = models.PositiveIntegerField()
    model = models.ForeignKey(DeviceModel, models.PROTECT, related_name="devices")
    capacity = models.PositiveIntegerField(default=WHOLE)
    emulated = models.BooleanField()
    present = models.BooleanField(default=True)
    problem = models.CharField(max_length=300, blank=True)
    layout = models.JSONField(default=list, blank=True)

    class Meta:
        ordering: ClassVar = ["node__name", "index"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(capacity__gt=0), name="device_capacity"),
        ]

    def __str__(self) -> str:
        return f"{self.node}/gpu{self.index}"

    @property
    def usable(self) -> bool:
        return self.present and not self.problem


class Outside(models.Model):
    """Work on one node that was not submitted through Haein, as the backend last reported it.

    CPUs in thousandths of a core, memory in MiB; `slices` is a list of [device uuid, units, memory, profile, start] as
    in a SliceGrant. `name` and `owner` are the engine's own words.
    """

    name = models.CharField(max_length=120)
    owner = models.CharField(max_length=120, blank=True)
    node = models.ForeignKey(Node, models.PROTECT, related_name="outside")
    cpus = models.PositiveIntegerField()
    memory_mb = models.PositiveIntegerField()
    slices = models.JSONField(default=list)
    since = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["name", "node"], name="outside_once")]

    def __str__(self) -> str:
        return f"{self.name} on {self.node}"


class EngineAccount(models.Model):
    """The account of an organization or a team (`owner`) in an engine that keeps accounts of its own.

    The name stays when the owner is renamed. It is `ready` once all of it is there, so that launches may name it.
    """

    owner = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=80, unique=True)
    ready = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.name


class AccountChange(models.Model):
    """One time that the engine's accounts were brought in step: [sentence, command, inverse, account made] by step.

    The steps are written down before the first is taken; `done` of them were, the next one perhaps.
    """

    begun_at = models.DateTimeField()
    steps = models.JSONField()
    done = models.PositiveIntegerField(default=0)
    problem = models.TextField(blank=True)
    undone_at = models.DateTimeField(null=True)
