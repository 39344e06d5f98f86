"""The verbs on prices: an operator sets one, and no device is ever without."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from billing.models import Price
from billing.rating import Tariff
from haein.cluster.models import DeviceModel
from haein.lib import clock, money
from haein.lib.errors import Forbidden, Invalid
from haein.tenants import audit
from haein.tenants.models import User

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


def fill_gaps() -> None:
    """A device model that has just appeared gets the first price of the settings, from the beginning of time."""
    for model in DeviceModel.objects.filter(prices=None):
        with transaction.atomic():
            DeviceModel.objects.select_for_update().get(pk=model.pk)
            if not Price.objects.filter(device_model=model).exists():
                _add(model, money.micro(settings.HAEIN_FIRST_PRICE), BEGINNING, by=None)


@transaction.atomic
def set_price(*, by: User, device_model: DeviceModel, per_hour: int, valid_from: datetime) -> Price:
    """A new price from a moment that has not passed yet; the present one ends there. Raises Invalid, Problem."""
    if not by.is_operator:
        raise Forbidden(_("Only an operator sets prices."))
    if valid_from < clock.now().replace(microsecond=0):
        raise Invalid({"valid_from": _("A price can't change what has been used already: choose a moment to come.")})
    DeviceModel.objects.select_for_update().get(pk=device_model.pk)
    if Price.objects.filter(device_model=device_model, valid_from__gte=valid_from).exists():
        raise Invalid({"valid_from": _("There is a later price already: choose a moment after it begins.")})
    Price.objects.filter(device_model=device_model, valid_to=None).update(valid_to=valid_from)
    return _add(device_model, per_hour, valid_from, by=by)


def tariffs(model_ids: Iterable[int]) -> dict[int, list[Tariff]]:
    """All tariffs of these device models, in one query; a model that appeared a moment ago gets its first one now."""
    wanted = set(model_ids)
    found = _tariffs(wanted)
    if wanted - found.keys():
        fill_gaps()
        found = _tariffs(wanted)
    return found


def of_today(model_names: Collection[str], *, now: datetime) -> dict[str, int]:
    """Micro-units for an hour of a device of these models, in one query; a model without a price is not in it."""
    valid = Price.objects.filter(Q(valid_to=None) | Q(valid_to__gt=now), valid_from__lte=now)
    return dict(valid.filter(device_model__name__in=model_names).values_list("device_model__name", "per_hour"))


def _tariffs(model_ids: Collection[int]) -> dict[int, list[Tariff]]:
    found: dict[int, list[Tariff]] = {}
    for price in Price.objects.filter(device_model_id__in=model_ids):
        until = clock.whole_seconds(price.valid_to) if price.valid_to else None
        tariff = Tariff(price.pk, clock.whole_seconds(price.valid_from), until, price.per_hour)
        found.setdefault(price.device_model_id, []).append(tariff)
    return found


def _add(model: DeviceModel, per_hour: int, valid_from: datetime, *, by: User | None) -> Price:
    price = Price.objects.create(
        device_model=model, currency=settings.HAEIN_CURRENCY, per_hour=per_hour, valid_from=valid_from, set_by=by
    )
    audit.record("price.set", model.name, by=by, per_hour_micro=per_hour, valid_from=valid_from.isoformat())
    return price
