"""Tries, as a script, what a job in namespaces of its own needs: ends with 0, or says what the kernel answered."""

import os
import sys
import tempfile

sys.path.append(os.path.abspath(__file__ + "/../../../../.."))

from haein.cluster.backends.local import confinement, namespaces
from haein.cluster.backends.local.orders import Order


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            os._exit(_tried(folder))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _tried(folder: str) -> int:
    order = Order()
    order.system, order.device = confinement.machine(), confinement.devices()
    order.own, order.hidden, order.writable, order.scratch, order.memory_mb = [], [], [folder], folder, 1
    try:
        ordinary = namespaces.enter()
        if inner := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        namespaces.build(order, ordinary)
    except (OSError, AttributeError) as problem:  # the latter where the C library does not know pivot_root
        os.write(1, (getattr(problem, "strerror", None) or str(problem)).encode(errors="replace"))
        return 1
    return 0


sys.exit(main())
