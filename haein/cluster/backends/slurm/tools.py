"""Runs the tools of Slurm that an administrator works with (sacctmgr, sacct, scontrol), here or over SSH."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused

TIMEOUT_S = 120
# What sacctmgr says, and ends with 1, where everything is as it was asked to be.
_NOTHING = ("Nothing new added", "Nothing modified", "Nothing deleted")
_AWAY = ("Unable to contact", "Connection refused", "Unable to connect", "Problem talking to the database")


@dataclass(frozen=True, slots=True)
class Tools:
    """`conf` is the path of slurm.conf ("" for the tools' own), `ssh` the words of a command that runs what follows it
    on another machine (none: here). Times are UTC in what the tools print and in what they are told."""

    conf: str = ""
    ssh: Sequence[str] = ()

    def run(self, *words: str) -> str:
        """What the tool prints. Raises SlurmRefused with its own words, SlurmDown where Slurm can't be asked."""
        try:
            done = subprocess.run(
                self._command(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except FileNotFoundError as error:
            raise SlurmDown(f"There is no command {error.filename} here: install Slurm's client tools.") from error
        except subprocess.TimeoutExpired as error:
            raise SlurmDown(f"{words[0]} has not answered for {TIMEOUT_S} seconds.") from error
        _judge(words[0], done.returncode, done.stdout, done.stderr)
        return done.stdout

    def lines(self, *words: str) -> Iterator[str]:
        """What the tool prints, line by line as it comes. Raises as run does, at the latest after the last line."""
        try:
            process = subprocess.Popen(
                self._command(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except FileNotFoundError as error:
            raise SlurmDown(f"There is no command {error.filename} here: install Slurm's client tools.") from error
        assert process.stdout
        last = ""
        try:
            for last in process.stdout:
                yield last
        finally:
            process.stdout.close()
            process.wait()
        _judge(words[0], process.returncode, "", last)

    def _command(self, words: Sequence[str]) -> list[str]:
        whole = ["env", "TZ=UTC", *([f"SLURM_CONF={self.conf}"] if self.conf else []), *words]
        return [*self.ssh, shlex.join(whole)] if self.ssh else whole


def _judge(tool: str, code: int, out: str, err: str) -> None:
    said = " ".join(f"{err} {out}".split())
    if code == 0 or any(word in said for word in _NOTHING):
        return
    if any(word in said for word in _AWAY) or code in {127, 255}:
        raise SlurmDown(f"{tool}: {said or 'no answer'}")
    raise SlurmRefused(f"{tool}: {said or f'it ended with {code}'}")
