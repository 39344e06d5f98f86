"""The process on the node that looks after an attempt: started by the batch script, the parent of what the job runs.

It does what the runner of a local attempt does (haein/cluster/backends/local/tending.py), in the foreground, since
Slurm watches it. Before anything it claims the attempt: of two Slurm jobs with one attempt (a submission whose answer
was lost, a job that slurmctld forgot and that ran nevertheless) only one runs the command.

Run as `python3 -I -S -E agent.py <attempt folder>`; the standard library is all it has.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import sys
import time

sys.path.append(os.path.abspath(__file__ + "/../../../../.."))

from haein.cluster.backends.local import landlock, records, scratch, tending
from haein.cluster.backends.local.orders import Order, from_pairs

CLAIM = "claim"
# Slurm's own, for the job to see; what the user set himself stays his.
FROM_SLURM = ("SLURM_", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL")
IDENTITY = ("USER", "LOGNAME")


class SlurmRun(tending.Run):
    """A run in Slurm: one process here, or as many over the job's nodes as it has workers, by srun."""

    def __init__(self, folder: str, order: Order, more: dict[str, str]) -> None:
        super().__init__(folder, order)
        self._is_gang = int(more["workers"]) > 1

    def _start_record(self, started_at: float) -> records.Pairs:
        return [*super()._start_record(started_at), ("slurm_job", os.environ.get("SLURM_JOB_ID", ""))]

    def _pass_on_save(self) -> None:
        # srun would signal every process of its step: in a gang each worker finds the wish itself.
        if not self._is_gang:
            super()._pass_on_save()

    @property
    def exit_code(self) -> int:
        """For Slurm's own record: the command's, or 128 + the signal that ended it."""
        code, number = tending.exit_of(self._main_status)
        if code is not None:
            return code
        return 128 + number if number else 1


def main(folder: str) -> int:
    os.umask(0o027)
    os.chdir("/")
    if not claim(folder):
        say(f"The attempt of {folder} has begun in another Slurm job; this one leaves it alone.")
        return 0
    pairs = records.read_pairs(folder, records.ORDER)
    if pairs is None:
        say(f"There is no order in {folder}.")
        return 1
    order, more = from_pairs(pairs), dict(pairs)
    lock = records.hold(folder)
    ctypes.CDLL(None).prctl(tending.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    held = devices_here(pairs)
    order.devices = " ".join(held)
    order.variable = [*with_slurms(order.variable, held), f"HAEIN_NODES={','.join(nodes_of(pairs))}"]
    abi = landlock.abi()
    if not abi and int(more["must_confine"]):
        return refuse(folder, "This node's kernel has no Landlock, which keeps the job from Haein's own files.")
    if int(more["workers"]) > 1:
        # srun must reach Slurm, so it runs free, and each worker confines itself.
        order.landlock = 0
        order.command, order.variable = srun(folder, more), [*order.variable, *with_master(pairs)]
    elif not abi:
        order.landlock = 0
    run = SlurmRun(folder, order, more)
    run.start()
    run.watch()
    run.record_end()
    scratch.remove(order.scratch)
    if lock is not None:
        os.close(lock)
    return run.exit_code


def say(sentence: str) -> None:
    """To the script's own output, which Slurm keeps."""
    os.write(2, f"{sentence}\n".encode())


def claim(folder: str) -> bool:
    """Whether this Slurm job is the one that runs the attempt: link(2) gives a name once, on NFS too."""
    mine = [("slurm_job", os.environ.get("SLURM_JOB_ID", "")), ("at", f"{time.time():.6f}")]
    return records.claim(folder, CLAIM, records.write_aside(folder, CLAIM, mine, durable=True))


def refuse(folder: str, sentence: str) -> int:
    now = f"{time.time():.6f}"
    record = [("started_at", ""), ("ended_at", now), ("cause", "LOST"), ("exit_code", ""), ("signal", "")]
    records.replace(folder, records.EXIT, [*record, ("detail", sentence)], durable=True)
    return 1


def units_by_node(pairs: records.Pairs) -> dict[str, list[str]]:
    """By node our names of its GPUs, in Slurm's order."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name == "unit":
            node, _, listed = value.partition("=")
            found[node] = listed.split(",") if listed else []
    return found


def nodes_of(pairs: records.Pairs) -> list[str]:
    return list(units_by_node(pairs))


def devices_here(pairs: records.Pairs) -> list[str]:
    """Our names of the devices that Slurm gave this node's part of the job."""
    units = units_by_node(pairs).get(os.environ.get("SLURMD_NODENAME", ""), [])
    names = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES")
    given = next((os.environ[name] for name in names if os.environ.get(name)), "")
    return [units[int(index)] for index in given.split(",") if index.isdigit() and int(index) < len(units)]


def with_slurms(variables: list[str], held: list[str]) -> list[str]:
    """The job's variables with those that Slurm made on this node."""
    own = [f"{name}={os.environ[name]}" for name in IDENTITY if name in os.environ]
    own += [f"{name}={value}" for name, value in os.environ.items() if name.startswith(FROM_SLURM)]
    return [*variables, *own, f"HAEIN_DEVICES={','.join(held)}"]


def with_master(pairs: records.Pairs) -> list[str]:
    """Where the workers of a gang meet, by the names that torch.distributed and its like look for."""
    first = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or os.environ.get("SLURMD_NODENAME") or nodes_of(pairs)[0]
    port = 20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10000
    own = [f"{name}={os.environ[name]}" for name in ("SLURM_CONF",) if name in os.environ]
    return [f"MASTER_ADDR={first}", f"MASTER_PORT={port}", *own]


def srun(folder: str, more: dict[str, str]) -> str:
    worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
    words = [
        "srun",
        "--export=ALL",
        "--label",
        "--kill-on-bad-exit=1",
        "--wait=0",
        "--mpi=none",
        f"--ntasks={more['workers']}",
    ]
    words += [f"--ntasks-per-node={more['workers_by_node']}", f"--cpus-per-task={more['worker_cores']}"]
    words += ["/usr/bin/env", "python3", "-I", "-S", "-E", worker, folder]
    return f"exec {shlex.join(words)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
