"""The steps between fork and exec that turn a copy of the runner into the job's own process.

The order matters: what needs privileges comes before they are dropped, and the kernel's confinement comes last.
"""

from __future__ import annotations

import os
import resource
import select
import signal

from haein.cluster.backends.local import landlock, namespaces
from haein.cluster.backends.local.orders import Order

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
NUMBER_SIZE = 4
MOST_DESCRIPTORS = 64  # few are open, and none of them has a high number
READY = b"+"
MOST_PROCESSES = 8192  # enough for any training; low enough that a fork bomb can still be ended
OUT_OF_MEMORY_SCORE = 500  # the kernel's own killer takes a job before it takes a part of Haein


def become_job(order: Order, *, out: int, err: int, news: int, go: int, fate: int) -> None:
    """Never returns. Writes READY to `news`, waits for a byte from `go`, and executes the command.

    Anything else on `news` is a sentence saying what failed; nothing after READY means that the command runs.
    In namespaces of its own the command runs below a process 1, whose number goes to `fate` at once; there the
    command's wait status follows.
    """
    try:
        _close_all_but({0, 1, 2, out, err, news, go, fate})
        _reset_signals()
        _connect(order, out, err)
        _limit(order)
        ordinary = namespaces.enter() if order.namespaces else None
        if order.namespaces and (init := os.fork()):
            tell(fate, init)
            os._exit(0)
        os.setsid()
        _prepare(order, ordinary)
    except BaseException as problem:
        os.write(news, str(problem).encode(errors="replace"))
        os._exit(126)
    os.write(news, READY)
    # An empty answer means that the runner died before the start was on record: the command must not run.
    if os.read(go, 1) != READY:
        os._exit(126)
    try:
        if order.namespaces:
            _stay_as_init(go, fate)
        variables = dict(_split(item) for item in order.variable)
        os.execve(order.shell, [order.shell, "-c", order.command], variables)  # noqa: S606  (it is a shell)
    except BaseException as problem:
        os.write(news, str(problem).encode(errors="replace"))
    finally:
        os._exit(126)  # whatever went wrong: a copy of the runner must not go on as a second one


def tell(fate: int, number: int) -> None:
    os.write(fate, number.to_bytes(NUMBER_SIZE, "little"))


def _stay_as_init(go: int, fate: int) -> None:
    """Returns in the process that is to execute the command. Process 1 itself stays, as it may not be the command: the
    kernel keeps from it every signal that it does not handle. It collects orphans, and is the last to end.
    """
    # Only now, as whoever forked it, whose death this would have meant, is gone.
    landlock.call(landlock.libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    runner = select.poll()
    runner.register(go, 0)
    if runner.poll(0):  # it hung up: the runner died in the meantime
        os._exit(126)
    # The job shares its user: nobody may read or trace it.
    landlock.call(landlock.libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)
    command = os.fork()
    if command == 0:
        os.setsid()
        return
    os.closerange(0, fate)
    os.closerange(fate + 1, MOST_DESCRIPTORS)
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)
        if pid == command:
            tell(fate, status)


def _prepare(order: Order, ordinary: tuple[int, int] | None) -> None:
    if order.namespaces:
        namespaces.build(order, ordinary)
    if order.uid:
        os.setgroups([])
        os.setresgid(order.gid, order.gid, order.gid)
        os.setresuid(order.uid, order.uid, order.uid)
    # The team's jobs run as different users of one group: what one writes in the team's folder the others may change.
    os.umask(0o007)
    os.chdir(order.work)
    if not order.namespaces:
        # Without its runner nobody would keep the job's limits or its log. (A change of user would clear this.)
        landlock.call(landlock.libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    landlock.gain_no_privileges()
    if order.landlock:
        landlock.confine(readable=order.readable, devices=order.device, writable=order.writable)


def _close_all_but(kept: set[int]) -> None:
    # Above all the runner's lock, and its end of `go`: held here too, they would outlive a runner that dies now.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:  # noqa: SIM105  (contextlib is one more import for every runner)
                os.close(int(name))
            except OSError:
                pass  # the descriptor by which this listing was read


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _connect(order: Order, out: int, err: int) -> None:
    if order.uid:
        # Else /dev/stdout, opened by its name, would answer "permission denied".
        os.fchown(out, order.uid, order.gid)
        os.fchown(err, order.uid, order.gid)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)


def _limit(order: Order) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = MOST_PROCESSES if hard == resource.RLIM_INFINITY else min(MOST_PROCESSES, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OUT_OF_MEMORY_SCORE))
    cores = sorted(os.sched_getaffinity(0))
    if order.cores < len(cores):
        os.sched_setaffinity(0, {cores[(order.first_core + n) % len(cores)] for n in range(order.cores)})


def _split(item: str) -> tuple[str, str]:
    name, _, value = item.partition("=")
    return name, value
