"""Figures as plotly.js reads them, built here and drawn in the browser.

They are plain dictionaries: the plotly package would add about 50 MB to every web process to write the same JSON. The
tests hold each figure to that package's own schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.utils.translation import gettext as _

from haein.lib import money
from haein.telemetry.series import Sample
from jobs.promises import Score


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: means over equal steps of `step_s` seconds. `tone` is its colour and `dash` its dashes, from 0."""

    name: str
    step_s: int
    values: Sequence[float]
    mean: float
    tone: int
    dash: int


def utilization(samples: Sequence[Sample], *, emulated: bool) -> dict[str, Any]:
    """GPU utilization and CPU cores over time; x in epoch milliseconds."""
    at = [sample.at for sample in samples]
    name = _("GPU utilization (emulated)") if emulated else _("GPU utilization")
    return {
        "data": [
            _line(name, at, [sample.utilization for sample in samples]),
            _line(_("CPU cores"), at, [sample.cpu for sample in samples], yaxis="y2"),
        ],
        "layout": {
            "xaxis": {"type": "date"},
            "yaxis": {"title": {"text": "%"}, "range": [0, 105]},
            "yaxis2": {"title": {"text": _("cores")}, "overlaying": "y", "side": "right", "rangemode": "tozero"},
        },
    }


def memory(samples: Sequence[Sample], *, limit_mb: int, emulated: bool) -> dict[str, Any]:
    """Host memory against the job's limit, and GPU memory, in MiB."""
    at = [sample.at for sample in samples]
    name = _("GPU memory (emulated)") if emulated else _("GPU memory")
    return {
        "data": [
            _line(_("Memory"), at, [sample.memory_mb for sample in samples]),
            _line(name, at, [sample.device_memory_mb for sample in samples]),
        ],
        "layout": {
            "xaxis": {"type": "date"},
            "yaxis": {"title": {"text": "MiB"}, "rangemode": "tozero"},
            "meta": {"limit": limit_mb},
        },
    }


def days(rows: Sequence[tuple[date, int]], start: date, end: date, currency: str) -> dict[str, Any]:
    """What each day from `start` to before `end` cost."""
    costs = dict(rows)
    every = [start + timedelta(days=number) for number in range((end - start).days)]
    return {
        "data": [
            {
                "type": "bar",
                "name": _("Cost"),
                "x": [on.isoformat() for on in every],
                "y": [costs.get(on, 0) / money.MICRO for on in every],
            }
        ],
        "layout": {"xaxis": {"type": "date"}, "yaxis": {"title": {"text": currency}, "rangemode": "tozero"}},
    }


def held(score: Score) -> dict[str, Any]:
    """How many percent of each day's promises held; a day without promises has no bar."""
    days = [day.on.isoformat() for day in score.days]
    return {
        "data": [
            {"type": "bar", "name": name, "x": days, "y": values}
            for name, values in (
                (_("Nine in ten"), [_percent(day.p90, day.all) for day in score.days]),
                (_("One in two"), [_percent(day.p50, day.all) for day in score.days]),
            )
        ],
        "layout": {"xaxis": {"type": "date"}, "yaxis": {"title": {"text": "%"}, "range": [0, 100]}},
    }


def _percent(part: int, of: int) -> float | None:
    return round(100 * part / of, 1) if of else None


# Lines of one figure are told apart by colour and, beyond that, by dashes, never by colour alone.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def over_time(lines: Sequence[Line], *, unit: str) -> dict[str, Any]:
    """Several curves over the days (or hours) since one beginning; the legend gives each one's mean."""
    longest = max((line.step_s * len(line.values) for line in lines), default=0)
    scale, suffix = (86_400, _("d")) if longest > 3 * 86_400 else (3600, _("h"))
    return {
        "data": [
            _line(
                line.name,
                [round(line.step_s * (at + 0.5) / scale, 4) for at in range(len(line.values))],
                list(line.values),
                meta={"tone": line.tone, "dash": DASHES[line.dash % len(DASHES)], "mean": line.mean},
            )
            for line in lines
        ],
        "layout": {
            "xaxis": {"type": "linear", "ticksuffix": f" {suffix}", "hoverformat": ".1f"},
            "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        },
    }


def side_by_side(names: Sequence[str], bars: Mapping[str, Sequence[float | None]], *, unit: str) -> dict[str, Any]:
    """Groups of bars, one group a name; None where there is no figure."""
    return {
        "data": [{"type": "bar", "name": name, "x": list(names), "y": list(values)} for name, values in bars.items()],
        "layout": {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": unit}, "rangemode": "tozero"}},
    }


def _line(name: str, at: Sequence[float], values: Sequence[float | None], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "name": name, "x": at, "y": values, **more}
