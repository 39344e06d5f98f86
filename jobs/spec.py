"""What may be asked for: one shape for every door, checked in one place, each fault named by its field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from django.utils.translation import gettext as _

from haein.lib.errors import Invalid
from haein.placement import mig
from jobs import indexes

MOST_GPUS = 64
MOST_WORKERS = 1024
MOST_GPU_MEMORY_MB = 4 << 20
MOST_CPUS = 1_024_000
MOST_MEMORY_MB = 16 << 20
MOST_TIME_S = 90 * 86_400
_NAME = re.compile(r"[^\x00-\x1f\x7f]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG = re.compile(r"[\w.:/-]+")
_LABEL = re.compile(r"[\w.:/=-]+")
_MODEL = re.compile(r"[\w .:/|-]+")


class Near(StrEnum):
    """How near each other a gang's workers are best. A node is one NVLink domain."""

    NODE = "node"
    RACK = "rack"
    POD = "pod"
    ANY = "any"


class Preemption(StrEnum):
    """Whether others may take a job's place: priority says who goes first, not who yields."""

    NEVER = "never"  # it starts only where nobody can reclaim its room
    ALLOWED = "allowed"  # while it is on borrowed room
    SPOT = "spot"  # it is always on borrowed room, and the first to go


@dataclass(frozen=True, slots=True)
class Spec:
    """A job as asked for. `share` in thousandths of each GPU, `cpus` in thousandths of a core, `memory_mb` in MiB.

    `gpus` are slices of one kind: whole devices, shares of them with `gpu_memory_mb` of their memory (0: as large a
    share of it), or instances of a MIG `profile`. All of it is for each of `workers`, which start together or not at
    all, as `near` each other as can be, or not at all where that is required. Of a `gpu_model` ("A|B": of either), in a
    `pool`, on nodes with all the `labels`; empty means any. `preemption`, `checkpoints` and `requeue` say
    whether others may take its place, that it saves its work when signalled, that it waits again afterwards.
    With an `array` ("0-9") it is as many jobs, which differ by their index; empty: one job without an index.
    """

    name: str
    command: str
    environment: str = "python"
    variables: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 1
    share: int = 1000
    gpu_memory_mb: int = 0
    profile: str = ""
    gpu_model: str = ""
    cpus: int = 1000
    memory_mb: int = 2048
    workers: int = 1
    near: str = Near.ANY
    near_required: bool = False
    pool: str = ""
    labels: Sequence[str] = ()
    time_limit_s: int = 3600
    retries: int = 0
    priority: int = 0
    preemption: str = Preemption.ALLOWED
    checkpoints: bool = False
    requeue: bool = True
    tags: Sequence[str] = ()
    array: str = ""

    @property
    def jobs(self) -> int:
        """How many jobs it makes, once it was checked."""
        return len(indexes.read(self.array)) or 1

    def check(self) -> None:
        """Raises Invalid with a sentence for every field that is wrong."""
        faults = {name: fault for name, fault in self._faults() if fault}
        if faults:
            raise Invalid(faults)

    def slice_faults(self) -> dict[str, str]:
        """What is wrong with what it asks of the cluster, by field."""
        return {name: fault for name, fault in self._slice() if fault}

    def _faults(self) -> Sequence[tuple[str, str]]:
        return [
            ("name", self._name()),
            ("command", self._command()),
            ("variables", self._variables()),
            *self._slice(),
            ("time_limit_s", _between(self.time_limit_s, 1, MOST_TIME_S, _("seconds"))),
            ("retries", _between(self.retries, 0, 20, _("retries"))),
            ("priority", _between(self.priority, -100, 100, _("points of priority"))),
            ("preemption", self._preemption()),
            ("tags", self._tags()),
            ("array", self._array()),
        ]

    def _slice(self) -> Sequence[tuple[str, str]]:
        return [
            ("gpus", _between(self.gpus, 0, MOST_GPUS, _("GPUs"))),
            ("share", self._share()),
            ("gpu_memory_mb", self._gpu_memory()),
            ("profile", self._profile()),
            ("gpu_model", self._gpu_model()),
            ("workers", _between(self.workers, 1, MOST_WORKERS, _("workers"))),
            ("near", self._near()),
            ("pool", self._pool()),
            ("labels", self._labels()),
            ("cpus", _between(self.cpus, 100, MOST_CPUS, _("thousandths of a CPU core"))),
            ("memory_mb", _between(self.memory_mb, 64, MOST_MEMORY_MB, _("MiB of memory"))),
        ]

    def _name(self) -> str:
        if not self.name.strip():
            return _("Give the job a name, so that you find it again.")
        if len(self.name) > 120 or not _NAME.fullmatch(self.name):
            return _("A name has at most 120 characters, none of them a line break.")
        return ""

    def _command(self) -> str:
        if not self.command.strip():
            return _("Say what to run, for example: python train.py")
        if len(self.command) > 20_000 or "\x00" in self.command:
            return _("A command has at most 20,000 characters. Put the rest in a file and upload it.")
        return ""

    def _variables(self) -> str:
        for name, value in self.variables.items():
            if not _VARIABLE.fullmatch(name):
                return _("“%(name)s” can't name a variable: use letters, digits and _, and begin with no digit.") % {
                    "name": name
                }
            if name.startswith("HAEIN_"):
                return _("%(name)s: names that begin with HAEIN_ are set by Haein. Choose another.") % {"name": name}
            if "\x00" in value or len(value) > 10_000:
                return _("%(name)s: a value has at most 10,000 characters.") % {"name": name}
        return _("At most 200 variables.") if len(self.variables) > 200 else ""

    def _share(self) -> str:
        if self.profile and self.share != 1000:
            return _("A MIG instance has the share of its profile: ask for a profile or for a share, not for both.")
        return _between(self.share, 1, 1000, _("thousandths of a GPU"))

    def _gpu_memory(self) -> str:
        if not self.gpu_memory_mb:
            return ""
        if self.profile:
            return _("A MIG instance has the memory of its profile: leave this out.")
        if self.share == 1000:
            return _("A whole GPU comes with all its memory: leave this out, or ask for a smaller share.")
        return _between(self.gpu_memory_mb, 1, MOST_GPU_MEMORY_MB, _("MiB of GPU memory"))

    def _profile(self) -> str:
        if not self.profile or self.profile in mig.NAMES:
            return _("A profile is a slice of a GPU: ask for at least one.") if self.profile and not self.gpus else ""
        return _("There is no MIG profile “%(profile)s”. There are: %(profiles)s.") % {
            "profile": self.profile,
            "profiles": ", ".join(sorted(mig.NAMES)),
        }

    def _gpu_model(self) -> str:
        if not self.gpu_model or (len(self.gpu_model) <= 80 and _MODEL.fullmatch(self.gpu_model)):
            return ""
        return _("A GPU model is named as the cluster's page names it, for example B200; two of them as H100|H200.")

    def _near(self) -> str:
        if self.near not in set(Near):
            return _("Workers can be near each other as: %(choices)s.") % {"choices": ", ".join(Near)}
        return ""

    def _pool(self) -> str:
        if not self.pool or (len(self.pool) <= 60 and _TAG.fullmatch(self.pool)):
            return ""
        return _("A pool's name has at most 60 letters, digits, or any of . : / _ -")

    def _labels(self) -> str:
        if len(self.labels) > 20:
            return _("At most 20 labels.")
        wrong = next((label for label in self.labels if len(label) > 60 or not _LABEL.fullmatch(label)), None)
        if wrong is None:
            return ""
        return _("“%(label)s”: a label has at most 60 letters, digits, or any of . : / = _ -") % {"label": wrong}

    def _preemption(self) -> str:
        if self.preemption in set(Preemption):
            return ""
        return _("A job's place may be taken by others: %(choices)s.") % {"choices": ", ".join(Preemption)}

    def _tags(self) -> str:
        if len(self.tags) > 20:
            return _("At most 20 tags.")
        wrong = next((tag for tag in self.tags if len(tag) > 40 or not _TAG.fullmatch(tag)), None)
        if wrong is None:
            return ""
        return _("“%(tag)s”: a tag has at most 40 letters, digits, or any of . : / _ -") % {"tag": wrong}

    def _array(self) -> str:
        try:
            indexes.read(self.array)
        except ValueError as fault:
            return str(fault)
        return ""


def _between(value: int, least: int, most: int, unit: str) -> str:
    if least <= value <= most:
        return ""
    return _("From %(least)s to %(most)s %(unit)s.") % {"least": least, "most": most, "unit": unit}
