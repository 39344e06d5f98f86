"""One worker of a gang, as srun starts it on its node: it finds its part of the node's GPUs, confines itself, and runs
the job's command, to which it passes on the signals that are meant for it.

Run as `python3 -I -S -E worker.py <attempt folder>`; the standard library is all it has.
"""

from __future__ import annotations

import os
import signal
import sys

sys.path.append(os.path.abspath(__file__ + "/../../../../.."))

from haein.cluster.backends.local import landlock, processes, records
from haein.cluster.backends.local.orders import Order, from_pairs
from haein.cluster.backends.slurm import agent

LOOK_S = 1.0


def main(folder: str) -> int:
    pairs = records.read_pairs(folder, records.ORDER) or []
    order, more = from_pairs(pairs), dict(pairs)
    held, visible = mine(pairs, int(more["workers_by_node"]))
    variables = dict(os.environ)
    variables |= {"HAEIN_RANK": os.environ.get("SLURM_PROCID", "0"), "HAEIN_DEVICES": ",".join(held)}
    variables |= {"RANK": variables["HAEIN_RANK"], "WORLD_SIZE": more["workers"]}
    if visible is not None:
        variables["CUDA_VISIBLE_DEVICES"] = visible
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        begin(order, variables)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: pass_on(child, got))
    saves = Saves(f"{folder}/{records.SAVE}", child) if order.checkpoint else None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if saves:
            saves.look()
        # Woken at once when the command ends; the wish to save may wait for a second.
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)


class Saves:
    """Signals the command once for each wish that it should save its work."""

    def __init__(self, path: str, child: int) -> None:
        self._path, self._child, self._seen = path, child, 0

    def look(self) -> None:
        try:
            wish = os.stat(self._path).st_mtime_ns
        except OSError:
            return
        if wish != self._seen:
            self._seen = wish
            for process in processes.first_that_catch(self._child, signal.SIGUSR1):
                processes.send(process.pid, process.started, signal.SIGUSR1)


def begin(order: Order, variables: dict[str, str]) -> None:
    try:
        os.setsid()
        os.umask(0o007)
        os.chdir(order.work)
        landlock.gain_no_privileges()
        if landlock.abi():
            landlock.confine(readable=order.readable, devices=order.device, writable=order.writable)
        os.execve(order.shell, [order.shell, "-c", order.command], variables)  # noqa: S606  (it is a shell)
    except BaseException as problem:
        agent.say(str(problem))
    finally:
        os._exit(126)


def pass_on(child: int, number: int) -> None:
    for process in (processes.look(child), *processes.descendants(child)):
        if process:
            processes.send(process.pid, process.started, number)


def mine(pairs: records.Pairs, sharing: int) -> tuple[list[str], str | None]:
    """This worker's devices by our names, and its CUDA_VISIBLE_DEVICES; None for that where the node is its own."""
    held = agent.devices_here(pairs)
    if sharing == 1:
        return held, None
    visible = [index for index in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if index]
    local, each = int(os.environ.get("SLURM_LOCALID", "0")), len(visible) // sharing
    return held[local * each : (local + 1) * each], ",".join(visible[local * each : (local + 1) * each])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
