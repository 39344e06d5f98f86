"""What Slurm knows, in nouns that are the same whichever way it was asked.

CPUs are whole ones as Slurm counts them, memory is MiB, times are whole seconds since the epoch (Slurm's grain).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field


class State(enum.Enum):
    """A job's base state, by the name that every tool of Slurm prints (man squeue, "JOB STATE CODES")."""

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    REVOKED = "REVOKED"

    # Kept, for it is asked of thousands of jobs at once, and to look an enum's member up in a set runs Python code.
    @functools.cached_property
    def is_over(self) -> bool:
        """Whether its run has come to its end, and its nodes are free again."""
        return self not in WAITING and self not in HOLDING


WAITING = frozenset({State.PENDING, State.REVOKED})
# It holds its nodes until it has left these.
HOLDING = frozenset({State.CONFIGURING, State.RUNNING, State.SUSPENDED, State.STOPPED, State.COMPLETING})


@dataclass(frozen=True, slots=True)
class Gres:
    """Generic resources of one kind: "gpu:b200:2(IDX:0-1)" is Gres("gpu", "b200", 2, (0, 1)). `indices` count through
    the node's devices of that kind, in the order of gres.conf; empty where nobody says which."""

    name: str
    type: str
    count: int
    indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node. `states` are Slurm's words without its suffixes ("IDLE", "DRAIN", "DOWN", "NOT_RESPONDING" ...)."""

    name: str
    cpus: int
    memory_mb: int
    gres: tuple[Gres, ...]
    features: tuple[str, ...]
    partitions: tuple[str, ...]
    states: frozenset[str]
    reason: str = ""
    reason_by: str = ""


@dataclass(frozen=True, slots=True)
class ReservationRecord:
    """A reservation of Slurm's own, from `starts` to `ends`. `nodes` are names, expanded."""

    name: str
    starts: int
    ends: int
    nodes: tuple[str, ...]
    users: tuple[str, ...]
    accounts: tuple[str, ...]
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as squeue or sacct tell of it. `id` alone is no identity: ids are handed out again after a crash and wrap.

    `reason` is Slurm's word for why it waits; `exit_code` and `signal` are of the batch script (sacct's "3:9").
    `suspended_s` is how long it stood still, where that is told. `restarts` counts requeues under the same id.
    """

    id: int
    name: str
    state: State
    user: str
    account: str
    partition: str
    submitted: int
    started: int | None
    ended: int | None
    nodes: tuple[str, ...]
    cpus: int
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    comment: str = ""
    suspended_s: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """What one job holds on one node: whole CPUs, MiB, and generic resources with their indices."""

    node: str
    cpus: int
    memory_mb: int
    gres: tuple[Gres, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """What is handed to Slurm: the batch script and how it is to be run. `time_limit_min` and `memory_mb` (a node),
    `cpus` and `gres` ("gpu:b200:2", never without the type) are for each of the `nodes`. Empty words are left out."""

    name: str
    comment: str
    script: str
    folder: str
    output: str
    nodes: tuple[str, ...]
    cpus: int
    memory_mb: int
    time_limit_min: int
    gres: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def really_ran(
    state: State, nodes: tuple[str, ...], started: int | None, ended: int | None
) -> tuple[int | None, int | None]:
    """(begin, end) of a job's run by the times that slurmctld gives, None for what has not come: of one that waits it
    gives the expected start, of one that runs the end that its time limit makes, and of one that was cancelled before
    it had any nodes the cancel as its start."""
    begun = None if not nodes or state in WAITING else started
    return begun, ended if state.is_over or state is State.COMPLETING else None
