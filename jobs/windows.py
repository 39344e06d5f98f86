"""Windows as the pass needs them."""

from __future__ import annotations

from datetime import datetime

from haein.placement.queueing import Aside
from jobs.models import Window


def asides(now: datetime) -> tuple[Aside, ...]:
    """All open windows, in three queries."""
    open_ones = Window.objects.filter(cancelled_at=None, ends_at__gt=now).order_by("starts_at", "id")
    return tuple(
        Aside(
            id=window.pk,
            at=window.starts_at.timestamp(),
            until=window.ends_at.timestamp(),
            team=window.team_id,
            nodes=frozenset(node.pk for node in window.nodes.all()),
            devices=frozenset(device.pk for device in window.devices.all()),
        )
        for window in open_ones.prefetch_related("nodes", "devices")
    )
