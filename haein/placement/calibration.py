"""From what a rehearsal says to what may be promised: what became of the last promises says how far off it is.

This is split conformal prediction (Papadopoulos et al., ECML 2002; Lei et al., JASA 2018) on the ratio of what came to
what was rehearsed: the k-th smallest of n ratios that were seen bounds the next one with the probability k / (n + 1),
whatever the rehearsal is worth, as long as the next wait is drawn like those before. Ratios are taken by how long the
rehearsed wait is, as short waits are off by more. While few were seen, some that we believe in stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Of waits, in seconds: a minute more or less of a short one must not count as a large part of it.
SLACK_S = 60.0
# The classes of rehearsed waits end there.
CLASSES = (600.0, 7200.0, math.inf)
# So many of the last promises of a class count, and as many as this of what is believed stand beside them at first.
NEWEST, BELIEVED = 400, 20
# What is believed before anything was seen: rehearsed waits are rather long, and now and then much too short.
PRIOR: tuple[float, ...] = tuple(0.1 * 40.0 ** (number / 19) for number in range(20))
P50, P90 = 0.5, 0.9
# No ratio beyond: one job that waited for a day when a minute was said would make all promises worthless.
MOST_RATIO = 50.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A promise that was kept or broken: rehearsed and actual wait in seconds. One still waiting counts as so long."""

    raw_s: float
    actual_s: float


class Calibration:
    """Quantiles of the ratio by class, made once and asked often."""

    def __init__(self, seen: Iterable[Seen]) -> None:
        """`seen` has the newest first."""
        ratios: list[list[float]] = [[] for _ in CLASSES]
        for each in seen:
            of = ratios[_class(each.raw_s)]
            if len(of) < NEWEST:
                of.append(min(MOST_RATIO, (each.actual_s + SLACK_S) / (each.raw_s + SLACK_S)))
        self._factors = [(_factor(of, P50), _factor(of, P90)) for of in ratios]
        # What is rehearsed as longer is never promised sooner: each class begins no lower than the last one ends.
        self._least = [(0.0, 0.0)]
        for at, end in enumerate(CLASSES[:-1]):
            self._least.append(self._answer(at, end))

    def promised(self, raw_s: float) -> tuple[float, float]:
        """Seconds within which it starts with a chance of one in two and of nine in ten."""
        return self._answer(_class(raw_s), raw_s)

    def _answer(self, at: int, raw_s: float) -> tuple[float, float]:
        p50, p90 = (
            max(least, 0.0, factor * (raw_s + SLACK_S) - SLACK_S)
            for factor, least in zip(self._factors[at], self._least[at], strict=True)
        )
        return p50, max(p50, p90)


def _class(raw_s: float) -> int:
    return next(at for at, end in enumerate(CLASSES) if raw_s <= end)


def _factor(seen: list[float], chance: float) -> float:
    """The ratio that the next one is not above with the chance: what is believed weighs less the more was seen."""
    believed = max(0, BELIEVED - len(seen) // 5)
    step = len(PRIOR) / believed if believed else 0.0
    ratios = sorted([*seen, *(PRIOR[int((number + 0.5) * step)] for number in range(believed))])
    at = math.ceil(chance * (len(ratios) + 1))
    return ratios[min(len(ratios), at) - 1]
