"""The runner's whole life: start the command once, keep its log and its limits, end its tree, and leave the records.

It runs detached from everything else of Haein, as a process of its own for each attempt, with the standard library
alone: every other process may be killed without a job noticing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import time

from haein.cluster.backends.local import processes, records, scratch, starting
from haein.cluster.backends.local.log import QUIET_S, Log, Stream
from haein.cluster.backends.local.orders import Order, from_pairs
from haein.cluster.backends.local.usage import MIB, Meter

PR_SET_CHILD_SUBREAPER = 36
F_SETPIPE_SZ = 1031
PIPE_SIZE = 256 * 1024
READ_SIZE = 64 * 1024
SAMPLE_S = 1.0
NEAR_LIMIT_SAMPLE_S = 0.25
LEFTOVERS_GRACE_S = 2.0  # for what the command leaves behind when it ends by itself
KILL_AGAIN_S = 0.02
MOST_IN_USAGE = 256  # processes named in the usage record, for whoever must bury the attempt


def tend(folder: str, ready: int) -> None:
    """Run the attempt of this folder unless it has begun already, and return when it has ended.

    `ready` is closed as soon as the start is on record, or when it is clear that there is none.
    """
    os.set_inheritable(ready, False)  # else the job would hold its other end
    os.umask(0o027)
    os.chdir("/")
    lock = records.hold(folder)
    if lock is None or records.exists(folder, records.START) or records.exists(folder, records.EXIT):
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    run = Run(folder, from_pairs(records.read_pairs(folder, records.ORDER) or []))
    run.start()
    os.close(ready)
    run.watch()
    run.record_end()
    scratch.remove(run.order.scratch)


class Run:
    """One attempt in the hands of its runner."""

    def __init__(self, folder: str, order: Order) -> None:
        self.order = order
        self._folder = folder
        self._log = Log(f"{folder}/{records.LOG}", order.log_cap)
        self._out, self._err = Stream(b"o"), Stream(b"e")
        self._pipes: dict[int, Stream] = {}
        self._poll = select.poll()
        self._meter = Meter(order.memory_mb * MIB)
        self._main = 0  # the command's process or, in namespaces of its own, the process 1 above it
        self._fate = -1
        self._fate_is_open = False
        self._main_status: int | None = None
        self._gone = False
        self._started_at: float | None = None
        self._time_is_up_at = float("inf")
        self._next_sample = 0.0
        self._next_usage = 0.0
        self._next_look = 0.0
        self._kill_at = float("inf")
        self._cause = ""
        self._detail = ""
        self._told_to_end = False
        self._save_wish = 0

    # Beginning

    def start(self) -> None:
        if records.exists(self._folder, records.STOP):
            self._gone = True
            self._cause, self._detail = "STOPPED", "The job was stopped before it had begun."
            return
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        news, news_end = os.pipe()
        go_end, go = os.pipe()
        self._fate, fate_end = os.pipe()
        self._listen_to_signals()
        self._main = os.fork()
        if self._main == 0:
            starting.become_job(self.order, out=out_end, err=err_end, news=news_end, go=go_end, fate=fate_end)
        for fd in (out_end, err_end, news_end, go_end, fate_end):
            os.close(fd)
        if self.order.namespaces:
            os.waitpid(self._main, 0)
            self._main = self._read_fate() or 0
            self._poll.register(self._fate, select.POLLIN)
            self._fate_is_open = True
        self._listen_to_pipe(out, self._out)
        self._listen_to_pipe(err, self._err)
        self._let_go(news, go)

    def _let_go(self, news: int, go: int) -> None:
        """Put the start on record, then let the prepared process execute the command: in this order, or not at all."""
        started_at = time.time()
        aside = records.write_aside(self._folder, records.START, self._start_record(started_at), durable=True)
        problem = os.read(news, 4096)
        if problem != starting.READY:
            os.unlink(aside)
            self._cause, self._detail = "LOST", f"The machine could not prepare the job: {problem.decode()}."
        elif records.claim(self._folder, records.START, aside):
            self._started_at = started_at
            self._time_is_up_at = time.monotonic() + (self.order.time_limit_s or float("inf"))
            self._next_sample = time.monotonic() + NEAR_LIMIT_SAMPLE_S
            os.write(go, starting.READY)
            if problem := os.read(news, 4096):
                self._started_at = None
                self._cause, self._detail = "NOT_STARTED", f"The command could not be started: {problem.decode()}."
        os.close(go)
        os.close(news)

    def _start_record(self, started_at: float) -> records.Pairs:
        main, runner = processes.look(self._main), processes.look(os.getpid())
        return [
            ("attempt", self.order.attempt),
            ("pid", str(self._main)),
            ("pid_started", str(main.started if main else 0)),
            ("runner", str(os.getpid())),
            ("runner_started", str(runner.started if runner else 0)),
            ("boot", processes.boot_id()),
            ("started_at", f"{started_at:.6f}"),
            ("uid", str(self.order.uid)),
            ("cpus", str(self.order.cpus)),
            ("devices", self.order.devices),
            ("checkpoint", self.order.checkpoint),
        ]

    def _listen_to_signals(self) -> None:
        self._wake, wake_end = os.pipe()
        for fd in (self._wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._note_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll.register(self._wake, select.POLLIN)

    def _read_fate(self) -> int | None:
        data = os.read(self._fate, starting.NUMBER_SIZE)
        return int.from_bytes(data, "little") if data else None

    def _listen_to_pipe(self, fd: int, stream: Stream) -> None:
        os.set_blocking(fd, False)
        try:  # noqa: SIM105  (contextlib is one more import for every runner)
            fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # an account's share of pipe memory is used up; the ordinary size is only slower
        self._pipes[fd] = stream
        self._poll.register(fd, select.POLLIN)

    def _note_term(self, *_: object) -> None:
        self._told_to_end = True

    # Running

    def watch(self) -> None:
        """Return when no process of the job is left and its last words are in the log."""
        while not self._gone:
            woken = False
            for fd, _ in self._poll.poll(self._wait_ms()):
                if fd == self._wake:
                    os.read(fd, 512)
                    woken = True
                elif fd == self._fate:
                    self._learn_fate()
                else:
                    self._read(fd)
            now = time.monotonic()
            if woken or now >= self._next_look:
                self._next_look = now + KILL_AGAIN_S
                self._look_around(now)
        for fd in list(self._pipes):
            while self._read(fd):
                pass
        for stream in (self._out, self._err):
            self._log.show(stream, time.time())

    def _wait_ms(self) -> float:
        now = time.monotonic()
        soonest = min(self._next_sample, self._time_is_up_at, self._kill_at)
        if self._out.pending or self._err.pending:
            soonest = min(soonest, now + QUIET_S / 4)
        return max(0.0, (max(soonest, self._next_look) - now) * 1000 + 1)

    def _read(self, fd: int) -> bool:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return False
        if data:
            self._log.take(self._pipes[fd], data, time.time())
        else:
            self._poll.unregister(fd)
            del self._pipes[fd]
            os.close(fd)
        return bool(data)

    def _learn_fate(self) -> None:
        if (status := self._read_fate()) is not None:
            self._main_status = status
            self._end_leftovers()
        elif self._fate_is_open:
            self._fate_is_open = False
            self._poll.unregister(self._fate)

    def _look_around(self, now: float) -> None:
        for stream in (self._out, self._err):
            if stream.due(time.time()):
                self._log.show(stream, time.time())
        self._reap()
        if self._gone:
            return
        if now >= self._time_is_up_at:
            self._time_is_up_at = float("inf")
            self._end("TIME_LIMIT", f"The job ran for its time limit of {self.order.time_limit_s:,} s.")
        if self._told_to_end or now >= self._next_sample:
            self._obey()
        if now >= self._next_sample:
            self._sample(now)
        if now >= self._kill_at:
            self._kill()

    def _reap(self) -> None:
        # Orphans of the job become children of the runner (or of process 1, which ends last), so "no child" means that
        # the whole tree is gone.
        while not self._gone:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._gone = True
                return
            if pid == 0:
                return
            if pid == self._main:
                if self.order.namespaces:
                    self._learn_fate()
                # A process 1 that is killed takes the command with it, in the same way.
                self._main_status = status if self._main_status is None else self._main_status
                self._end_leftovers()

    def _obey(self) -> None:
        if self.order.checkpoint:
            self._pass_on_save()
        if records.exists(self._folder, records.STOP):
            self._end("STOPPED", "The job was stopped.")
        elif self._told_to_end:
            self._end("LOST", "The runner was told to end: the machine is probably shutting down.")
        elif not records.exists(self._folder, records.START):
            self._end("LOST", "The records of the attempt were deleted while it ran.")
        self._told_to_end = False

    def _pass_on_save(self) -> None:
        """Signal the command once for each wish, so that it saves its work."""
        try:
            wish = os.stat(f"{self._folder}/{records.SAVE}").st_mtime_ns
        except FileNotFoundError:
            return
        if wish != self._save_wish and self._main_status is None:
            self._save_wish = wish
            for process in processes.first_that_catch(self._main, signal.SIGUSR1):
                processes.send(process.pid, process.started, signal.SIGUSR1)

    def _sample(self, now: float) -> None:
        meter = self._meter
        meter.measure_memory(self._tree())
        if now >= self._next_usage:
            self._next_usage = now + SAMPLE_S - 0.01
            meter.measure_cpu(now, processes.look(self._main))
            self._write_usage()
        self._next_sample = now + (NEAR_LIMIT_SAMPLE_S if meter.is_near_limit else SAMPLE_S)
        if meter.is_over_limit:
            used = meter.memory // MIB
            limit = self.order.memory_mb
            self._end("MEMORY_LIMIT", f"The job used {used:,} MiB of memory; its limit is {limit:,} MiB.", grace_s=0)

    def _write_usage(self) -> None:
        meter = self._meter
        usage = [
            ("at", f"{time.time():.3f}"),
            ("cores", f"{meter.cores:.3f}"),
            ("memory_mb", f"{meter.memory / MIB:.1f}"),
            ("processes", str(len(meter.processes))),
            ("tree", " ".join(f"{process.pid}:{process.started}" for process in meter.processes[:MOST_IN_USAGE])),
        ]
        try:  # noqa: SIM105  (as above)
            records.replace(self._folder, records.USAGE, usage, durable=False)
        except OSError:
            pass  # a full disk must not end the job; readers see that the reading is old

    # Ending

    def _end(self, cause: str, detail: str, grace_s: float | None = None) -> None:
        """Begin the end that Haein wants. The first reason counts; a later one can only make it sooner."""
        grace_s = self.order.grace_s if grace_s is None else grace_s
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)
        if self._cause or self._main_status is not None:
            return
        self._cause, self._detail = cause, detail
        self._log.say(detail)
        if grace_s:
            self._terminate()

    def _end_leftovers(self) -> None:
        self._kill_at = min(self._kill_at, time.monotonic() + min(LEFTOVERS_GRACE_S, self.order.grace_s))
        if not self._cause:
            self._terminate()

    def _tree(self) -> list[processes.Process]:
        """The job's processes; a process 1 is Haein's own."""
        tree = processes.descendants(os.getpid())
        return [process for process in tree if process.pid != self._main] if self.order.namespaces else tree

    def _terminate(self) -> None:
        for process in self._tree():
            processes.send(process.pid, process.started, signal.SIGTERM)
            processes.send(process.pid, process.started, signal.SIGCONT)

    def _kill(self) -> None:
        """One round; called again until nothing is left, as a tree that forks may outrun it."""
        if self.order.namespaces and self._main:
            os.kill(self._main, signal.SIGKILL)  # with process 1 the kernel ends all
            return
        if self.order.uid:
            self._kill_by_account()
        tree = processes.descendants(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in tree:
                processes.send(process.pid, process.started, number)

    def _kill_by_account(self) -> None:
        # The job has a user id of its own, and kill(-1) reaches all of a user's processes in one step of the kernel.
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(self.order.uid, self.order.uid, self.order.uid)
                os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    def record_end(self) -> None:
        """Write the last word, however long a full disk makes that take: until then the attempt counts as running."""
        ended_at = max(time.time(), self._started_at or 0.0)
        cause, code, number, detail = self._verdict()
        record = [
            ("started_at", "" if self._started_at is None else f"{self._started_at:.6f}"),
            ("ended_at", f"{ended_at:.6f}"),
            ("cause", cause),
            ("exit_code", "" if code is None else str(code)),
            ("signal", "" if number is None else str(number)),
            ("detail", detail),
        ]
        while True:
            try:
                return records.replace(self._folder, records.EXIT, record, durable=True)
            except FileNotFoundError:
                return None  # the folder was deleted: nobody is left to be told
            except OSError:
                time.sleep(1)

    def _verdict(self) -> tuple[str, int | None, int | None, str]:
        code, number = exit_of(self._main_status)
        if self._cause:
            return self._cause, code, number, self._detail
        if number is not None:
            return "SIGNALLED", code, number, signal_sentence(number)
        last_words = self._err.last_line.decode(errors="replace").strip()
        return "EXITED", code, None, exit_sentence(code or 0, last_words)


def exit_of(status: int | None) -> tuple[int | None, int | None]:
    """Exit code and signal of a wait status; a shell says 128 + n when what it ran ended by signal n."""
    if status is None:
        return None, None
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return None, -code
    number = code - 128
    return code, number if 0 < number < signal.SIGRTMIN else None


def signal_sentence(number: int) -> str:
    reasons = {
        int(signal.SIGSEGV): "it touched memory that is not its own",
        int(signal.SIGABRT): "it gave up by itself",
        int(signal.SIGKILL): "if nobody sent it, the machine had run out of memory",
    }
    name = signal.Signals(number).name if number in set(signal.Signals) else "a real-time signal"
    reason = f": {reasons[number]}" if number in reasons else ""
    return f"The command was ended by signal {number} ({name}){reason}."


def exit_sentence(code: int, last_words: str) -> str:
    said = f' Its last line on stderr: "{last_words}"' if last_words else ""
    if code == 0:
        return ""
    if code == 127:
        return f"The command was not found (exit code 127).{said}"
    if code == 126:
        return f"The command is not a program that can be executed (exit code 126).{said}"
    return f"The command ended with exit code {code}.{said}"
