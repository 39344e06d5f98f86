"""A house of one's own: the real supervisor on a data folder and a port that nobody else has."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from haein.supervisor.layout import ROOT

COMMAND = [sys.executable, "-m", "haein.supervisor"]


Seen = TypeVar("Seen")


def until(look: Callable[[], Seen], what: str, seconds: float = 60) -> Seen:
    """Looks until there is something to see; fails when the seconds are over."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.02)
    return seen


class House:
    def __init__(self, var: Path) -> None:
        self.var = var
        self.port = free_port()
        self.output = var.with_suffix(".out")
        self.process: subprocess.Popen[bytes] | None = None

    def environ(self, **more: str) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("HAEIN_")}
        return {**ours, "HAEIN_VAR": str(self.var), "HAEIN_PORT": str(self.port), **more}

    def refusal(self, **more: str) -> str:
        """What `up` says when it does not start: exactly one line."""
        ran = subprocess.run([*COMMAND, "up"], cwd=ROOT, env=self.environ(**more), capture_output=True, text=True)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        (line,) = (ran.stdout + ran.stderr).splitlines()
        return line

    def up(self, command: str = "up", **settings: str) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *command.split()],
                cwd=ROOT,
                env=self.environ(**settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        started = self.process
        until(lambda: self.says("answers at") or started.poll() is not None, "the house is up")
        assert started.poll() is None, self.output.read_text()

    def says(self, words: str) -> bool:
        return words in self.output.read_text(errors="replace")

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://localhost:{self.port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def pid(self, part: str) -> int:
        """The part's process by the supervisor's record; 0 while there is none."""
        try:
            return int((self.var / "run" / f"{part}.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return 0

    def processes(self) -> list[str]:
        """Every process on this data folder, the children of parts included."""
        return [f"{entry.name} {command_of(entry)}" for entry in Path("/proc").glob("[0-9]*") if self._owns(entry)]

    def _owns(self, entry: Path) -> bool:
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            return False
        return os.fsencode(self.var) in told

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a test that failed may have left it standing still
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


def command_of(entry: Path) -> str:
    return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def made() -> Iterator[House]:
    """A house not yet started, on a folder that is gone afterwards with every process on it."""
    # Not a test runner's own folder: only its owner may enter that, and as root the parts have an account of their own.
    top = Path(tempfile.mkdtemp(prefix="haein-house-"))
    top.chmod(0o755)
    var = top / "var"
    var.mkdir()
    (var / "env").symlink_to(ROOT / "var" / "env")
    house = House(var)
    try:
        yield house
    finally:
        house.end()
        left = house.processes()
        for line in left:
            os.kill(int(line.split()[0]), signal.SIGKILL)
        shutil.rmtree(top)
        assert not left
