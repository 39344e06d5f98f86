"""A job as it is asked for, in the API's own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Fields that a server of 0.2.0 or 0.3.0 refuses as unknown, with what asks for nothing: then they are not sent.
_NEWER: Mapping[str, Any] = {
    "gpu_memory_mb": 0, "profile": "", "gpu_model": "", "workers": 1, "near": "any", "near_required": False, "pool": "",
    "labels": [], "preemption": "allowed", "checkpoints": False, "requeue": True, "array": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobSpec:
    """`share` in thousandths of each GPU, `cpus` in cores, `memory_mb` in MiB, `time_limit_s` in seconds.

    `gpus`, `cpus` and `memory_mb` are for each of `workers`, which start together or not at all: `near` each other
    ("node", "rack" or "pod") as far as can be, or nowhere else where that is required. `gpus` are whole devices,
    shares of them with `gpu_memory_mb` MiB of their memory each (0: as large a part of it as of the device), or
    instances of a MIG `profile` such as "1g.23gb". `gpu_model` ("B200", or "H100|H200" for either), `pool` and `labels`
    say where.

    `preemption` says whether others may take its place: "allowed" while it is on borrowed GPUs, "never" (it starts only
    where nobody can reclaim them), "spot" (always borrowed, the first to go). One that `checkpoints` saves its work on
    SIGUSR1 and then touches the file named in HAEIN_CHECKPOINT; without `requeue` it ends when it had to yield.

    With an `array` ("0-9", "1,3,7", "0-30:10") it is a job for each index, which HAEIN_ARRAY_INDEX tells it.

    `upload` is the id of files that were uploaded before; `Client.submit(spec, files=...)` fills it in. The server
    checks every field, and `Client.submit` raises Invalid with a sentence for each that is wrong.
    """

    name: str
    command: str
    environment: str = "python"
    variables: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 1
    share: int = 1000
    cpus: float = 1
    memory_mb: int = 2048
    time_limit_s: int = 3600
    retries: int = 0
    priority: int = 0
    tags: Sequence[str] = ()
    upload: str | None = None
    cloned_from: str | None = None
    gpu_memory_mb: int = 0
    profile: str = ""
    gpu_model: str = ""
    workers: int = 1
    near: str = "any"
    near_required: bool = False
    pool: str = ""
    labels: Sequence[str] = ()
    preemption: str = "allowed"
    checkpoints: bool = False
    requeue: bool = True
    array: str = ""

    def as_json(self) -> dict[str, Any]:
        """The body of POST /jobs."""
        body = {name: getattr(self, name) for name in self.__slots__}
        body |= {"variables": dict(self.variables), "tags": list(self.tags), "labels": list(self.labels)}
        return {name: value for name, value in body.items() if name not in _NEWER or value != _NEWER[name]}
