"""What was measured, by the minute; the seconds of the last hour are in Redis."""

from typing import ClassVar

from django.db import models


class Minute(models.Model):
    """Averages over one minute of one attempt. CPU in cores, memory in MiB, utilization in percent (null: n/a)."""

    attempt_id = models.UUIDField()
    at = models.DateTimeField()
    samples = models.PositiveSmallIntegerField()
    cpu = models.FloatField(null=True)
    memory_mb = models.FloatField(null=True)
    utilization = models.FloatField(null=True)
    device_memory_mb = models.FloatField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["attempt_id", "at"], name="telemetry_minute_once"),
        ]
