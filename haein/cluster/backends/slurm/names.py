"""How Haein's own words are written where Slurm keeps them."""

from __future__ import annotations

from uuid import UUID

from haein.cluster.backends.base import SliceGrant

PREFIX = "haein-"
# Where a drain of ours is told from others'.
DRAIN_MARK = "haein: "


def job_name(attempt: UUID) -> str:
    """The name of the attempt's Slurm job: its identity, since slurmctld hands ids out twice after a crash."""
    return f"{PREFIX}{attempt}"


def attempt_of(name: str) -> UUID | None:
    """The attempt whose Slurm job has this name; None for a job that is not ours."""
    if not name.startswith(PREFIX):
        return None
    try:
        return UUID(name.removeprefix(PREFIX))
    except ValueError:
        return None


def whole_device(node: str, kind: str, index: int) -> str:
    """Our name for a GPU of a node: `kind` is the type that gres.conf gives it ("" for none), `index` counts within."""
    return f"slurm:{node}:{kind}:{index}"


def carved_device(node: str, index: int) -> str:
    """Our name for a GPU that is there as MIG instances alone."""
    return f"slurm:{node}:/mig:{index}"


def kind_of(grant: SliceGrant) -> str:
    """The type by which Slurm must be asked for the slice."""
    return grant.profile or grant.device_uuid.split(":")[2]
