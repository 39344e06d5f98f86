"""The endpoints of where jobs run: nodes and devices, as far as the reader may know."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.decorators import method_decorator
from django.views.decorators.http import conditional_page
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from haein.cluster.models import Device
from haein.tenants.api import Door
from haein.tenants.models import Token
from haein.tenants.scope import Scope
from jobs import scheduling
from jobs.api import shapes
from jobs.models import Allocation


@method_decorator(conditional_page, name="dispatch")
class NodesView(Door):
    scopes: ClassVar = {"GET": Token.Scope.CLUSTER_READ}

    @extend_schema(
        operation_id="list_nodes", tags=["cluster"], summary="Nodes, their devices and how full they are",
        description="Holdings of other teams are shown without their names.", responses=shapes.NodesShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        return Response(shapes.page([_node(each, self.reach) for each in scheduling.occupied()]))


def _node(each: scheduling.Occupied, scope: Scope) -> dict[str, Any]:
    return {
        "name": each.node.name,
        "present": each.node.present,
        "emulated": each.node.emulated,
        "cpus": each.node.cpus / 1000,
        "cpus_used": each.cpus / 1000,
        "memory_mb": each.node.memory_mb,
        "memory_mb_used": each.memory_mb,
        "pool": each.node.pool,
        "labels": each.node.labels,
        "rack": each.node.rack,
        "pod": each.node.pod,
        "drained": each.node.drained_at is not None,
        "devices": [_device(device, held, scope) for device, held in each.devices],
    }


def _device(device: Device, held: list[Allocation], scope: Scope) -> dict[str, Any]:
    used = sum(shapes.share_of(allocation) for allocation in held)
    return {
        "index": device.index,
        "model": device.model.name,
        "memory_mb": device.model.memory_mb,
        "emulated": device.emulated,
        "problem": device.problem,
        "used": used,
        "free": device.capacity - used,
        "holders": [_holder(allocation, scope) for allocation in held],
    }


def _holder(allocation: Allocation, scope: Scope) -> dict[str, Any]:
    job = allocation.attempt.job
    mine = job.team_id in scope.team_ids
    return {
        "share": shapes.share_of(allocation),
        "profile": allocation.profile,
        "start": allocation.start,
        "job": {"id": job.pk, "name": job.name} if mine else None,
    }
