"""What Slurm's states and reasons mean for an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from signal import SIGKILL
from uuid import UUID

from haein.cluster.backends.base import Cause, Phase, Sight
from haein.cluster.backends.slurm.records import JobRecord, State

# Reasons that nothing but another request, or the site's administrator, can clear (man squeue, "JOB REASON CODES").
NEVER = frozenset(
    {
        "AccountNotAllowed",
        "AssocMaxCpuPerJobLimit",
        "AssocMaxGRESPerJob",
        "AssocMaxMemPerJob",
        "AssocMaxNodePerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "BadConstraints",
        "DependencyNeverSatisfied",
        "InvalidAccount",
        "InvalidQOS",
        "JobHeldAdmin",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "QOSMaxCpuPerJobLimit",
        "QOSMaxGRESPerJob",
        "QOSMaxMemoryPerJob",
        "QOSMaxNodePerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
        "QOSNotAllowed",
    }
)
SENTENCES: Mapping[str, str] = {
    "Priority": "other work of Slurm's goes first",
    "Resources": "its nodes are busy",
    "None": "Slurm has not looked at it yet",
    "BeginTime": "it may not begin yet",
    "Reservation": "a reservation of Slurm's is in its way",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionTimeLimit": "its time limit is longer than the partition allows",
    "JobHeldAdmin": "an administrator holds it in Slurm",
    "JobHeldUser": "it is held in Slurm",
    "ReqNodeNotAvail": "a node that it was placed on is not available",
    "AssocGrpGRES": "Slurm's own limit of GPUs for its account is reached",
    "QOSGrpGRES": "Slurm's own limit of GPUs for its QOS is reached",
    "QOSGrpJobsLimit": "Slurm's own limit of jobs for its QOS is reached",
}

# A script that can't begin, and a command that can't be started, end at once. What the job's user says of its own end
# in the shared folder is believed no further than that: else who ran for a day could say that he never began.
AT_ONCE_S = 60

# What the record of a wish to stop says of why.
STOP_ASKED, TAKEN_BACK, HOPELESS = "asked", "taken back", "hopeless"


def waits_for(record: JobRecord) -> str:
    """Why Slurm has not started it, as a sentence."""
    word = _word(record) or "None"
    known = SENTENCES.get(word)
    return f"Slurm says {word}: {known}." if known else f"Slurm says {word}."


def unbegun(wish: Mapping[str, str]) -> tuple[Cause, str]:
    """The cause, and its sentence, of one that was called back before it ran."""
    match wish["why"]:
        case str(why) if why == TAKEN_BACK:
            return Cause.NOT_TAKEN, wish["detail"]
        case str(why) if why == HOPELESS:
            return Cause.NOT_STARTED, wish["detail"]
    return Cause.STOPPED, "The job was stopped before it had begun."


def is_hopeless(record: JobRecord) -> bool:
    return _word(record) in NEVER


def _word(record: JobRecord) -> str:
    return record.reason.split(",")[0].strip("() ")


def ran(record: JobRecord, start: Mapping[str, str] | None) -> bool:
    """Whether it held its nodes at all: Slurm dates the start of what was cancelled while it waited with its end."""
    return start is not None or (record.started is not None and record.started != record.ended)


def was_started_anew(record: JobRecord, ended_at: float) -> bool:
    """Whether this is a job that began after the attempt's own process had ended: then the claim has ended it at once.

    A record that stands for longer is the attempt's, whatever was written beside it.
    """
    return record.started is not None and ended_at < record.started and _lasted(record) <= AT_ONCE_S


def of(
    attempt: UUID,
    record: JobRecord,
    start: Mapping[str, str] | None,
    end: Mapping[str, str] | None,
    wish: Mapping[str, str] | None,
    said: str,
) -> Sight:
    """The end of an attempt by Slurm's record of its job and by what its own process left: its first record, its last,
    and the wish to stop it, each None where there is none. `said` is the last line that Slurm's script itself printed.
    """
    cause, detail = _cause(record, start, _sound(end), wish, said)
    # By Slurm's clock, so that the bill says what sacct says. A command that could not be started used nothing.
    used = ran(record, start) and (cause is not Cause.NOT_STARTED or _lasted(record) > AT_ONCE_S)
    began = record.started if used else None
    own = end if end is not None and cause.name == end.get("cause") else {}
    return Sight(
        attempt,
        Phase.ENDED,
        started_at=None if began is None else float(began),
        ended_at=float(record.ended or record.started or record.submitted),
        cause=cause,
        exit_code=_number(own.get("exit_code", "")),
        signal=_number(own.get("signal", "")) or (SIGKILL if cause is Cause.SIGNALLED else None),
        detail=detail,
    )


def _cause(
    record: JobRecord,
    start: Mapping[str, str] | None,
    end: Mapping[str, str] | None,
    wish: Mapping[str, str] | None,
    said: str,
) -> tuple[Cause, str]:
    where = ", ".join(record.nodes[:4]) or "its node"
    if wish is not None and not ran(record, start):
        return unbegun(wish)
    match record.state:
        case State.TIMEOUT | State.DEADLINE:
            return Cause.TIME_LIMIT, "Slurm ended the job at its time limit."
        case State.OUT_OF_MEMORY:
            return Cause.MEMORY_LIMIT, "Slurm ended the job at its memory limit."
        case State.NODE_FAIL | State.BOOT_FAIL:
            return Cause.LOST, f"{where} failed while the job ran."
        case State.PREEMPTED if wish is None:
            return Cause.PREEMPTED, "Slurm ended the job for other work, by rules of its own."
        case State.CANCELLED if wish is None:
            return Cause.ENDED_OUTSIDE, "The job was cancelled in Slurm, not by Haein."
        case State.CANCELLED | State.PREEMPTED:
            return Cause.STOPPED, "The job was stopped."
    if end is not None and (end["cause"] != Cause.LOST.name or start is None):
        return Cause[end["cause"]], end["detail"]
    if start is None and _lasted(record) <= AT_ONCE_S:
        return Cause.LOST, f"The job's script could not begin on {where}{f': {said}' if said else ''}."[:300]
    # The node is well, as Slurm says, so it is no fault of the operator's.
    why = "if nobody ended it, the job had used more memory than there is"
    return Cause.SIGNALLED, f"The process that looks after the job on {where} was killed: {why}."


def _lasted(record: JobRecord) -> int:
    """Seconds that it held its nodes."""
    return (record.ended or 0) - record.started if record.started is not None else 0


def _sound(end: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The last record, if it is one: the job's own user writes it."""
    if end is None or end.get("cause") not in Cause.__members__ or "detail" not in end:
        return None
    return end


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 4 else None
