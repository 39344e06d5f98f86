"""When nobody is left if nobody comes: at the latest by the limits of the runs, probably by how runs have ended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

# Fewer ended runs than these say nothing.
FEWEST = 20
_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """When it began (epoch seconds), how long it may run (seconds), and by when it is gone, whatever it does.

    That is after its limit and its grace, or earlier where it was told to leave.
    """

    began: float
    limit_s: float
    ends: float


@dataclass(frozen=True, slots=True)
class Empty:
    """When the last is gone `at the latest`, and when it is more likely than not that all are; epoch seconds.

    Both are `now` where nobody runs; `probably` is None where there is no history to tell it from.
    """

    latest: float
    probably: float | None


def when(runs: Sequence[Run], history: Sequence[float], now: float) -> Empty:
    """`history` are parts of their time limits that ended runs took, 0 to 1.

    A run takes a part of its limit as those did that took more than it has by now, whatever the others do. All are gone
    by a moment as likely as each of them is, multiplied; "probably" is the first at which that is one half.
    """
    if not runs:
        return Empty(now, now)
    latest = max(now, *(run.ends for run in runs))
    if len(history) < FEWEST:
        return Empty(latest, None)
    parts = sorted(history)
    early, late = now, latest
    while late - early > _WITHIN_S:
        middle = (early + late) / 2
        early, late = (early, middle) if _gone(runs, parts, now, middle) >= 0.5 else (middle, late)
    return Empty(latest, late)


def _gone(runs: Sequence[Run], parts: Sequence[float], now: float, at: float) -> float:
    """How likely it is that all have ended by then."""
    likely = 1.0
    for run in runs:
        if at >= run.ends:
            continue
        before = bisect_right(parts, (now - run.began) / run.limit_s)
        by_then = bisect_right(parts, (at - run.began) / run.limit_s)
        # Whoever has outlived all that are known runs to the limit.
        likely *= (by_then - before) / (len(parts) - before) if before < len(parts) else 0.0
    return likely
