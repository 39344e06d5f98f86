"""What the command tells a shell: exit codes, and the errors that are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haein.client import errors

if TYPE_CHECKING:
    from haein.client.answers import Job

OK, FAILED, USAGE, NOT_ALLOWED, NOT_FOUND, INVALID, AWAY = range(7)
TIMED_OUT, CANCELLED, INTERRUPTED = 124, 130, 130


class Ambiguous(errors.HaeinError):
    """A name that several jobs have."""


class BadOption(errors.HaeinError):
    """An option or argument that can't be what it is."""


def exit_code(error: errors.HaeinError) -> int:
    """docs/cli.md has the table."""
    if isinstance(error, (Ambiguous, BadOption)):
        return USAGE
    if isinstance(error, (errors.NotSignedIn, errors.Forbidden)):
        return NOT_ALLOWED
    if isinstance(error, errors.NotFound):
        return NOT_FOUND
    if isinstance(error, (errors.ServerAway, errors.TooManyRequests)):
        return AWAY
    if isinstance(error, (errors.Invalid, errors.BadFiles)) or type(error).__name__ == "BadJobFile":
        return INVALID
    return FAILED


def exit_code_of(job: Job) -> int:
    """What a shell would say of the job's own process."""
    if job.state == "succeeded":
        return OK
    if job.state in ("timed_out", "cancelled"):
        return TIMED_OUT if job.state == "timed_out" else CANCELLED
    if job.signal:
        return 128 + job.signal
    return job.exit_code if job.exit_code and 0 < job.exit_code < 256 else FAILED
