"""Values that change at any moment, over time, in a bounded number of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST = 500


@dataclass(frozen=True, slots=True)
class Curve:
    """Equal steps of `step_s` seconds from the beginning on; of each column the mean over each step."""

    step_s: int
    columns: tuple[tuple[float, ...], ...]


class Recorder:
    """Means over equal steps, exact: sums are of integers. When there are more than MOST steps, two become one."""

    def __init__(self, columns: int, began: int) -> None:
        """`began` is the first second; the others of its arguments count from the same zero."""
        self.began = self.now = began
        self.step_s = 1
        self.totals = [0] * columns
        self._sums: list[list[int]] = []

    def hold(self, until: int, values: Sequence[int]) -> None:
        """The values have been these from the last moment to `until`."""
        if until <= self.now:
            return
        for column, value in enumerate(values):
            self.totals[column] += value * (until - self.now)
        while until - self.began > MOST * self.step_s:
            self._double()
        while self.now < until:
            step = (self.now - self.began) // self.step_s
            end = min(until, self.began + (step + 1) * self.step_s)
            if step == len(self._sums):
                self._sums.append([0] * len(self.totals))
            sums = self._sums[step]
            for column, value in enumerate(values):
                sums[column] += value * (end - self.now)
            self.now = end

    def _double(self) -> None:
        self.step_s *= 2
        halves = self._sums
        if len(halves) % 2:
            halves.append([0] * len(self.totals))
        self._sums = [
            [one + other for one, other in zip(*pair, strict=True)]
            for pair in zip(halves[::2], halves[1::2], strict=True)
        ]

    @property
    def seconds(self) -> int:
        return self.now - self.began

    def curve(self) -> Curve:
        spans = [min(self.step_s, self.seconds - step * self.step_s) for step in range(len(self._sums))]
        return Curve(
            self.step_s,
            tuple(
                tuple(sums[column] / span for sums, span in zip(self._sums, spans, strict=True))
                for column in range(len(self.totals))
            ),
        )
