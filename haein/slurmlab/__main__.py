"""Runs a lab in the foreground until it is asked to end (SIGTERM, SIGINT)."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from haein.slurmlab.lab import Lab, LabFailed

ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def main(arguments: list[str]) -> int:
    lab = _lab(arguments)
    # Blocked rather than handled: one that comes while the lab starts waits until it can be stopped as a whole.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        lab.start()
        print(f"Slurm answers: export SLURM_CONF={lab.conf} (slurmrestd at {lab.rest_url})", flush=True)
        while signal.sigtimedwait(ENDS, 1) is None:
            if ended := lab.failed():
                raise LabFailed(f"{ended} ended by itself; its log is in {lab.folder}/log.")
    finally:
        lab.stop()
    return 0


def _lab(arguments: list[str]) -> Lab:
    parser = argparse.ArgumentParser(prog="python -m haein.slurmlab", description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything of it lies")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--mig-nodes", type=int, default=0, help="so many of them with GPUs carved into instances")
    parser.add_argument("--shards", type=int, default=0, help="of each whole GPU")
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd on MariaDB")
    parser.add_argument("--first-port", type=int, help="of those it listens on, one after another; else any free")
    return Lab(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabFailed as problem:
        sys.exit(f"haein.slurmlab: {problem}")
