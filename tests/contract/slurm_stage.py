"""The stage on a real Slurm: jobs run on its nodes, and their files are in a folder that the nodes see."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any

from haein.cluster.backends.base import Launch, SliceGrant
from haein.cluster.backends.slurm.backend import Site, SlurmBackend
from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner
from haein.cluster.backends.slurm.gateway import Gateway
from haein.cluster.backends.slurm.records import HOLDING, WAITING, JobRecord
from haein.slurmlab.lab import Lab

from .stage import Stage, add_python, until

# As root, jobs run as a user who may nothing.
JOBS_USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def data_folder() -> Path:
    """One that the jobs' user may pass through, with an environment that is no more than the system's Python."""
    var = Path(tempfile.mkdtemp(prefix="haein-", dir="/var/tmp"))
    var.chmod(0o755)
    add_python(var)
    return var


class SlurmStage(Stage):
    quick = "echo hello"
    endless = "sleep 600"
    saving = """trap 'touch "$HAEIN_CHECKPOINT"' USR1; while :; do sleep 0.05; done"""

    def __init__(self, lab: Lab, gateway: Gateway | None = None, **site: Any) -> None:
        super().__init__()
        self.var = data_folder()
        self.lab = lab
        self.gateway = gateway or CommandGateway(LocalRunner(lab.conf))
        self.site = Site(self.var, **{"user": JOBS_USER, "emulated": True, **site})
        self.backend = self.slurm = self.another()

    def another(self) -> SlurmBackend:
        """The same cluster as another process sees it."""
        return SlurmBackend(self.gateway, self.site)

    def order(self, command: str, **changes: Any) -> Launch:
        node = self.backend.inventory()[0]
        whole = self.place(SliceGrant(node.devices[0].uuid, 0, 1000))
        return super().order(command, **{"places": (whole,), "memory_mb": 500, **changes})

    def folder(self, launch: Launch) -> Path:
        return self.var / "attempts" / str(launch.attempt_id)

    def number(self, launch: Launch) -> int:
        """The id of its job in Slurm."""
        text = (self.folder(launch) / "submitted").read_text()
        return int(dict(item.split("=", 1) for item in text.split("\0") if item)["slurm_job"])

    def close(self) -> None:
        super().close()
        until(lambda: not any(each.name.startswith("haein-") for each in self.gateway.jobs() if self._is_left(each)))
        shutil.rmtree(self.var)

    def _is_left(self, record: JobRecord) -> bool:
        mine = {f"haein-{attempt}" for attempt in self.launched}
        return record.name in mine and record.state in HOLDING | WAITING
