"""The life of a job as one table: which event moves which state to which, and nothing moves in any other way."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from haein.lib.errors import IllegalMove


class State(enum.StrEnum):
    """Where a job is. The values are in the database and in every answer of the API."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class Event(enum.StrEnum):
    """What can happen to a job."""

    PLACE = "place"  # quota, money and a place were found, all in one transaction
    RUN = "run"  # its process runs
    SUCCEED = "succeed"
    FAIL = "fail"
    TIME_OUT = "time_out"
    CANCEL = "cancel"  # asked for while queued, or its process has ended after it was asked for
    REQUEUE = "requeue"  # another attempt by itself: retries are left, or the operator's machine was at fault
    PREEMPT = "preempt"  # it had to yield, and waits again
    TAKE_BACK = "take_back"  # the cluster did not start it, and it waits again
    RETRY = "retry"  # another attempt because a person asked for one


ACTIVE = frozenset({State.STARTING, State.RUNNING})
OPEN = frozenset({State.QUEUED, *ACTIVE})
ENDED = frozenset(State) - OPEN
# How often the operator's machines may spoil a job's runs before it fails.
MOST_LOST = 3

TABLE: Mapping[Event, Mapping[State, State]] = MappingProxyType(
    {
        Event.PLACE: {State.QUEUED: State.STARTING},
        Event.RUN: {State.STARTING: State.RUNNING},
        Event.SUCCEED: dict.fromkeys(ACTIVE, State.SUCCEEDED),
        Event.FAIL: dict.fromkeys(ACTIVE, State.FAILED),
        Event.TIME_OUT: dict.fromkeys(ACTIVE, State.TIMED_OUT),
        Event.CANCEL: dict.fromkeys(OPEN, State.CANCELLED),
        Event.REQUEUE: dict.fromkeys(ACTIVE, State.QUEUED),
        Event.PREEMPT: dict.fromkeys(ACTIVE, State.QUEUED),
        Event.TAKE_BACK: dict.fromkeys(ACTIVE, State.QUEUED),
        Event.RETRY: dict.fromkeys(ENDED, State.QUEUED),
    }
)


def sources(event: Event) -> frozenset[State]:
    """The states that the event may find a job in."""
    return frozenset(TABLE[event])


def after(state: State, event: Event, *, thing: object = "job") -> State:
    """Where the event leads from `state`. Raises IllegalMove, which names `thing`."""
    try:
        return TABLE[event][state]
    except KeyError:
        raise IllegalMove(thing, state, event) from None


def diagram() -> str:
    """The table as a Mermaid state diagram; docs/jobs.md holds a copy, and a test holds the two together."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    for event, moves in TABLE.items():
        lines += [f"    {old} --> {new}: {event}" for old, new in sorted(moves.items())]
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in sorted(ENDED))])
