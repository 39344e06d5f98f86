"""What the pages of replays show: a replay's row, its outcome side by side, as figures and as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from django.conf import settings
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from billing import prices, rating
from dashboard import charts, present, tables
from haein.cluster.models import Device
from haein.lib import money
from haein.placement.policies import POLICIES
from jobs.models import Replay
from jobs.replays import Asked, NodeKind

# The icon of a job's state that says the same, and the tone.
LOOKS = {
    Replay.State.QUEUED: ("queued", "waiting"),
    Replay.State.RUNNING: ("running", "active"),
    Replay.State.DONE: ("succeeded", "good"),
    Replay.State.FAILED: ("failed", "bad"),
    Replay.State.CANCELLED: ("cancelled", "quiet"),
}


def row(replay: Replay) -> dict[str, Any]:
    """A replay as the list and its own page show it."""
    asked = Asked.from_json(replay.asked)
    icon, tone = LOOKS[Replay.State(replay.state)]
    return {
        "id": replay.pk,
        "title": title(replay, asked),
        "pill": {"state": icon, "tone": tone, "state_name": Replay.State(replay.state).label},
        "state": replay.state,
        "open": replay.is_open,
        "percent": replay.progress // 10,
        "policies": ", ".join(asked.policies),
        "sizes": _sizes(asked),
        "by": str(replay.by),
        "created": replay.created_at,
        "took": present.elapsed(replay.started_at, replay.ended_at, replay.ended_at) if replay.ended_at else "",
        "problem": replay.problem,
    }


def node_of_ours() -> NodeKind | None:
    """What one of our nodes is like; None while there is none with a GPU."""
    devices = Device.objects.filter(present=True).select_related("node", "model").order_by("node__name", "index")
    first = devices.first()
    if first is None:
        return None
    gpus = first.node.devices.filter(present=True).count()
    return NodeKind(gpus, first.model.name, first.node.cpus, first.node.memory_mb)


def title(replay: Replay, asked: Asked) -> str:
    if asked.since is None or asked.until is None:
        return replay.file_name
    last = asked.until - timedelta(days=1)
    return _("Our jobs, %(first)s to %(last)s") % {"first": _day(asked.since), "last": _day(last)}


def _day(moment: datetime) -> str:
    return formats.date_format(moment, "DATE_FORMAT")


def _sizes(asked: Asked) -> str:
    sizes = [_("our cluster")] if asked.own else []
    return ", ".join([*sizes, *(_nodes(count) for count in asked.nodes)])


def _nodes(count: int) -> str:
    return ngettext("%(count)d node", "%(count)d nodes", count) % {"count": count}


@dataclass(frozen=True, slots=True)
class Run:
    """One policy on one cluster: what was measured, and what it would cost: micro-units, None where no price is."""

    found: Mapping[str, Any]
    name: str
    size: str
    cost: int | None
    idle: int | None


def runs(replay: Replay, *, now: datetime) -> list[Run]:
    """With today's prices, in one query."""
    found: Sequence[Mapping[str, Any]] = replay.result["runs"] if replay.result else []
    per_hour = prices.of_today({model for run in found for model in run["there"]}, now=now)
    sizes = len({(run["own"], run["nodes"]) for run in found})
    policies = len({run["policy"] for run in found})
    return [_run(run, per_hour, several_sizes=sizes > 1, several_policies=policies > 1) for run in found]


def _run(found: Mapping[str, Any], per_hour: Mapping[str, int], *, several_sizes: bool, several_policies: bool) -> Run:
    size = _("our cluster") if found["own"] else _nodes(found["nodes"])
    parts = [found["policy"]] if several_policies or not several_sizes else []
    idle = {model: all_of_it - found["charged"].get(model, 0) for model, all_of_it in found["there"].items()}
    return Run(
        found=found,
        name=" · ".join([*parts, size] if several_sizes else parts),
        size=size,
        cost=_amount(found["charged"], per_hour),
        idle=_amount(idle, per_hour),
    )


def _amount(unit_seconds: Mapping[str, int], per_hour: Mapping[str, int]) -> int | None:
    if unit_seconds.keys() - per_hour.keys():
        return None
    return rating.total(rating.amount(used, per_hour[model]) for model, used in unit_seconds.items())


# Side by side. (key, label, how it is written, whether less is better; None: neither)
Measure = tuple[str, Any, Callable[[Any], str], bool | None]


def _measures() -> list[Measure]:
    return [
        ("jobs", _("Ran"), _whole, None),
        ("refused", _("Refused"), _whole, True),
        ("mean_wait_s", _("Mean wait"), short_span, True),
        ("median_wait_s", _("Median wait"), short_span, True),
        ("p95_wait_s", _("95 % waited at most"), short_span, True),
        ("mean_completion_s", _("Mean completion"), short_span, True),
        ("makespan_s", _("All done after"), short_span, True),
        ("utilization", _("Utilization"), _percent, False),
        ("stranded", _("Stranded GPUs"), _gpus, True),
    ]


def table(found: Sequence[Run]) -> dict[str, Any]:
    """The measures of every run. The best policy of each cluster is marked, or the best cluster of a single policy."""
    one_policy = len({run.found["policy"] for run in found}) == 1
    return {
        "columns": [*(label for _key, label, _text, _less in _measures()), _("Cost"), _("Idle")],
        "rows": [_row(run, [each for each in found if one_policy or each.size == run.size]) for run in found],
    }


def _row(run: Run, rivals: Sequence[Run]) -> dict[str, Any]:
    measured = [
        (label, text(run.found[key]), run.found[key] == _best([each.found[key] for each in rivals], less))
        for key, label, text, less in _measures()
    ]
    return {
        "policy": run.found["policy"],
        "size": run.size,
        "gpus": ngettext("%(gpus)d GPU", "%(gpus)d GPUs", run.found["gpus"]) % {"gpus": run.found["gpus"]},
        "cells": [*measured, (_("Cost"), _money(run.cost), False), (_("Idle"), _money(run.idle), False)],
    }


def _best(values: Sequence[float], less: bool | None) -> float | None:
    if less is None or len(set(values)) < 2:
        return None
    return min(values) if less else max(values)


def _whole(value: int) -> str:
    return formats.number_format(value, force_grouping=True)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _gpus(value: float) -> str:
    return f"{value:.1f}"


def _money(micro: int | None) -> str:
    return _("n/a") if micro is None else present.amount(micro, fine=False)


def short_span(seconds: float) -> str:
    """The two largest units of it: 1 d 2 h."""
    whole = round(seconds)
    for size in (86_400, 3600, 60):
        if whole >= size:
            below = {86_400: 3600, 3600: 60, 60: 1}[size]
            return present.span(round(whole / below) * below)
    return present.span(whole)


def figures(found: Sequence[Run]) -> dict[str, Any]:
    """Curves over time and bars, one line or bar for each run."""
    return {
        "held": charts.over_time([*_lines(found, "held", "utilization", per_gpu=100)], unit="%"),
        "stranded": charts.over_time([*_lines(found, "stranded", "stranded")], unit=_("GPUs")),
        "waiting": charts.over_time([*_lines(found, "waiting", None)], unit=_("jobs")),
        "waits": charts.side_by_side(
            [run.name for run in found],
            {
                str(label): [round(run.found[key] / 3600, 3) for run in found]
                for key, label in (("mean_wait_s", _("Mean wait")), ("p95_wait_s", _("95 % waited at most")))
            },
            unit=_("h"),
        ),
        "costs": charts.side_by_side(
            [run.name for run in found],
            {
                _("Cost"): [_units(run.cost) for run in found],
                _("Idle"): [_units(run.idle) for run in found],
            },
            unit=settings.HAEIN_CURRENCY,
        ),
    }


def _units(micro: int | None) -> float | None:
    return None if micro is None else float(Fraction(micro, money.MICRO))


def _lines(found: Sequence[Run], column: str, mean: str | None, *, per_gpu: int | None = None) -> Iterator[charts.Line]:
    """`per_gpu`: in parts of so many of the run's own GPUs."""
    sizes = list(dict.fromkeys((run.found["own"], run.found["nodes"]) for run in found))
    for run in found:
        curve = run.found["curve"]
        factor = per_gpu / max(1, run.found["gpus"]) if per_gpu else 1
        values = [round(value * factor, 2) for value in curve[column]]
        whole = sum(values) / max(1, len(values)) if mean is None else run.found[mean] * (per_gpu or 1)
        yield charts.Line(
            name=run.name,
            step_s=curve["step_s"],
            values=values,
            mean=round(whole, 2),
            tone=list(POLICIES).index(run.found["policy"]),
            dash=sizes.index((run.found["own"], run.found["nodes"])),
        )


# For spreadsheets.


def result_csv(found: Iterable[Run]) -> bytes:
    """A line for each run: seconds, GPUs, parts of 1, and money exact to the micro-unit; no price, no amount."""
    keys = [key for key, _label, _text, _less in _measures()]
    lines = [
        [
            *(run.found[key] for key in ("policy", "own", "nodes", "gpus")),
            *(run.found[key] for key in keys),
            *(
                "" if each is None else money.plain(each, settings.HAEIN_CURRENCY, extra=4)
                for each in (run.cost, run.idle)
            ),
            settings.HAEIN_CURRENCY,
        ]
        for run in found
    ]
    return tables.csv_of([["policy", "our_cluster", "nodes", "gpus", *keys, "cost", "idle_cost", "currency"], *lines])


def curves_csv(found: Iterable[Run]) -> bytes:
    """A line for each step of each run: the means over it."""
    lines: list[list[object]] = [
        [*(run.found[key] for key in ("policy", "own", "nodes", "gpus")), step * run.found["curve"]["step_s"], *values]
        for run in found
        for step, values in enumerate(
            zip(*(run.found["curve"][column] for column in ("held", "stranded", "waiting")), strict=True)
        )
    ]
    header = ["policy", "our_cluster", "nodes", "gpus", "from_s", "gpus_held", "gpus_stranded", "jobs_waiting"]
    return tables.csv_of([header, *lines])
