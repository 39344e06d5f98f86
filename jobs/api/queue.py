"""The endpoint of the queue: who waits, when they start, what is held, and how often promises held."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from haein.lib import api, clock
from haein.tenants.api import Door
from haein.tenants.models import Token
from jobs import waiting, wording
from jobs.api import shapes
from jobs.models import Job
from jobs.promises import Place, Score
from jobs.waiting import Held


class QueueQuery(api.Strict):
    limit = serializers.IntegerField(
        min_value=1, max_value=500, required=False, help_text="the first so many of those who wait; 100 if not said"
    )


class _Waiting(serializers.Serializer[Any]):
    job = api.Named()
    team = api.Named()
    gpus = serializers.IntegerField()
    share = serializers.IntegerField(help_text="thousandths of each GPU")
    profile = serializers.CharField(allow_blank=True)
    workers = serializers.IntegerField()
    priority = serializers.IntegerField()
    queued_at = serializers.DateTimeField()
    reason = serializers.CharField(allow_blank=True)
    reason_code = serializers.CharField(allow_blank=True)
    ahead = serializers.IntegerField(allow_null=True, help_text="null: not known yet")
    expected_start = shapes.ExpectedStart(allow_null=True, help_text="null: not known")


class _Gpus(serializers.Serializer[Any]):
    """GPUs, parts of one counted as such."""

    all = serializers.FloatField(help_text="in service")
    held = serializers.FloatField()
    free = serializers.FloatField()
    outside = serializers.FloatField(help_text="held by work not submitted through Haein")
    lent = serializers.FloatField(help_text="of those held: beyond the guarantee of who holds them")


class _Promises(serializers.Serializer[Any]):
    """Of what was promised in the last seven days how much was true."""

    count = serializers.IntegerField()
    p50_held_percent = serializers.IntegerField(allow_null=True)
    p90_held_percent = serializers.IntegerField(allow_null=True)


class QueueShape(serializers.Serializer[Any]):
    """Your teams' waiting jobs, the next to start first; an operator's are all."""

    waiting = serializers.IntegerField(help_text="of those you may see; `results` has the first of them")
    others = serializers.IntegerField(help_text="how many more wait")
    as_of = serializers.DateTimeField(allow_null=True, help_text="when starts were worked out; null: not lately")
    gpus = _Gpus()
    promises = _Promises()
    results = _Waiting(many=True)


class QueueView(Door):
    scopes: ClassVar = {"GET": Token.Scope.JOBS_READ}

    @extend_schema(
        operation_id="read_queue", tags=["jobs"], summary="Who waits, and when they start", parameters=[QueueQuery],
        responses=QueueShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        most = api.asked(request, QueueQuery).get("limit", 100)
        found = waiting.of(self.reach, now=clock.now())
        return Response(
            {
                "waiting": len(found.order),
                "others": found.others,
                "as_of": found.known.as_of,
                "gpus": _gpus(found.held),
                "promises": _promises(found.known.score),
                "results": [_waiting(job, place) for job, place in found.rows(found.order[:most])],
            }
        )


def _gpus(held: Held) -> dict[str, float]:
    return {
        "all": held.all / 1000,
        "held": held.held / 1000,
        "free": held.free / 1000,
        "outside": held.outside / 1000,
        "lent": held.borrowed / 1000,
    }


def _promises(score: Score) -> dict[str, int | None]:
    return {"count": score.all, "p50_held_percent": score.p50_percent, "p90_held_percent": score.p90_percent}


def _waiting(job: Job, place: Place | None) -> dict[str, Any]:
    same = ("gpus", "share", "profile", "workers", "priority", "queued_at")
    return {
        "job": {"id": job.pk, "name": job.name},
        "team": {"id": job.team_id, "name": job.team.name},
        **{name: getattr(job, name) for name in same},
        "reason": wording.sentence(job.reason, job.reason_values),
        "reason_code": job.reason,
        "ahead": place.ahead if place else None,
        "expected_start": shapes.expected_start(place.when if place else None),
    }
