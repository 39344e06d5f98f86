"""A price holds from a moment on; what has been used keeps the price it had."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from billing import prices
from billing.models import Price
from haein.cluster import inventory
from haein.cluster.models import DeviceModel
from haein.lib import clock
from haein.lib.errors import Invalid, Problem
from haein.tenants.models import AuditEntry
from tests.cast import Person, node_fact, together


def soon(hours: float = 1) -> Any:
    return clock.now() + timedelta(hours=hours)


@pytest.fixture
def b200(big: None) -> DeviceModel:
    return DeviceModel.objects.get(name="B200")


def test_a_new_model_has_the_first_price_from_the_beginning(b200: DeviceModel) -> None:
    price = Price.objects.get()
    assert (price.per_hour, price.valid_from, price.valid_to, price.currency) == (
        4_000_000,
        prices.BEGINNING,
        None,
        "USD",
    )


@pytest.mark.django_db(transaction=True)
def test_the_first_price_is_set_once_however_many_set_it() -> None:
    inventory.refresh([node_fact()], now=clock.now())
    together(lambda _: prices.fill_gaps(), 5)
    assert Price.objects.count() == AuditEntry.objects.filter(action="price.set").count() == 1


def test_a_model_of_this_very_moment_has_a_price_when_it_is_asked_for(db: None) -> None:
    inventory.refresh([node_fact()], now=clock.now())
    model = DeviceModel.objects.get()
    assert [tariff.per_hour for tariff in prices.tariffs([model.pk])[model.pk]] == [4_000_000]


def test_a_new_price_begins_where_the_old_one_ends(b200: DeviceModel, oda: Person) -> None:
    at = soon()
    prices.set_price(by=oda.user, device_model=b200, per_hour=5_000_000, valid_from=at)
    assert list(Price.objects.order_by("valid_from").values_list("per_hour", "valid_from", "valid_to")) == [
        (4_000_000, prices.BEGINNING, at),
        (5_000_000, at, None),
    ]
    entry = AuditEntry.objects.get(action="price.set", actor_id=oda.user.pk)
    assert (entry.target, entry.detail["per_hour_micro"]) == ("B200", 5_000_000)


def test_only_an_operator_sets_one(b200: DeviceModel, alice: Person) -> None:
    with pytest.raises(Problem, match="Only an operator sets prices"):
        prices.set_price(by=alice.user, device_model=b200, per_hour=1, valid_from=soon())
    assert Price.objects.count() == 1


def test_the_past_keeps_its_price(b200: DeviceModel, oda: Person) -> None:
    with pytest.raises(Invalid) as refused:
        prices.set_price(by=oda.user, device_model=b200, per_hour=1, valid_from=soon(-1))
    assert "choose a moment to come" in refused.value.fields["valid_from"]


def test_a_price_can_not_slip_in_before_a_later_one(b200: DeviceModel, oda: Person) -> None:
    prices.set_price(by=oda.user, device_model=b200, per_hour=5, valid_from=soon(2))
    with pytest.raises(Invalid) as refused:
        prices.set_price(by=oda.user, device_model=b200, per_hour=6, valid_from=soon(1))
    assert "There is a later price already" in refused.value.fields["valid_from"]


def _price(model: DeviceModel, start: Any, end: Any) -> Callable[[], Price]:
    return lambda: Price.objects.create(device_model=model, currency="USD", per_hour=1, valid_from=start, valid_to=end)


def test_the_database_itself_refuses_two_prices_at_once(b200: DeviceModel) -> None:
    for start, end in [(soon(1), soon(2)), (soon(-9), None)]:
        with pytest.raises(IntegrityError, match="price_one_at_a_time"), transaction.atomic():
            _price(b200, start, end)()


def test_two_models_have_prices_of_their_own_and_prices_may_touch(b200: DeviceModel) -> None:
    other, at = DeviceModel.objects.create(name="H100", memory_mb=1), soon()
    _price(other, prices.BEGINNING, at)()
    _price(other, at, None)()


def test_a_price_does_not_end_before_it_begins(b200: DeviceModel) -> None:
    at = soon()
    with pytest.raises(IntegrityError, match=r"price_interval|range lower bound"), transaction.atomic():
        _price(DeviceModel.objects.create(name="H100", memory_mb=1), at, at)()
