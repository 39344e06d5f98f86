"""The endpoints of repacks, for operators: what is proposed, and the word that moves it."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from haein.lib import api, clock
from haein.tenants.api import Door
from haein.tenants.models import Token
from jobs import repacks
from jobs.api import shapes
from jobs.models import Job, Repack
from jobs.repacks import Plan, Step

# As many as the page shows, and the one that is open.
MOST = 20


class _Move(serializers.Serializer[Any]):
    job = api.Named()
    old = serializers.CharField(help_text="where it runs")
    new = serializers.CharField(help_text="where it goes")
    lost_gpu_seconds = serializers.IntegerField()
    step = serializers.ChoiceField([step.value for step in Step], allow_null=True, help_text="while it is moving")


class RepackShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    state = serializers.ChoiceField(Repack.State.values)
    job = api.Named(help_text="the one that waits")
    where = serializers.CharField(help_text="where it then starts")
    step = serializers.ChoiceField([step.value for step in Step], allow_null=True, help_text="while it is moving")
    moves = _Move(many=True)
    lost_gpu_seconds = serializers.IntegerField()
    gained_gpu_seconds = serializers.IntegerField()
    made_at = serializers.DateTimeField()
    decided_by = serializers.CharField(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    problem = serializers.CharField(allow_blank=True)


class RepacksShape(serializers.Serializer[Any]):
    results = RepackShape(many=True)


def shown(row: Repack, names: dict[UUID, str]) -> dict[str, Any]:
    plan = Plan.of(row)
    steps = repacks.steps(row) if row.state == Repack.State.MOVING else {}
    same = ("state", "made_at", "decided_at", "ended_at", "problem")
    return {
        "id": row.pk,
        **{name: getattr(row, name) for name in same},
        "job": {"id": row.job_id, "name": row.job.name},
        "where": plan.where,
        "step": steps.get(row.job_id),
        "moves": [
            {
                "job": {"id": move.job, "name": names[UUID(move.job)]},
                "old": move.old,
                "new": move.new,
                "lost_gpu_seconds": move.lost_s,
                "step": steps.get(UUID(move.job)),
            }
            for move in plan.moves
        ],
        "lost_gpu_seconds": row.lost_s,
        "gained_gpu_seconds": row.gained_s,
        "decided_by": row.decided_by.email if row.decided_by else None,
    }


def _all(rows: list[Repack]) -> list[dict[str, Any]]:
    moved = {UUID(move.job) for row in rows for move in Plan.of(row).moves}
    names = dict(Job.objects.filter(pk__in=moved).values_list("pk", "name"))
    return [shown(row, names) for row in rows]


class RepacksView(Door):
    scopes: ClassVar = {"GET": Token.Scope.CLUSTER_READ}

    @extend_schema(
        operation_id="list_repacks", tags=["cluster"], summary="Proposals to move jobs, newest first (operators)",
        description="The last 20; none for anybody who is no operator.", responses=RepacksShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        return Response(shapes.page(_all(list(repacks.newest(by=self.reach.user)[:MOST]))))


class RepackApproveView(Door):
    scopes: ClassVar = {"POST": Token.Scope.CLUSTER_WRITE}

    @extend_schema(
        operation_id="approve_repack", tags=["cluster"], summary="Move these jobs (operators)", request=None,
        responses=RepackShape, description="They are told to save their work, and start again at their new place.",
    )  # fmt: skip
    def post(self, request: Request, repack_id: UUID) -> Response:
        repacks.approve(repack_id, by=self.reach.user, now=clock.now())
        return Response(_all([repacks.get(repack_id, by=self.reach.user)])[0])


class RepackRejectView(Door):
    scopes: ClassVar = {"POST": Token.Scope.CLUSTER_WRITE}

    @extend_schema(
        operation_id="reject_repack", tags=["cluster"], summary="Leave these jobs where they are (operators)",
        request=None, responses=RepackShape, description="For its job nothing is proposed again within the hour.",
    )  # fmt: skip
    def post(self, request: Request, repack_id: UUID) -> Response:
        repacks.reject(repack_id, by=self.reach.user, now=clock.now())
        return Response(_all([repacks.get(repack_id, by=self.reach.user)])[0])
