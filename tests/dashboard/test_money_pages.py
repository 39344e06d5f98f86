"""The bill, its table for spreadsheets, and the operator's prices."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest

from billing import metering, statements
from billing.models import Price, Usage
from haein.cluster.models import DeviceModel
from haein.lib import clock
from jobs import scheduling
from jobs.models import Allocation, Job
from tests.cast import Person
from tests.dashboard import crowd

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


def table(person: Person, query: str = "") -> list[dict[str, str]]:
    answer: Any = person.client.get(f"/billing/usage.csv{query}")
    assert answer["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(StringIO(b"".join(answer.streaming_content).decode())))


def spend(by: Person, submit: Submit, seconds: int = 100, **asked: Any) -> Job:
    """A job that has just been using what it asked for, for so long."""
    job, now = submit(by, **asked), clock.now().replace(microsecond=0)
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    held = Allocation.objects.filter(attempt__job=job)
    held.update(billable_from=now - timedelta(seconds=seconds), ended_at=now)
    metering.pull()
    return job


def test_the_bill_the_table_and_the_sum_are_one(alice: Person, bob: Person, submit: Submit) -> None:
    for seconds, share in ((100, 333), (77, 1000), (3601, 1)):
        spend(alice, submit, seconds, share=share)
    spend(bob, submit, 50, gpus=2)
    now = clock.now()
    months = {f"?month={day:%Y-%m}": day.date() for day in (now - timedelta(hours=2), now)}
    rows = [row for month in months for row in table(alice, month)]
    for row in rows:
        exact = Decimal(row["seconds"]) * int(row["share_thousandths"]) * Decimal(row["price_per_hour"]) / 3_600_000
        assert abs(exact - Decimal(row["amount"])) <= Decimal("0.0000005")
    total = sum(Decimal(row["amount"]) for row in rows) * 1_000_000
    bill = sum(statements.month(alice.scope, day, now=now).total for day in months.values())
    assert abs(int(total) - bill) <= len(rows)
    page = alice.client.get("/billing/")
    assert page.context["total_micro"] == statements.month(alice.scope, now.date(), now=now).total
    assert {row["name"] for row in page.context["by_person"]} == {"Alice", "Bob"}


def test_what_runs_is_on_the_page_before_it_is_in_the_table(alice: Person, submit: Submit) -> None:
    submit(alice)
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    Allocation.objects.update(billable_from=now - timedelta(seconds=1800))
    page = alice.client.get("/billing/")
    assert page.context["running"]
    assert page.context["total_micro"] > 0
    assert table(alice) == []


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", '=HYPERLINK("http://x")'])
def test_a_name_that_a_spreadsheet_would_run_is_made_harmless(alice: Person, submit: Submit, name: str) -> None:
    spend(alice, submit, name=name)
    (row,) = table(alice)
    assert row["job"] == f"'{name}"


def test_a_name_with_commas_quotes_and_letters_of_all_kinds_comes_through(alice: Person, submit: Submit) -> None:
    name = 'a, "b"; 손글씨'
    spend(alice, submit, name=name)
    assert [row["job"] for row in table(alice)] == [name]


@pytest.mark.parametrize("month", ["x", "2026", "2026-13", "2026-00", "0000-01", "2026-11-01", "9999-12", "0001-01"])
def test_a_month_that_is_none_is_not_found(alice: Person, month: str) -> None:
    for path in ("/billing/", "/billing/usage.csv"):
        assert alice.client.get(path, {"month": month}).status_code == 404


@pytest.mark.parametrize("month", ["2026-12", "2000-01", "9998-12"])
def test_a_month_without_work_is_an_empty_bill(alice: Person, month: str) -> None:
    page = alice.client.get("/billing/", {"month": month})
    assert (page.status_code, page.context["total_micro"]) == (200, 0)


def test_a_long_bill_has_pages(alice: Person) -> None:
    crowd.gather(alice, 100)
    page = alice.client.get("/billing/", {"page": "2"})
    assert page.context["page"].number == 2
    assert Usage.objects.count() > 50


def test_an_operator_sets_a_price_for_a_time_to_come(oda: Person) -> None:
    model, at = DeviceModel.objects.get(), clock.now() + timedelta(days=1)
    form = {"device_model": model.pk, "per_hour": "5.25", "valid_from": f"{at:%Y-%m-%dT%H:%M}"}
    assert oda.client.post("/operator/prices/", form).status_code == 302
    assert Price.objects.get(valid_to=None).per_hour == 5_250_000
    page = oda.client.get("/operator/prices/")
    assert [price["current"] for price in page.context["prices"]] == [False, True]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"per_hour": "-1"}, "per_hour"),
        ({"per_hour": "0.0000001"}, "per_hour"),
        ({"valid_from": "2020-01-01T00:00"}, "valid_from"),
    ],
)
def test_a_price_that_can_not_be_is_refused_beside_its_field(oda: Person, change: dict[str, str], field: str) -> None:
    at = clock.now() + timedelta(days=1)
    form = {"device_model": DeviceModel.objects.get().pk, "per_hour": "5", "valid_from": f"{at:%Y-%m-%dT%H:%M}"}
    answer = oda.client.post("/operator/prices/", {**form, **change})
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert Price.objects.count() == 1
