"""The endpoints of windows: what is reserved or goes out; an operator makes and cancels them."""

from __future__ import annotations

from typing import Any, ClassVar, cast
from uuid import UUID

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from haein.lib import api, clock
from haein.lib.errors import Invalid
from haein.tenants.api import IDEMPOTENCY, Door, once
from haein.tenants.models import Token
from haein.tenants.scope import Scope
from jobs import windows
from jobs.api import shapes
from jobs.models import Window
from jobs.windows import State

_WRITE = Token.Scope.CLUSTER_WRITE
_EXAMPLE_TIMES = {"starts_at": "2026-12-01T18:00:00Z", "ends_at": "2026-12-01T20:00:00Z"}


@extend_schema_serializer(
    examples=[
        OpenApiExample("maintenance", {**_EXAMPLE_TIMES, "nodes": ["n017", "n018"], "reason": "new firmware"}),
        OpenApiExample(
            "a reservation",
            {
                **_EXAMPLE_TIMES,
                "team": "01990000-0000-7000-8000-000000000000",
                "gpus": 8,
                "model": "B200",
                "reason": "the course",
            },
        ),
    ]
)
class WindowSpec(api.Strict):
    """With a `team`, `gpus` of a `model` are reserved for it; with `nodes` or a `rack`, these go out."""

    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    reason = api.Text(min_length=1, max_length=windows.MOST_REASON, help_text="whoever is kept out will read it")
    team = api.Identifier(required=False, allow_null=True, default=None)
    gpus = api.Whole(required=False, default=0, min_value=0, max_value=100_000, help_text="whole devices")
    model = api.Text(required=False, default="", max_length=80, help_text="a device model as /nodes names it")
    nodes = serializers.ListField(
        child=api.Text(max_length=253), required=False, default=list, max_length=10_000, help_text="by their names"
    )
    rack = api.Text(required=False, default="", max_length=60, help_text="all nodes of it")


class WindowShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(["reservation", "maintenance"])
    state = serializers.ChoiceField([state.value for state in State])
    reason = serializers.CharField()
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    team = api.Named(allow_null=True, help_text="whose reservation it is")
    gpus = serializers.IntegerField(help_text="of a reservation")
    model = serializers.CharField(allow_blank=True)
    nodes = serializers.ListField(child=serializers.CharField(), help_text="that go out, or have the GPUs")
    made_by = serializers.CharField(allow_null=True, help_text="told to operators alone")


class WindowsShape(serializers.Serializer[Any]):
    results = WindowShape(many=True)


def shown(window: Window, scope: Scope) -> dict[str, Any]:
    return {
        "id": window.pk,
        "kind": "reservation" if window.team else "maintenance",
        "state": windows.state(window, now=clock.now()).value,
        "reason": window.reason,
        "starts_at": window.starts_at,
        "ends_at": window.ends_at,
        "team": {"id": window.team.pk, "name": window.team.name} if window.team else None,
        "gpus": window.gpus,
        "model": window.model,
        "nodes": windows.nodes_of(window),
        "made_by": window.made_by.email if scope.user.is_operator else None,
    }


class WindowsView(Door):
    scopes: ClassVar = {"GET": Token.Scope.CLUSTER_READ, "POST": _WRITE}

    @extend_schema(
        operation_id="list_windows", tags=["cluster"], summary="Reservations and maintenance, now and to come",
        description="Maintenance is shown to everybody, a reservation to its own team and to operators.",
        responses=WindowsShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        rows = windows.seen_by(self.reach, now=clock.now())
        return Response(shapes.page([shown(row, self.reach) for row in rows]))

    @extend_schema(
        operation_id="make_window", tags=["cluster"], summary="Reserve GPUs, or take nodes out (operators)",
        request=WindowSpec, parameters=[IDEMPOTENCY], responses={201: WindowShape},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        data = api.sent(request, WindowSpec)
        return once(request, data, lambda: Response(shown(self._made(data), self.reach), status=201))

    def _made(self, data: dict[str, Any]) -> Window:
        both = {name: data[name] for name in ("starts_at", "ends_at", "reason")}
        by, now = self.reach.user, clock.now()
        if data["team"] is None:
            _none_of(data, ("gpus", "model"), _("Name the team too, for which they are reserved."))
            return windows.maintain(by=by, nodes=data["nodes"], rack=data["rack"], now=now, **both)
        _none_of(data, ("nodes", "rack"), _("The devices of a reservation are chosen for you: leave this out."))
        return windows.reserve(
            by=by, team=cast(UUID, data["team"]), gpus=data["gpus"], model=data["model"], now=now, **both
        )


def _none_of(data: dict[str, Any], names: tuple[str, ...], fault: str) -> None:
    if faults := {name: fault for name in names if data[name]}:
        raise Invalid(faults)


class WindowCancelView(Door):
    scopes: ClassVar = {"POST": _WRITE}

    @extend_schema(
        operation_id="cancel_window", tags=["cluster"], summary="Cancel a window (operators)", request=None,
        responses={204: None}, description="Whoever was told to leave for it may stay.",
    )  # fmt: skip
    def post(self, request: Request, window_id: UUID) -> Response:
        windows.cancel(window_id, by=self.reach.user, now=clock.now())
        return Response(status=204)
