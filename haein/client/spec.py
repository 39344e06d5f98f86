"""A job as it is asked for, in the API's own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class JobSpec:
    """`share` in thousandths of each GPU, `cpus` in cores, `memory_mb` in MiB, `time_limit_s` in seconds.

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

    def as_json(self) -> dict[str, Any]:
        """The body of POST /jobs."""
        body = {name: getattr(self, name) for name in self.__slots__}
        return body | {"variables": dict(self.variables), "tags": list(self.tags)}
