"""The shapes that requests come in, and how often each is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from haein.placement.devices import Ask
from haein.placement.model import Request


class Shape(NamedTuple):
    """All of a request that placement looks at. Two requests of one shape have the same answer."""

    gpus: int
    ask: Ask
    cpus: int
    memory_mb: int
    pool: str
    labels: frozenset[str]


@lru_cache(maxsize=4096)
def _shape(
    gpus: int, share: int, model: str, gpu_mb: int, profile: str, cpus: int, mb: int, pool: str, labels: frozenset[str]
) -> Shape:
    return Shape(gpus, Ask(share, model, gpu_mb, profile), cpus, mb, pool, labels)


def shape_of(request: Request) -> Shape:
    return _shape(
        request.gpus,
        request.share,
        request.model,
        request.gpu_memory_mb,
        request.profile,
        request.cpus,
        request.memory_mb,
        request.pool,
        request.labels,
    )


@dataclass(frozen=True, slots=True)
class Mix:
    """What is expected to be asked for. Weights are whole numbers: sums of them are exact in any order."""

    weights: Mapping[Shape, int]

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Mix:
        return cls(Counter(map(shape_of, requests)))

    def popular(self, percent: int) -> Mix:
        """The fewest shapes that are together this much of what is asked for, the most asked for first."""
        ranked = sorted(self.weights.items(), key=lambda each: (-each[1], each[0].gpus, each[0].cpus, str(each[0])))
        enough, sum_, kept = percent * sum(self.weights.values()), 0, {}
        for shape, weight in ranked:
            if 100 * sum_ >= enough:
                break
            kept[shape] = weight
            sum_ += weight
        return Mix(kept)
