"""What Slurm's error numbers and messages (slurm_errno.h, slurm_strerror) mean to whom they stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused

# By number: Slurm's own message, by which its commands tell the same thing, and the sentence for a job's owner.
_REFUSALS = {
    2000: ("Invalid partition name specified", "Slurm has no such partition."),
    2001: ("No partition specified or system default partition", "Slurm has no default partition, and none was named."),
    2002: ("Access/permission denied", "Slurm does not permit this to the user that Haein acts for."),
    2003: ("User's group not permitted to use this partition", "Slurm keeps this partition for other groups of users."),
    2004: ("Requested nodes not in this partition", "The nodes that were chosen are not in this partition of Slurm."),
    2006: ("Node count specification invalid", "The partition of Slurm does not give that many nodes to one job."),
    2009: ("Job script not specified", "Slurm got no script to run."),
    2010: ("Invalid user id", "Slurm does not know the user that the job should run as."),
    2014: (
        "Requested node configuration is not available",
        "No node of Slurm's has what the job asks for: so many GPUs of the type, cores and so much memory.",
    ),
    2015: (
        "Requested partition configuration not available now",
        "The partition of Slurm can't take a job of this size or length now.",
    ),
    2016: ("Requested nodes are busy", "The nodes are busy with other work."),
    2017: ("Invalid job id specified", "Slurm does not know this job any more."),
    2018: ("Invalid node name specified", "Slurm has no node of this name."),
    2021: ("Job/step already completing or completed", "The job has ended in Slurm already."),
    2028: ("Invalid node state specified", "Slurm can't bring the node into this state from the one that it is in."),
    2029: ("Invalid feature specification", "No node of Slurm's has the feature that was asked for."),
    2037: ("Requested operation is presently disabled", "Slurm does not do this for the job as it was submitted."),
    2044: ("Memory required by task is not available", "No node of Slurm's has that much memory for a job."),
    2045: (
        "Invalid account or account/partition combination specified",
        "Slurm has no account under which the user may run this job in this partition.",
    ),
    2050: (
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "A limit that Slurm keeps for the account or the QOS does not let a job of this size or length in.",
    ),
    2051: (
        "Requested time limit is invalid (missing or exceeds some limit)",
        "The time limit is longer than the partition of Slurm allows.",
    ),
    2052: ("Access denied to requested reservation", "The reservation in Slurm is kept for others."),
    2053: ("Requested reservation is invalid", "Slurm has no such reservation, or it does not cover the nodes."),
    2056: ("Requested reservation not usable now", "The reservation in Slurm has not begun, or is over."),
    2066: ("Invalid qos specification", "Slurm has no such QOS, or does not permit it to the account."),
    2068: (
        "Required node not available (down, drained or reserved)",
        "A node that the job needs is down, drained or reserved in Slurm.",
    ),
    2069: ("CPU count specification invalid", "Slurm can't give that many cores to one worker."),
    2070: ("Required partition not available (inactive or drain)", "The partition of Slurm takes no work now."),
    2072: ("Invalid generic resource (gres) specification", "Slurm does not know the kind of GPU that was asked for."),
    2101: ("Partition in DOWN state", "The partition of Slurm is down."),
    2105: ("System submissions disabled", "Slurm takes no new jobs now."),
    2113: ("Invalid group id", "Slurm does not know the group that the job should run as."),
    2115: (
        "Invalid Trackable RESource (TRES) specification",
        "Slurm does not know the kind of GPU that was asked for.",
    ),
}
_NUMBERS = {message: number for number, (message, _) in _REFUSALS.items()}
_SENTENCES = {number: sentence for number, (_, sentence) in _REFUSALS.items()}

# It could not be asked, or is in no state to answer: 1000-1999 and 5000-5999 are its communication's, 7000 and 7008 the
# database's, 2007 and 2019 come from a full spool or a full table of jobs.
_DOWN_NUMBERS = frozenset({2007, 2019, 2026, 2027, 2090, 2131, 7000, 7008})
_DOWN_WORDS = (
    "Unable to contact slurm controller",
    "Unable to create job record",
    "I/O error writing script",
    "Slurm temporarily unable to accept job",
    "Slurm backup controller in standby",
    "Controller is in standby mode",
    "internal error, contact system administrator",
    "Error generating job credential",
    "connection failure",
    "Connection refused",
    "Connection timed out",
    "No route to host",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Message send failure",
    "Message receive failure",
    "Unexpected message received",
    "Incompatible versions",
    "Protocol authentication error",
    "Munge encode failed",
    "Munge decode failed",
    "Unable to process configuration file",
    "Unable to establish configuration source",
    "Unable to connect to database",
    "Problem talking to the database",
    "Database connection reference is invalid",
    "Transport endpoint is not connected",
    "Resource temporarily unavailable",
)


def fault(number: int, message: str, asked: str) -> SlurmDown | SlurmRefused:
    """What to raise for Slurm's error: `number` where it told one, else 0; `message` in its words; `asked` says
    who was asked, as a sentence begins with it ("squeue", "slurmrestd")."""
    if number in _DOWN_NUMBERS or 1000 <= number < 2000 or 5000 <= number < 6000 or _says_down(message):
        return SlurmDown(f"{asked} says that Slurm can't be asked now: {message.rstrip('.')}.")
    number = number or _number(message)
    sentence = _SENTENCES.get(number)
    if sentence is None:
        return SlurmRefused(f"Slurm refused: {message.rstrip('.')}.", number)
    return SlurmRefused(f"{sentence} (Slurm: {message.rstrip('.')}.)", number)


@contextmanager
def understood(asked: str) -> Iterator[None]:
    """Around the reading of an answer: raises SlurmDown where a Slurm yet unknown has it in another form."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise SlurmDown(f"{asked} wrote what Haein can't read ({type(fault).__name__}: {fault}).") from fault


def _says_down(message: str) -> bool:
    return any(words in message for words in _DOWN_WORDS)


def _number(message: str) -> int:
    # A command tells the same error in front of and after words of its own.
    return next((number for words, number in _NUMBERS.items() if words in message), 0)
