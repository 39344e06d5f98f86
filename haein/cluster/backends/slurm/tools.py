"""Asks the tools that an administrator of Slurm works with (sacctmgr, sacct, scontrol)."""

from __future__ import annotations

from collections.abc import Mapping

from haein.cluster.backends.slurm import refusals
from haein.cluster.backends.slurm.commands import Runner

# What sacctmgr says, and ends with 1, where everything is as it was asked to be.
_NOTHING = ("Nothing new added", "Nothing modified", "Nothing deleted")


def ask(runner: Runner, *words: str) -> str:
    """What the tool prints; times are UTC, in what it is told too. Raises SlurmRefused with its own words, SlurmDown
    where Slurm can't be asked."""
    outcome = runner.run(words, environment={"TZ": "UTC0", "LC_ALL": "C.UTF-8"})
    said = " ".join(f"{outcome.err} {outcome.out}".split())
    if outcome.code == 0 or any(word in said for word in _NOTHING):
        return outcome.out
    raise refusals.fault(0, said or f"exit code {outcome.code}", words[0])


def config(runner: Runner) -> Mapping[str, str]:
    """What slurmctld is set to, by name."""
    lines = (line.split("=", 1) for line in ask(runner, "scontrol", "show", "config").splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in lines}
