"""The questions that are asked of Slurm, whichever way: over slurmrestd, by its commands here, or by them over SSH."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence

from haein.cluster.backends.slurm.records import Held, JobRecord, NodeRecord, ReservationRecord, Submission


class SlurmDown(Exception):
    """Slurm can't be asked now: a daemon, a token, a network. The message says which. Nothing is known to have
    changed, but a submission that got no answer may have been accepted."""


class SlurmRefused(Exception):
    """Slurm will not do it. `number` is its error number (slurm_errno.h) where it told one, else 0."""

    def __init__(self, sentence: str, number: int = 0) -> None:
        super().__init__(sentence)
        self.number = number


class Gateway(abc.ABC):
    """Every method raises SlurmDown where Slurm can't be asked, and those that change something SlurmRefused."""

    @abc.abstractmethod
    def nodes(self) -> Sequence[NodeRecord]:
        """Every node, sorted by name."""

    @abc.abstractmethod
    def reservations(self) -> Sequence[ReservationRecord]:
        """Slurm's own reservations that have not ended."""

    @abc.abstractmethod
    def jobs(self) -> Sequence[JobRecord]:
        """Every job that slurmctld knows, those included that ended less than MinJobAge ago, in one call. Elements of a
        pending array are one record."""

    @abc.abstractmethod
    def held(self, ids: Collection[int]) -> Mapping[int, Sequence[Held]]:
        """What each of these running jobs holds, node by node; those that slurmctld does not know are left out."""

    @abc.abstractmethod
    def history(self, names: Collection[str], since: int) -> Sequence[JobRecord] | None:
        """What slurmdbd has on record of jobs of these names submitted since then, every run of each (sacct -D). None
        where the site keeps no accounting. Raises SlurmDown while slurmdbd does not answer."""

    @abc.abstractmethod
    def submit(self, submission: Submission) -> int:
        """The id that Slurm gave it. Raises SlurmRefused with Slurm's sentence; after SlurmDown look for its name
        before submitting again."""

    @abc.abstractmethod
    def cancel(self, ids: Collection[int]) -> None:
        """End these jobs as scancel does; those that have ended, or are not known, are left alone."""

    @abc.abstractmethod
    def set_drained(self, node: str, reason: str) -> None:
        """Place nothing more on the node."""

    @abc.abstractmethod
    def set_resumed(self, node: str) -> None:
        """Take a drain of the node back."""
