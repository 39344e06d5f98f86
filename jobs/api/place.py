"""The endpoints of where jobs run: nodes and devices, as far as the reader may know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.utils.decorators import method_decorator
from django.views.decorators.http import conditional_page
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from haein.cluster.models import Device, Outside
from haein.placement import mig
from haein.placement.model import WHOLE
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
        description="Holdings of other teams, and work that was not submitted here, are shown without names, except "
        "to an operator.",
        responses=shapes.NodesShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        return Response(shapes.page(_nodes(self.reach)))


# Of a device, in this order: rows as objects would take most of the time of the answer.
_DEVICE = (
    "pk",
    "node_id",
    "index",
    "model__name",
    "model__memory_mb",
    "emulated",
    "problem",
    "capacity",
    "uuid",
    "layout",
)
_STATES = {occupancy.FREE: "free", occupancy.PARTLY: "partly", occupancy.FULL: "full"}


def _nodes(scope: Scope) -> list[dict[str, Any]]:
    occupied, held = occupancy.now(), occupancy.holdings()
    states = dict(zip(occupied.layout.ids.tolist(), occupied.states.tolist(), strict=True))
    others, problems = _outside(), {node.id: node.problem for node in occupied.nodes}
    devices: dict[int, list[dict[str, Any]]] = {}
    for pk, node_id, *facts in Device.objects.filter(present=True).order_by("index").values_list(*_DEVICE):
        state = _STATES[states.get(pk, occupancy.FREE)]
        problem = problems.get(node_id, "")
        made = _device(facts, problem, state, held.get(pk, ()), others, scope)
        devices.setdefault(node_id, []).append(made)
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
        "problem": node.problem,
        "devices": devices,
    }


# By the device's uuid: whose it is, and [units, memory, profile, start] of what it holds.
_Others = Mapping[str, Sequence[tuple[str, str, list[Any]]]]


def _outside() -> _Others:
    found: defaultdict[str, list[tuple[str, str, list[Any]]]] = defaultdict(list)
    for name, owner, slices in Outside.objects.order_by("pk").values_list("name", "owner", "slices"):
        for uuid, *part in slices:
            found[uuid].append((name, owner, part))
    return found


def _device(
    facts: list[Any], out: str, state: str, held: Sequence[Holding], others: _Others, scope: Scope
) -> dict[str, Any]:
    """`out` is why its node takes no work, "" where it does."""
    index, model, memory_mb, emulated, problem, capacity, uuid, layout = facts
    problem = problem or out
    used = sum(shapes.share_of(each) for each in held)
    outside = [_other(*each, scope) for each in others.get(uuid, ())]
    return {
        "index": index,
        "model": model,
        "memory_mb": memory_mb,
        "emulated": emulated,
        "problem": problem,
        "state": "unusable" if problem else state,
        "used": used,
        "free": max(0, capacity - used - sum(each["share"] for each in outside)),
        "holders": [_holder(each, scope) for each in held],
        "outside": outside,
        "layout": [{"profile": profile, "start": start} for profile, start in layout],
    }


def _other(name: str, owner: str, part: list[Any], scope: Scope) -> dict[str, Any]:
    units, memory, profile, start = part
    known = scope.user.is_operator
    return {
        "share": memory * WHOLE // mig.UNITS if profile else units,
        "profile": profile,
        "start": start if profile else None,
        "work": name if known else None,
        "owner": owner if known else None,
    }


def _holder(held: Holding, scope: Scope) -> dict[str, Any]:
    known = held.team_id in scope.team_ids or scope.user.is_operator
    return {
        "share": shapes.share_of(held),
        "profile": held.profile,
        "start": held.start,
        "job": {"id": held.job_id, "name": held.job_name} if known else None,
    }
