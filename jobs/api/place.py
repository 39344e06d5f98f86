"""The endpoints of where jobs run: nodes and devices, as far as the reader may know."""

from __future__ import annotations

from collections.abc import Sequence
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
from jobs import occupancy
from jobs.api import shapes
from jobs.occupancy import Holding, NodeFacts


@method_decorator(conditional_page, name="dispatch")
class NodesView(Door):
    scopes: ClassVar = {"GET": Token.Scope.CLUSTER_READ}

    @extend_schema(
        operation_id="list_nodes", tags=["cluster"], summary="Nodes, their devices and how full they are",
        description="Holdings of other teams are shown without their names, except to an operator.",
        responses=shapes.NodesShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        return Response(shapes.page(_nodes(self.reach)))


# Of a device, in this order: rows as objects would take most of the time of the answer.
_DEVICE = ("pk", "node_id", "index", "model__name", "model__memory_mb", "emulated", "problem", "capacity")
_STATES = {occupancy.FREE: "free", occupancy.PARTLY: "partly", occupancy.FULL: "full"}


def _nodes(scope: Scope) -> list[dict[str, Any]]:
    occupied, held = occupancy.now(), occupancy.holdings()
    states = dict(zip(occupied.layout.ids.tolist(), occupied.states.tolist(), strict=True))
    devices: dict[int, list[dict[str, Any]]] = {}
    for pk, node_id, *facts in Device.objects.filter(present=True).order_by("index").values_list(*_DEVICE):
        state = _STATES[states.get(pk, occupancy.FREE)]
        devices.setdefault(node_id, []).append(_device(facts, state, held.get(pk, ()), scope))
    used = zip(occupied.node_cpus.tolist(), occupied.node_memory_mb.tolist(), strict=True)
    return [
        _node(node, cpus, memory_mb, devices.get(node.id, []))
        for node, (cpus, memory_mb) in zip(occupied.nodes, used, strict=True)
    ]


def _node(node: NodeFacts, cpus: int, memory_mb: int, devices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": node.name,
        "present": node.present,
        "emulated": node.emulated,
        "cpus": node.cpus / 1000,
        "cpus_used": cpus / 1000,
        "memory_mb": node.memory_mb,
        "memory_mb_used": memory_mb,
        "pool": node.pool,
        "labels": node.labels,
        "rack": node.rack,
        "pod": node.pod,
        "drained": node.drained_at is not None,
        "devices": devices,
    }


def _device(facts: list[Any], state: str, held: Sequence[Holding], scope: Scope) -> dict[str, Any]:
    index, model, memory_mb, emulated, problem, capacity = facts
    used = sum(shapes.share_of(each) for each in held)
    return {
        "index": index,
        "model": model,
        "memory_mb": memory_mb,
        "emulated": emulated,
        "problem": problem,
        "state": "unusable" if problem else state,
        "used": used,
        "free": capacity - used,
        "holders": [_holder(each, scope) for each in held],
    }


def _holder(held: Holding, scope: Scope) -> dict[str, Any]:
    known = held.team_id in scope.team_ids or scope.user.is_operator
    return {
        "share": shapes.share_of(held),
        "profile": held.profile,
        "start": held.start,
        "job": {"id": held.job_id, "name": held.job_name} if known else None,
    }
