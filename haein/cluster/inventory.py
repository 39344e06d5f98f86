"""Keeps the rows of nodes and devices in step with what the backend reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from haein.cluster.backends.base import DeviceFact, NodeFact
from haein.cluster.models import Device, DeviceModel, Node

# How many reports this process has written down; whoever keeps something that follows from one looks here.
reports = 0


@transaction.atomic
def refresh(facts: Sequence[NodeFact], *, now: datetime) -> None:
    """Write the report down; what it no longer names is kept as absent, so that nothing new is placed there."""
    global reports
    reports += 1
    for fact in facts:
        node, _ = Node.objects.update_or_create(
            name=fact.name,
            defaults={
                "cpus": fact.cpus,
                "memory_mb": fact.memory_mb,
                "emulated": fact.emulated,
                "present": True,
                "seen_at": now,
            },
        )
        _devices(node, fact.devices)
    Node.objects.exclude(name__in=[fact.name for fact in facts]).filter(present=True).update(present=False)


def _devices(node: Node, facts: Sequence[DeviceFact]) -> None:
    for fact in facts:
        model, _ = DeviceModel.objects.get_or_create(name=fact.model, defaults={"memory_mb": fact.memory_mb})
        Device.objects.update_or_create(
            uuid=fact.uuid,
            defaults={
                "node": node,
                "index": fact.index,
                "model": model,
                "emulated": fact.emulated,
                "present": True,
                "problem": fact.problem,
            },
        )
    known = [fact.uuid for fact in facts]
    node.devices.exclude(uuid__in=known).filter(present=True).update(present=False)
