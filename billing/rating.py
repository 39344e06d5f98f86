"""From time and prices to money: pure and exact, with one rounding at the line.

A line is seconds x units x price / (3600 x 1000): a price is for an hour of a whole device, units are thousandths of
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from haein.lib.money import round_half_even

HOUR = 3600
WHOLE = 1000


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price's validity, half-open, in whole seconds since the epoch (`until` None: open), in micro-units an hour."""

    id: int
    since: int
    until: int | None
    per_hour: int


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of one interval under one tariff: half-open [start, end)."""

    tariff: Tariff
    start: int
    end: int
    units: int

    @property
    def seconds(self) -> int:
        return self.end - self.start

    @property
    def exact(self) -> Fraction:
        """Micro-units, before any rounding."""
        return amount(self.seconds * self.units, self.tariff.per_hour)


def amount(unit_seconds: int, per_hour: int) -> Fraction:
    """Exact micro-units for thousandth-seconds of a device at a price for an hour of the whole."""
    return Fraction(unit_seconds * per_hour, HOUR * WHOLE)


def add(amounts: Iterable[Fraction]) -> Fraction:
    """The exact sum."""
    return sum(amounts, Fraction())


def total(amounts: Iterable[Fraction]) -> int:
    """Whole micro-units: added exactly, rounded once, half-even."""
    return round_half_even(add(amounts))


def rate(start: int, end: int, units: int, tariffs: Sequence[Tariff], cuts: Iterable[int] = ()) -> list[Line]:
    """The interval [start, end) cut where the tariff changes and at `cuts` (the beginnings of months).

    Raises LookupError for a second that no tariff covers.
    """
    edges = {start, end}
    for moment in (*cuts, *(t.since for t in tariffs), *(t.until for t in tariffs if t.until is not None)):
        if start < moment < end:
            edges.add(moment)
    ordered = sorted(edges)
    return [Line(_tariff_at(a, tariffs), a, b, units) for a, b in pairwise(ordered)]


def _tariff_at(moment: int, tariffs: Sequence[Tariff]) -> Tariff:
    for tariff in tariffs:
        if tariff.since <= moment and (tariff.until is None or moment < tariff.until):
            return tariff
    raise LookupError(f"no price at {moment} s since the epoch")
