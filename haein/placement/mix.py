"""The shapes that requests come in, and how often each is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from haein.placement import mig
from haein.placement.devices import Ask
from haein.placement.model import WHOLE, Gang, Near, Request


class Shape(NamedTuple):
    """All of a request that placement looks at. Two requests of one shape have the same answer."""

    gpus: int
    ask: Ask
    cpus: int
    memory_mb: int
    pool: str
    labels: frozenset[str]

    def request(self, id: Hashable) -> Request:
        return Request(
            id=id,
            gpus=self.gpus,
            share=self.ask.share,
            cpus=self.cpus,
            memory_mb=self.memory_mb,
            model=self.ask.model,
            gpu_memory_mb=self.ask.memory_mb,
            profile=self.ask.profile,
            pool=self.pool,
            labels=self.labels,
        )


def units(shape: Shape) -> int:
    """Thousandths of devices that a request of the shape takes in all."""
    if not shape.ask.profile:
        return shape.gpus * shape.ask.share
    compute = next(table[shape.ask.profile].compute for table in mig.MODELS.values() if shape.ask.profile in table)
    return shape.gpus * compute * WHOLE // mig.COMPUTE_SLICES


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


Question = tuple[Shape, int, Near, bool]


def question_of(request: Request | Gang) -> Question:
    """All that is asked: two with one question have the same answer."""
    if isinstance(request, Gang):
        return shape_of(request.each), request.members, request.near, request.required
    return shape_of(request), 0, Near.ANYWHERE, False


@dataclass(frozen=True, slots=True)
class Mix:
    """What is expected to be asked for. Weights are whole numbers: sums of them are exact in any order."""

    weights: Mapping[Shape, int]

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Mix:
        return cls(Counter(map(shape_of, requests)))
