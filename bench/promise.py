"""Whether promises hold: the week of the demonstration's load on paper, with starts promised as the service does it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from bench import week
from bench.ground import Figure
from haein.placement import forecast
from haein.placement.calibration import Calibration, Seen
from haein.placement.forecast import Lengths
from haein.placement.queueing import Rules, Running
from haein.placement.replay import mix_of
from haein.placement.turns import Decision, Scene
from haein.placement.weeks import Week

# The service rehearses every ten seconds; on paper as often as this is enough to promise to a part of those who wait.
EVERY_S = 600.0
# Between these it is honest.
LEAST, MOST = 85.0, 95.0
# As jobs/promises.py looks back.
RUNS, PROMISES = 2000, 1200


def held() -> Figure:
    """How many of a hundred promises of nine in ten held; near 90 is honest, more is as wrong as less."""
    jobs, snapshot = week.week(), week.cluster()
    accounts, weights = week.shares(snapshot, jobs)
    keeper = Keeper(Rules())
    Week(snapshot, Rules(), accounts, weights, step_s=week.STEP_S, mix=mix_of(week.traced(jobs))).run(jobs, keeper)
    kept = keeper.kept
    p90 = _percent(sum(each.took <= each.p90 for each in kept), len(kept))
    detail = {
        "promises": len(kept),
        "p50_held_percent": _percent(sum(each.took <= each.p50 for each in kept), len(kept)),
        "raw_s": round(median(each.raw for each in kept)),
        "took_s": round(median(each.took for each in kept)),
        "between": [LEAST, MOST],
    }
    return Figure(p90, "%", LEAST, detail, more_is_better=True, besides=p90 <= MOST)


def _percent(part: int, of: int) -> float:
    return round(100 * part / max(1, of), 1)


class _Made(NamedTuple):
    """Seconds: when, and what the rehearsal and then the promise said from there on."""

    at: float
    raw: float
    p50: float
    p90: float


class _Kept(NamedTuple):
    raw: float
    p50: float
    p90: float
    took: float


@dataclass(slots=True)
class Keeper:
    """Watches the passes: promises what is new, closes what has started, learns how long runs take."""

    rules: Rules
    kept: list[_Kept] = field(default_factory=list)
    _open: dict[Hashable, _Made] = field(default_factory=dict)
    _parts: list[tuple[Hashable, float]] = field(default_factory=list)
    _running: dict[Hashable, Running] = field(default_factory=dict)
    _due: float = 0.0

    def __call__(self, scene: Scene, decision: Decision) -> None:
        self._learn(scene)
        started = {start.job for start in decision.starts}
        for job in started & self._open.keys():
            made = self._open.pop(job)
            self.kept.append(_Kept(made.raw, made.p50, made.p90, scene.now - made.at))
        new = [job.id for job in scene.waiting if job.id not in started and job.id not in self._open]
        if new and scene.now >= self._due:
            self._due = scene.now + EVERY_S
            self._promise(scene, new)

    def _learn(self, scene: Scene) -> None:
        """The part of its limit that each ran, of those that ended by themselves."""
        running = {each.id: each for each in scene.running}
        for gone in self._running.keys() - running.keys():
            each = self._running[gone]
            if each.ending is None:
                limit = each.ends - each.began - self.rules.grace_s
                self._parts.append((each.team, min(1.0, (scene.now - each.began) / limit)))
        self._running = running

    def _promise(self, scene: Scene, new: list[Hashable]) -> None:
        found = forecast.rehearse(scene, self.rules, Lengths(self._parts[-RUNS:]).predicted)
        broken = [Seen(made.raw, scene.now - made.at) for made in self._open.values() if made.at + made.p90 < scene.now]
        calibration = Calibration([*broken, *(Seen(each.raw, each.took) for each in self.kept[: -PROMISES - 1 : -1])])
        for job in new:
            raw = found.starts.get(job)
            if raw is not None:
                self._open[job] = _Made(scene.now, raw, *calibration.promised(raw))
