"""Whether to try again what failed, and how long to wait first, by the class of the failure."""

from __future__ import annotations

import enum

from haein.cluster.backends.base import Cause, Sight

# sysexits.h: "temporary failure; the user is invited to retry". Any program may end with it.
EX_TEMPFAIL = 75
# What a shell answers for a command that can't be executed, or is not there.
NOT_EXECUTABLE, NOT_FOUND = 126, 127
FIRST_REST_S, LONGEST_REST_S = 10.0, 600.0
# After the first time in a row that the cluster did not start it, the second ...: what keeps it back may soon be over,
# and each try has the cluster look at it anew.
NOT_TAKEN_RESTS_S = (30.0, 60.0, 120.0, 300.0)


class Failure(enum.Enum):
    """Whose failure it was, as far as the end tells."""

    TRANSIENT = "transient"  # the operator's machine, or a program that says so itself: another try may succeed
    USER = "user"  # another try would end the same
    UNKNOWN = "unknown"


def classify(sight: Sight) -> Failure:
    """The class of an end other than by exit code 0."""
    match sight.cause:
        case Cause.LOST:
            return Failure.TRANSIENT
        case Cause.NOT_STARTED | Cause.MEMORY_LIMIT | Cause.TIME_LIMIT:
            return Failure.USER
        case Cause.EXITED if sight.exit_code == EX_TEMPFAIL:
            return Failure.TRANSIENT
        case Cause.EXITED if sight.exit_code in {NOT_EXECUTABLE, NOT_FOUND}:
            return Failure.USER
    return Failure.UNKNOWN


def rest_s(failure: int) -> float:
    """How long a job rests after its n-th failure in a row, in seconds; not at all for 0."""
    return min(FIRST_REST_S * 2.0 ** (failure - 1), LONGEST_REST_S) if failure else 0.0


def not_taken_rest_s(times: int) -> float:
    """How long a job rests after the cluster did not start it so many times in a row, in seconds."""
    return NOT_TAKEN_RESTS_S[min(times, len(NOT_TAKEN_RESTS_S)) - 1]
