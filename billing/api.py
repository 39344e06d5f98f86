"""The endpoints of what it costs: prices, a quote before the button, a job's cost, a month's usage."""

from __future__ import annotations

from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.http import conditional_page
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import prices, rating, statements
from billing.models import Price, Usage
from haein.lib import api, clock, money
from haein.lib.errors import Invalid
from haein.tenants.api import Door
from haein.tenants.models import Token
from jobs import services
from jobs.api import shapes
from jobs.api.work import READ, found

BILLING = Token.Scope.BILLING_READ
_SHARE = "thousandths of the device's price"
_MONTH = r"^20[0-9]{2}-(0[1-9]|1[0-2])$"


def amount(micro: int) -> str:
    """Money as programs read it: a decimal number with all six digits."""
    return money.plain(micro, settings.HAEIN_CURRENCY, extra=6 - money.digits(settings.HAEIN_CURRENCY))


class Money(serializers.CharField):
    """A decimal number as text, so that nobody's floating point rounds it."""


class _Between(serializers.Serializer[Any]):
    least = Money()
    most = Money()


class Quote(serializers.Serializer[Any]):
    """What a job would cost, and when it would start as things are now."""

    currency = serializers.CharField()
    per_hour = _Between()
    at_most = Money(help_text="should it, and of an array each job, run to its time limit")
    jobs = serializers.IntegerField(help_text="how many jobs that is: one, unless it is an array")
    models = serializers.ListField(child=serializers.CharField())
    starts = serializers.CharField(allow_blank=True)


class QuoteView(Door):
    scopes: ClassVar = {"POST": READ}

    @extend_schema(
        operation_id="quote_job", tags=["billing"], summary="What a job would cost", request=shapes.JobSpec,
        responses=Quote, description="Nothing is submitted. What could never run here is refused as a submit would be.",
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        spec = shapes.spec_of(api.sent(request, shapes.JobSpec))
        services.check(scope=self.reach, spec=spec)
        hour = statements.quote(spec, now=clock.now())
        starts, _fault = services.outlook(spec)
        return Response(
            {
                "currency": settings.HAEIN_CURRENCY,
                "per_hour": {"least": amount(hour.least), "most": amount(hour.most)},
                "at_most": amount(
                    money.round_half_even(Fraction(hour.most * spec.time_limit_s * spec.jobs, rating.HOUR))
                ),
                "jobs": spec.jobs,
                "models": list(hour.models),
                "starts": starts,
            }
        )


class _CostLine(serializers.Serializer[Any]):
    device = serializers.CharField()
    device_model = serializers.CharField()
    profile = serializers.CharField(allow_blank=True, help_text="of a MIG instance")
    share = serializers.IntegerField(help_text=_SHARE)
    seconds = serializers.IntegerField()
    price_per_hour = Money()
    amount = Money()


class Cost(serializers.Serializer[Any]):
    """What a job has cost so far."""

    currency = serializers.CharField()
    total = Money()
    per_hour = Money(help_text="what a further hour of it costs now")
    running = serializers.BooleanField(help_text="whether it still grows")
    lines = _CostLine(many=True)


class CostView(Door):
    scopes: ClassVar = {"GET": BILLING}

    @extend_schema(operation_id="get_cost", tags=["billing"], summary="What a job has cost", responses=Cost)
    def get(self, request: Request, job_id: UUID) -> Response:
        job = found(job_id, self.reach)
        cost = statements.of_job(job, now=clock.now())
        return Response(
            {
                "currency": settings.HAEIN_CURRENCY,
                "total": amount(cost.total),
                "per_hour": amount(cost.per_hour),
                "running": job.is_active,
                "lines": [
                    {
                        "device": line.device,
                        "device_model": line.model,
                        "profile": line.profile,
                        "share": line.units,
                        "seconds": line.seconds,
                        "price_per_hour": amount(line.per_hour),
                        "amount": amount(rating.total([line.amount])),
                    }
                    for line in cost.lines
                ],
            }
        )


class MonthQuery(api.Strict):
    month = serializers.RegexField(_MONTH, required=False, help_text="2026-11; by default the present one (UTC)")


class UsageQuery(api.PageQuery, MonthQuery):
    pass


def _month(text: str | None) -> date:
    if text is None:
        return clock.now().date().replace(day=1)
    month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    if month.year < prices.BEGINNING.year:
        raise Invalid({"month": _("Nothing was charged then.")})
    return month


class UsageLine(serializers.Serializer[Any]):
    """Seconds of a share of one device at one price."""

    id = serializers.IntegerField()
    starts = serializers.DateTimeField()
    ends = serializers.DateTimeField(help_text="not included")
    seconds = serializers.IntegerField()
    device = serializers.CharField()
    device_model = serializers.CharField()
    share = serializers.IntegerField(help_text=_SHARE)
    profile = serializers.CharField(allow_blank=True, help_text="of a MIG instance")
    price_per_hour = Money()
    amount = Money()
    currency = serializers.CharField()
    job = api.Named()
    team = serializers.CharField()
    person = serializers.CharField()


def _line(row: Usage) -> dict[str, Any]:
    return {
        "id": row.pk,
        "starts": row.starts,
        "ends": row.ends,
        "seconds": row.seconds,
        "device": str(row.device),
        "device_model": row.device.model.name,
        "share": row.units,
        "profile": row.job.profile,
        "price_per_hour": amount(row.price.per_hour),
        "amount": amount(rating.total([rating.amount(row.seconds * row.units, row.price.per_hour)])),
        "currency": row.price.currency,
        "job": {"id": row.job_id, "name": row.job.name},
        "team": row.team.name,
        "person": row.user.email,
    }


class UsageView(Door):
    scopes: ClassVar = {"GET": BILLING}

    @extend_schema(
        operation_id="list_usage", tags=["billing"], summary="A month's metered lines, newest first",
        parameters=[UsageQuery], responses=shapes.paged(UsageLine),
        description="What still runs is in a job's cost and in the summary; it comes here when it has ended.",
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        month = _month(api.asked(request, UsageQuery).get("month"))
        rows = statements.usage(self.reach, *statements.month_of(month))
        rows = rows.select_related("job", "user", "team", "device__model", "device__node", "price")
        return api.Pages().answer(request, self, rows, _line)


class _Spender(serializers.Serializer[Any]):
    name = serializers.CharField()
    gpu_hours = serializers.CharField()
    amount = Money()


class _Day(serializers.Serializer[Any]):
    day = serializers.DateField()
    amount = Money()


class Summary(serializers.Serializer[Any]):
    """What a month has cost your teams, what still runs included."""

    month = serializers.CharField()
    currency = serializers.CharField()
    total = Money()
    running = Money(help_text="of the total, by jobs that still run")
    people = _Spender(many=True)
    days = _Day(many=True)


class SummaryView(Door):
    scopes: ClassVar = {"GET": BILLING}

    @extend_schema(
        operation_id="summarize_usage", tags=["billing"], summary="A month's sums", parameters=[MonthQuery],
        responses=Summary,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        month = _month(api.asked(request, MonthQuery).get("month"))
        sums = statements.month(self.reach, month, now=clock.now())
        return Response(
            {
                "month": f"{month:%Y-%m}",
                "currency": settings.HAEIN_CURRENCY,
                "total": amount(sums.total),
                "running": amount(sums.running),
                "people": [
                    {"name": name, "gpu_hours": f"{used / (rating.HOUR * rating.WHOLE):.4f}", "amount": amount(micro)}
                    for name, used, micro in sums.by_person
                ],
                "days": [{"day": day.isoformat(), "amount": amount(micro)} for day, micro in sums.by_day],
            }
        )


class PriceShape(serializers.Serializer[Any]):
    device_model = serializers.CharField()
    currency = serializers.CharField()
    per_hour = Money(help_text="of a whole device")
    valid_from = serializers.DateTimeField(allow_null=True, help_text="null: from the beginning")
    valid_to = serializers.DateTimeField(allow_null=True, help_text="null: until further notice")


class PricesShape(serializers.Serializer[Any]):
    results = PriceShape(many=True)


@method_decorator(conditional_page, name="dispatch")
class PricesView(Door):
    scopes: ClassVar = {"GET": BILLING}

    @extend_schema(
        operation_id="list_prices", tags=["billing"], summary="Prices that hold and that are to come",
        responses=PricesShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        prices.fill_gaps()  # a device model that has just reported has no price yet
        rows = Price.objects.filter(Q(valid_to=None) | Q(valid_to__gt=clock.now())).select_related("device_model")
        return Response(
            shapes.page(
                [
                    {
                        "device_model": row.device_model.name,
                        "currency": row.currency,
                        "per_hour": amount(row.per_hour),
                        "valid_from": row.valid_from if row.valid_from > prices.BEGINNING else None,
                        "valid_to": row.valid_to,
                    }
                    for row in rows
                ]
            )
        )
