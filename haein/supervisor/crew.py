"""The parts that run now: their output gathered, their deaths noticed, each started again or ended in order."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from haein.supervisor import processes
from haein.supervisor.journal import WIDEST, Journal
from haein.supervisor.layout import Layout
from haein.supervisor.parts import Part

SHORTEST, LONGEST = 0.2, 10.0  # seconds before a part that died is started again
SETTLED = 30.0  # seconds of life after which an earlier death is forgotten
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody asked the supervisor to end."""


class Member:
    """One part and its present process."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writer, True)
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None  # of the last process that ended
        self.born = 0.0
        self.due: float | None = None
        self.delay = SHORTEST
        self.deaths = 0
        self.rest = b""

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def ready(self) -> bool:
        return self.process is not None and self.part.ready(self.process.pid)


class Crew:
    """Owns the signals of this process: one at a time."""

    def __init__(self, layout: Layout, journal: Journal) -> None:
        self.layout = layout
        self.journal = journal
        self.members: dict[str, Member] = {}
        self.asked = 0  # how often somebody asked us to end
        self.asked_by: int | None = None
        self._asked_last = 0.0
        self.on_turn: Callable[[], None] = lambda: None
        self._selector = selectors.DefaultSelector()
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in STOPPING:
            signal.signal(number, self._ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def start(self, part: Part) -> Member:
        member = Member(part)
        self.members[part.name] = member
        self._selector.register(member.reader, selectors.EVENT_READ, member)
        self._spawn(member)
        return member

    def run(self, part: Part) -> int:
        """Runs a part that ends by itself while the others go on; returns its exit code. Raises Stopped."""
        member = self.start(part)
        self.wait(lambda: not member.alive)
        assert member.code is not None
        return member.code

    def wait(self, condition: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Turns until the condition holds; False when the seconds are over first. Raises Stopped."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.turn(0.02)
            self.heed()
        return True

    def watch(self) -> NoReturn:
        """Turns for ever. Raises Stopped."""
        while True:
            self.turn(30)
            self.heed()

    def heed(self) -> None:
        if self.asked:
            raise Stopped

    def turn(self, longest: float) -> None:
        """Waits for something to happen and deals with it."""
        due = min((m.due for m in self.members.values() if m.due is not None), default=None)
        timeout = longest if due is None else min(longest, max(0, due - time.monotonic()))
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                os.read(self._wake, 4096)
            else:
                self._gather(key.data)
        for member in list(self.members.values()):
            if member.process is not None and _has_ended(member.process.pid):
                self._bury(member)
            if member.due is not None and time.monotonic() >= member.due and not self.asked:
                self._spawn(member)
        self.on_turn()

    def stop(self, waves: Iterable[Iterable[str]]) -> None:
        """Ends the parts, wave after wave; being asked a second time hurries."""
        self.asked = max(self.asked, 1)
        for names in waves:
            wave = [self.members[name] for name in names if name in self.members]
            for member in wave:
                member.due = None
                self._signal(member, member.part.stop_signal)
            begun = time.monotonic()
            while any(member.alive for member in wave):
                for member in wave:
                    late = time.monotonic() - begun - (0 if self.asked > 1 else member.part.patience)
                    if late > 0:
                        self._signal(member, member.part.last_signal if late < 5 else signal.SIGKILL)
                self.turn(0.1)

    def _spawn(self, member: Member) -> None:
        member.due = None
        member.born = time.monotonic()
        try:
            member.process = processes.spawn(member.part, member.writer)
        except OSError as problem:
            self.journal.say(f"{member.part.name} can't be started ({problem.strerror}).")
            self._plan_restart(member)
            return
        try:
            processes.remember(self.layout.records, member.part, member.process.pid)
        except OSError as problem:
            self.journal.complain_of_disk(
                f"{self.layout.records} can't be written ({problem.strerror}): free some room."
            )

    def _bury(self, member: Member) -> None:
        assert member.process is not None
        self._gather(member)
        if member.rest:
            self._tell(member, member.rest)
            member.rest = b""
        if member.part.owns_session:
            processes.end_session(member.process.pid)
        member.code = member.process.wait()  # only now its number may be given to another
        member.process = None
        processes.forget(self.layout.records, member.part)
        if not member.part.restarted:
            self._selector.unregister(member.reader)
            os.close(member.reader)
            os.close(member.writer)
            del self.members[member.part.name]
        elif not self.asked:
            self._plan_restart(member)

    def _plan_restart(self, member: Member) -> None:
        now = time.monotonic()
        member.deaths += 1
        member.delay = SHORTEST if now - member.born > SETTLED or member.deaths == 1 else min(member.delay * 2, LONGEST)
        member.due = now + member.delay
        self.journal.say(f"{member.part.name} {_how(member.code)}. It is started again in {member.delay:g} s.")

    def _gather(self, member: Member) -> None:
        """Takes what the part has written by now, but not so much that the others wait."""
        for _ in range(16):
            try:
                more = os.read(member.reader, 65536)
            except BlockingIOError:
                return
            *lines, member.rest = (member.rest + more).split(b"\n")
            for line in lines:
                self._tell(member, line)
            if len(member.rest) > WIDEST:
                self._tell(member, member.rest)
                member.rest = b""

    def _tell(self, member: Member, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text and member.part.shown(text):
            self.journal.line(member.part.name, text)

    def _signal(self, member: Member, number: int) -> None:
        if member.process is not None:
            member.process.send_signal(number)

    def _ask(self, number: int, _frame: object) -> None:
        self.asked_by = number
        # A closed terminal says it twice within a moment, which is not meant to hurry.
        now = time.monotonic()
        if now - self._asked_last > 0.5:
            self.asked += 1
        self._asked_last = now


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _how(code: int | None) -> str:
    if code is None:
        return "did not start"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended by itself with exit code {code}"
