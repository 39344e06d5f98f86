"""What may be asked for: one shape for every door, checked in one place, each fault named by its field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from django.utils.translation import gettext as _

from haein.lib.errors import Invalid

MOST_GPUS = 64
MOST_CPUS = 1_024_000
MOST_MEMORY_MB = 16 << 20
MOST_TIME_S = 90 * 86_400
_NAME = re.compile(r"[^\x00-\x1f\x7f]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True, slots=True)
class Spec:
    """A job as asked for. `share` in thousandths of each GPU, `cpus` in thousandths of a core, `memory_mb` in MiB."""

    name: str
    command: str
    environment: str = "python"
    variables: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 1
    share: int = 1000
    cpus: int = 1000
    memory_mb: int = 2048
    time_limit_s: int = 3600
    retries: int = 0
    priority: int = 0
    tags: Sequence[str] = ()

    def check(self) -> None:
        """Raises Invalid with a sentence for every field that is wrong."""
        faults = {name: fault for name, fault in self._faults() if fault}
        if faults:
            raise Invalid(faults)

    def _faults(self) -> Sequence[tuple[str, str]]:
        return [
            ("name", self._name()),
            ("command", self._command()),
            ("variables", self._variables()),
            ("gpus", _between(self.gpus, 0, MOST_GPUS, _("GPUs"))),
            ("share", _between(self.share, 1, 1000, _("thousandths of a GPU"))),
            ("cpus", _between(self.cpus, 100, MOST_CPUS, _("thousandths of a CPU core"))),
            ("memory_mb", _between(self.memory_mb, 64, MOST_MEMORY_MB, _("MiB of memory"))),
            ("time_limit_s", _between(self.time_limit_s, 1, MOST_TIME_S, _("seconds"))),
            ("retries", _between(self.retries, 0, 20, _("retries"))),
            ("priority", _between(self.priority, -100, 100, _("points of priority"))),
            ("tags", self._tags()),
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

    def _tags(self) -> str:
        if len(self.tags) > 20:
            return _("At most 20 tags.")
        wrong = next((tag for tag in self.tags if len(tag) > 40 or not _TAG.fullmatch(tag)), None)
        if wrong is None:
            return ""
        return _("“%(tag)s”: a tag has at most 40 letters, digits, or any of . : / _ -") % {"tag": wrong}


def _between(value: int, least: int, most: int, unit: str) -> str:
    if least <= value <= most:
        return ""
    return _("From %(least)s to %(most)s %(unit)s.") % {"least": least, "most": most, "unit": unit}
