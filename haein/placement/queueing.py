"""The nouns of the queue: who waits, who runs, what accounts allow, and what is set apart. Times in epoch seconds.

`units` are thousandths of GPUs, all workers together; of a MIG instance its compute slices' part of seven.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass

from haein.placement import mix
from haein.placement.model import Gang, Placement, Request


def units_of(request: Request | Gang) -> int:
    """Thousandths of GPUs that the request takes in all."""
    if isinstance(request, Gang):
        return request.members * mix.units(mix.shape_of(request.each))
    return mix.units(mix.shape_of(request))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What an organization, a team or a member may hold, and what of its guarantee is lent. None means no limit.

    `most` are units held at once, `most_jobs` jobs at once, `left` unit-seconds that are left of the month's, what
    runs not yet taken off. `guaranteed` is kept for a team's jobs whenever they ask; `weight` is for fair share.
    The month is from `month_began` to `month_ends`. `pool` is where all of it counts; "" anywhere.
    """

    id: Hashable
    pool: str = ""
    guaranteed: int = 0
    lends: bool = True
    weight: int = 1000
    most: int | None = None
    most_jobs: int | None = None
    left: int | None = None
    month_began: float = 0
    month_ends: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that waits. Its first account is the one whose guarantee it may use; all of them must allow it.

    `never` preempted, or `spot`: on borrowed room alone. `limit_s` is its time limit. Jobs that ask for the same may
    share one request, whatever its id.
    """

    id: Hashable
    request: Request | Gang
    units: int
    team: Hashable
    accounts: tuple[Hashable, ...]
    priority: int
    queued: float
    limit_s: int
    never: bool = False
    spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An attempt that holds room. `ending` is when it is asked for its end, if it is, and for whom: `yields_to`.

    `fixed` may not be preempted at all. `ends` is when it is gone at the latest: its limit and the grace. `saved` is
    when its work was last saved, and it `saves` it when it is told to leave.
    """

    id: Hashable
    job: Hashable
    request: Request | Gang
    placements: tuple[Placement, ...]
    units: int
    team: Hashable
    accounts: tuple[Hashable, ...]
    began: float
    ends: float
    saved: float | None = None
    saves: bool = False
    guaranteed: bool
    fixed: bool = False
    spot: bool = False
    ending: float | None = None
    yields_to: Hashable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Nodes and devices set apart from `at` to `until` for a `team`, or for nobody."""

    id: Hashable
    at: float
    until: float
    team: Hashable | None
    nodes: frozenset[Hashable] = frozenset()
    devices: frozenset[Hashable] = frozenset()


# One for each worker: its node and the devices on it.
Places = tuple[tuple[Hashable, tuple[Hashable, ...]], ...]


class Keeping(enum.Enum):
    """Why room is kept for a job that waits."""

    CLEARED = "cleared"  # others were told to leave it, or the job was moved there: nobody else is let in
    TURN = "turn"  # its turn has come: whoever is gone by `starts` may still use it, and the owners of a guarantee


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Room kept for the job since `made`. What holds it now has left it by `starts` if all limits are kept."""

    job: Hashable
    keeping: Keeping
    made: float
    starts: float
    places: Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the queue is run, in seconds: see docs/queue.md for each."""

    half_life_s: float = 86_400.0
    entry_s: float = 3_600.0
    ageing_s: float = 3_600.0
    min_run_s: float = 300.0
    notice_s: float = 60.0
    grace_s: float = 10.0
