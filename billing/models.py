"""Prices, and what was used of which device at which price."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import F, Func, Q, Value

from haein.cluster.models import Device, DeviceModel
from haein.tenants.models import Owned, Team, User
from jobs.models import Allocation, Job


class Price(models.Model):
    """An hour of one whole device of a model, in micro-units of the currency, from and until (open: null)."""

    device_model = models.ForeignKey(DeviceModel, models.PROTECT, related_name="prices")
    currency = models.CharField(max_length=3)
    per_hour = models.PositiveBigIntegerField()
    valid_from = models.DateTimeField()
    valid_to = models.DateTimeField(null=True)
    set_by = models.ForeignKey(User, models.PROTECT, null=True)

    class Meta:
        ordering: ClassVar = ["device_model__name", "-valid_from"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(valid_to=None) | Q(valid_to__gt=F("valid_from")), name="price_interval"),
            # The model's id as a range of one: equality under GiST without an extension the embedded server lacks.
            ExclusionConstraint(
                name="price_one_at_a_time",
                expressions=[
                    (
                        Func("device_model_id", "device_model_id", Value("[]"), function="int8range"),
                        RangeOperators.OVERLAPS,
                    ),
                    (
                        Func("valid_from", "valid_to", function="tstzrange", output_field=DateTimeRangeField()),
                        RangeOperators.OVERLAPS,
                    ),
                ],
            ),
        ]


class Usage(Owned):
    """Seconds of a slice of one device at one price: half-open [starts, ends), on whole seconds.

    `units` are the thousandths of the device's price that the slice costs (its allocation's weight).

    (allocation, starts) is a natural key: metering the same allocation again writes the same rows, that is, none. Who
    and what are kept beside the keys, so that a month is added up from this table alone.
    """

    allocation = models.ForeignKey(Allocation, models.PROTECT, related_name="usage")
    job = models.ForeignKey(Job, models.PROTECT, related_name="usage")
    team = models.ForeignKey(Team, models.PROTECT)
    user = models.ForeignKey(User, models.PROTECT)
    device = models.ForeignKey(Device, models.PROTECT)
    units = models.PositiveIntegerField()
    starts = models.DateTimeField()
    ends = models.DateTimeField()
    seconds = models.PositiveIntegerField()
    price = models.ForeignKey(Price, models.PROTECT, related_name="usage")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["allocation", "starts"], name="usage_once"),
            models.CheckConstraint(condition=Q(ends__gt=F("starts"), seconds__gt=0), name="usage_interval"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["team", "starts"], include=["seconds", "units", "price", "user"], name="usage_by_team_month"
            ),
            models.Index(fields=["job"], include=["seconds", "units", "price"], name="usage_by_job"),
        ]
