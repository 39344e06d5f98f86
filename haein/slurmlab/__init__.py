"""A real Slurm on this machine alone, for tests, demonstrations and benchmarks; imports nothing of ours."""

from haein.slurmlab.lab import Lab, LabFailed

__all__ = ["Lab", "LabFailed"]
