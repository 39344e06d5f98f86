"""A job of an array on a real Slurm: it is no array of Slurm's, and finds its index where Slurm's users look for it."""

from __future__ import annotations

from haein.cluster.backends.base import Cause
from haein.lib import ids
from haein.slurmlab.lab import Lab
from jobs import arrays
from jobs.models import Job
from tests.contract.slurm_stage import SlurmStage

SAY = 'echo "$HAEIN_ARRAY_INDEX of $HAEIN_ARRAY_SIZE, $SLURM_ARRAY_TASK_ID, $HAEIN_ARRAY_ID"'


def test_a_member_finds_its_index_on_its_node(slurm: Lab) -> None:
    stage, array = SlurmStage(slurm), ids.new()
    try:
        variables = arrays.variables(Job(array=array, array_index=4), {array: 9})
        launch = stage.begin(SAY, variables=variables)
        assert stage.end_of(launch).cause is Cause.EXITED
        assert stage.said(launch) == [f"4 of 9, 4, {array}"]
    finally:
        stage.close()
