"""Figures are what plotly itself accepts, and say nothing that was not measured."""

from datetime import date
from typing import Any

import plotly.graph_objects as go
import pytest

from dashboard import charts
from haein.telemetry.series import Sample

SAMPLES = [Sample(1000, 0.5, 10.0, 50.0, 5.0), Sample(2000, None, None, None, None)]


@pytest.mark.parametrize(
    "figure",
    [
        charts.utilization(SAMPLES, emulated=True),
        charts.utilization([], emulated=False),
        charts.memory(SAMPLES, limit_mb=256, emulated=True),
        charts.days([(date(2026, 11, 1), 1_500_000)], date(2026, 11, 1), date(2026, 11, 30), "USD"),
    ],
)
def test_plotly_accepts_it(figure: dict[str, Any]) -> None:
    assert len(go.Figure(figure).data) == len(figure["data"]) in {1, 2}


def test_what_was_not_measured_is_a_gap() -> None:
    gpu, cores = charts.utilization(SAMPLES, emulated=True)["data"]
    assert (gpu["x"], gpu["y"], cores["y"]) == ([1000, 2000], [50.0, None], [0.5, None])


def test_an_emulated_device_says_so() -> None:
    assert "emulated" in charts.utilization([], emulated=True)["data"][0]["name"]
    assert "emulated" not in charts.utilization([], emulated=False)["data"][0]["name"]


def test_a_day_is_in_units_of_the_currency() -> None:
    (bars,) = charts.days([(date(2026, 11, 2), 1_500_000)], date(2026, 11, 1), date(2026, 11, 4), "USD")["data"]
    assert (bars["x"], bars["y"]) == (["2026-11-01", "2026-11-02", "2026-11-03"], [0.0, 1.5, 0.0])
