"""The ways to a lab's Slurm, and jobs handed to it by them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner
from haein.cluster.backends.slurm.gateway import Gateway
from haein.cluster.backends.slurm.records import JobRecord, State, Submission
from haein.cluster.backends.slurm.rest import RestGateway
from haein.cluster.backends.slurm.tokens import MintedTokens
from haein.slurmlab import Lab
from tests.house import until

# As root, jobs run as somebody else.
ANOTHER = "nobody" if os.geteuid() == 0 else ""
RUNS_AS = pwd.getpwnam(ANOTHER) if ANOTHER else pwd.getpwuid(os.geteuid())


def commands(lab: Lab) -> CommandGateway:
    return CommandGateway(LocalRunner(lab.conf))


def rest(lab: Lab) -> RestGateway:
    return RestGateway(lab.rest_url, MintedTokens(lab.jwt_key, lab.user))


def submission(lab: Lab, name: str, script: str, **changes: Any) -> Submission:
    words: dict[str, Any] = {
        "comment": f"of {name}",
        "script": f"#!/bin/sh\n{script}\n",
        "folder": "/",
        "output": "/dev/null",
        "nodes": ("node001",),
        "cpus": 2,
        "memory_mb": 500,
        "time_limit_min": 10,
        "user": ANOTHER,
    }
    return Submission(name=name, **(words | changes))


def record(gateway: Gateway, number: int) -> JobRecord:
    return next(job for job in gateway.jobs() if job.id == number)


def ended(gateway: Gateway, number: int) -> JobRecord:
    return _once(gateway, number, "is over", lambda job: job.state.is_over)


def running(gateway: Gateway, number: int) -> JobRecord:
    return _once(gateway, number, "runs", lambda job: job.state is State.RUNNING)


def _once(gateway: Gateway, number: int, what: str, is_so: Callable[[JobRecord], bool]) -> JobRecord:
    def look() -> list[JobRecord]:
        return [job for job in gateway.jobs() if job.id == number and is_so(job)]

    return until(look, f"job {number} {what}")[0]


def open_folder(path: Path) -> Path:
    """One that jobs of another user may write into."""
    path.mkdir()
    path.chmod(0o777)
    return path
