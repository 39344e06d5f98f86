"""When nodes fail and for how long: a schedule drawn from the seed, the same for every process that asks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

DAY_S = 86_400.0
# "The Llama 3 Herd of Models" (2024), section 3.3.4: 419 unexpected interruptions in 54 days on 16,384 GPUs, which is
# one in 264 days for each node of eight.
MEAN_BETWEEN_S = 54 * DAY_S * (16_384 / 8) / 419
REPAIR_MEDIAN_S = 3600.0  # ours: a reboot and a look, with a tail of hours for those that need hands
REPAIR_SPREAD = 1.0


class Failures:
    """Times in simulated seconds since the cluster began."""

    def __init__(self, seed: int, mean_between_s: float = MEAN_BETWEEN_S) -> None:
        self._seed = seed
        self._mean_between_s = mean_between_s

    def at_or_after(self, node: str, moment: float) -> tuple[float, float]:
        """The failure that holds at the moment, or else the next one: (from, until)."""
        return next(span for span in self._spans(node) if span[1] > moment)

    def _spans(self, node: str) -> Iterator[tuple[float, float]]:
        # Drawn anew each time it is asked: a node has few failures, and threads then share nothing.
        random, moment = Random(f"{self._seed}:{node}"), 0.0
        while True:
            begin = moment + random.expovariate(1 / self._mean_between_s)
            moment = begin + random.lognormvariate(math.log(REPAIR_MEDIAN_S), REPAIR_SPREAD)
            yield begin, moment
