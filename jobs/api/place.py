"""The endpoints of where jobs run: nodes and devices, as far as the reader may know."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.decorators import method_decorator
from django.views.decorators.http import conditional_page
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from haein.cluster.models import Device, Node
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
        held: dict[int, list[Allocation]] = {}
        for allocation in scheduling.held():
            held.setdefault(allocation.device_id, []).append(allocation)
        devices: dict[int, list[dict[str, Any]]] = {}
        for device in Device.objects.select_related("model").filter(present=True).order_by("index"):
            devices.setdefault(device.node_id, []).append(_device(device, held.get(device.pk, []), self.reach))
        used = scheduling.used_by_node()
        nodes = Node.objects.order_by("name")
        return Response(
            shapes.page([_node(node, devices.get(node.pk, []), *used.get(node.pk, (0, 0))) for node in nodes])
        )


def _node(node: Node, devices: list[dict[str, Any]], cpus: int, memory_mb: int) -> dict[str, Any]:
    return {
        "name": node.name,
        "present": node.present,
        "emulated": node.emulated,
        "cpus": node.cpus / 1000,
        "cpus_used": cpus / 1000,
        "memory_mb": node.memory_mb,
        "memory_mb_used": memory_mb,
        "devices": devices,
    }


def _device(device: Device, held: list[Allocation], scope: Scope) -> dict[str, Any]:
    used = sum(allocation.units for allocation in held)
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
    return {"share": allocation.units, "job": {"id": job.pk, "name": job.name} if mine else None}
