"""The pages of what it costs: the bill, its table for spreadsheets, and the operator's prices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import formats
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from billing import prices, rating, statements
from billing.models import Price, Usage
from dashboard import charts, present, tables
from dashboard.forms import PriceForm
from dashboard.scoping import operator, reader
from haein.lib import clock, money, streams
from haein.lib.errors import Invalid
from haein.tenants.models import Organization

PAGE = 50
MONTHS_SHOWN = 12


@login_required
@require_GET
def billing(request: HttpRequest) -> HttpResponse:
    scope, now = reader(request), clock.now()
    month = _month(request)
    sums = statements.month(scope, month, now=now)
    start, end = statements.month_of(month)
    rows = statements.usage(scope, start, end).order_by("-starts", "-id")
    # Keys first, and the number of lines from the sums: a page far back in a long month costs as little as the first.
    paginator = Paginator(rows.values_list("pk", flat=True), PAGE)
    paginator.count = sums.metered
    page = paginator.get_page(request.GET.get("page"))
    shown = rows.filter(pk__in=list(page.object_list)).select_related("job", "user", "device__model", "price")
    page.object_list = [_line(row) for row in shown]  # type: ignore[misc]
    context = {
        "month": month,
        "months": _months(scope.organization, now),
        "total": present.amount(sums.total),
        "total_micro": sums.total,
        "currency": settings.HAEIN_CURRENCY,
        "page": page,
        "by_person": [
            {"name": name, "hours": f"{used / 3_600_000:.2f}", "amount": present.amount(micro)}
            for name, used, micro in sums.by_person
        ],
        "running": present.amount(sums.running) if sums.running else "",
        "csv_url": f"{reverse('billing_csv')}?month={month:%Y-%m}",
        "figures": {"days": charts.days(sums.by_day, start.date(), end.date(), settings.HAEIN_CURRENCY)},
    }
    return render(request, "dashboard/billing.html", context)


@login_required
@require_GET
def billing_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Every metered line of the month, amounts exact to the micro-unit and seconds as they are."""
    scope, month = reader(request), _month(request)
    rows = statements.usage(scope, *statements.month_of(month)).order_by("starts", "id")
    rows = rows.select_related("job", "user", "team", "device__model", "device__node", "price")
    return streams.response(
        request,
        _csv(rows.iterator(chunk_size=2000)),
        name=f"haein-usage-{month:%Y-%m}.csv",
        content_type=tables.CSV,
    )


_COLUMNS = (
    *("starts", "ends", "seconds", "device_model", "device", "share_thousandths", "price_per_hour", "amount"),
    *("currency", "job_id", "job", "team", "person", "mig_profile"),
)


_ROWS_A_PIECE = 500


def _csv(rows: Iterator[Usage]) -> Iterator[bytes]:
    header: list[object] = list(_COLUMNS)
    yield tables.csv_of([header])
    cells = (_cells(row) for row in rows)
    while piece := list(islice(cells, _ROWS_A_PIECE)):
        yield tables.csv_of(piece)


def _cells(row: Usage) -> list[object]:
    return [
        row.starts.isoformat(),
        row.ends.isoformat(),
        row.seconds,
        row.device.model.name,
        str(row.device),
        row.units,
        money.plain(row.price.per_hour, row.price.currency, extra=4),
        money.plain(rating.total([_exact(row)]), row.price.currency, extra=4),
        row.price.currency,
        row.job_id,
        tables.no_formula(row.job.name),
        tables.no_formula(row.team.name),
        tables.no_formula(row.user.email),
        row.job.profile,
    ]


def _exact(row: Usage) -> Any:
    return rating.amount(row.seconds * row.units, row.price.per_hour)


def _line(row: Usage) -> dict[str, Any]:
    return {
        "name": row.job.name,
        "url": present.job_url(row.job_id),
        "by": str(row.user),
        "device_model": row.device.model.name,
        "share": " · ".join(part for part in (row.job.profile, present.percent(row.units)) if part),
        "starts": row.starts,
        "seconds": row.seconds,
        "span": present.span(row.seconds),
        "price": present.amount(row.price.per_hour, fine=False),
        "amount": present.amount(rating.total([_exact(row)])),
    }


def _month(request: HttpRequest) -> date:
    text = request.GET.get("month", "")
    if not text:
        return clock.now().date().replace(day=1)
    try:
        month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise Http404(_("month: write it as 2026-11.")) from None
    if not prices.BEGINNING.year <= month.year < 9999:
        raise Http404(_("month: nothing was or will be charged then."))
    return month


def _months(organization: Organization, now: datetime) -> list[tuple[str, str]]:
    """Back to the organization's first month, a year at most."""
    months: list[tuple[str, str]] = []
    day = now.date().replace(day=1)
    while len(months) < MONTHS_SHOWN:
        months.append((f"{day:%Y-%m}", formats.date_format(day, "YEAR_MONTH_FORMAT")))
        if day <= organization.created_at.date().replace(day=1):
            break
        day = day.replace(year=day.year - (day.month == 1), month=(day.month - 2) % 12 + 1)
    return months


@login_required
@require_http_methods(["GET", "POST"])
def prices_page(request: HttpRequest) -> HttpResponse:
    by = operator(request)
    form = PriceForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            prices.set_price(
                by=by,
                device_model=data["device_model"],
                per_hour=money.micro(data["per_hour"]),
                valid_from=data["valid_from"],
            )
        except Invalid as invalid:
            for name, sentence in invalid.fields.items():
                form.add_error(name, sentence)
        else:
            messages.success(request, _("The new price is set."))
            return redirect("prices")
    now = clock.now()
    context = {
        "form": form,
        "currency": settings.HAEIN_CURRENCY,
        "prices": [
            {
                "model": price.device_model.name,
                "per_hour": present.amount(price.per_hour, fine=False),
                "valid_from": price.valid_from if price.valid_from > prices.BEGINNING else None,
                "valid_to": price.valid_to,
                "current": price.valid_from <= now and (price.valid_to is None or now < price.valid_to),
            }
            for price in Price.objects.select_related("device_model")
        ],
    }
    return render(request, "dashboard/prices.html", context, status=422 if form.errors else 200)
