"""A data folder, a backend on it, and the short way to launch jobs and wait for what becomes of them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from haein.cluster.backends.base import Backend, Launch, LogLine, Phase, Place, Sight, SliceGrant
from haein.cluster.backends.local.backend import LocalBackend
from haein.cluster.backends.simulator.backend import SimulatorBackend


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The condition's first true answer; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"Waited {seconds} s in vain."
        time.sleep(0.005)
    return answer


class Stage:
    """`quick` and `endless` are commands (or whatever the backend takes for one) that end at once, or not at all;
    `saving` is an endless one that saves its work when it is signalled."""

    backend: Backend
    quick: str
    endless: str
    saving: str

    def __init__(self) -> None:
        self.launched: list[UUID] = []

    def order(self, command: str, **changes: Any) -> Launch:
        asked: dict[str, Any] = {
            "attempt_id": uuid.uuid4(),
            "attempt_number": 1,
            "job_id": uuid.uuid4(),
            "job_name": "digits",
            "team_id": uuid.uuid4(),
            "command": command,
            "environment": "python",
            "places": (self.place(SliceGrant(self.backend.inventory()[0].devices[0].uuid, 0, 500)),),
            "cpus": 1000,
            "memory_mb": 2000,
            "time_limit_s": 60,
            "grace_s": 1,
        }
        launch = Launch(**(asked | changes))
        self.launched.append(launch.attempt_id)
        return launch

    def place(self, *slices: SliceGrant) -> Place:
        """On the first node."""
        return Place(self.backend.inventory()[0].name, slices)

    def begin(self, command: str, **changes: Any) -> Launch:
        launch = self.order(command, **changes)
        self.backend.launch(launch)
        # Nearly always at once; a machine whose disk is busy may take longer to make the start durable.
        until(lambda: self.look(launch).phase is not Phase.UNKNOWN)
        return launch

    def run(self, command: str, **changes: Any) -> tuple[Launch, Sight]:
        launch = self.begin(command, **changes)
        return launch, self.end_of(launch)

    def look(self, launch: Launch) -> Sight:
        return self.backend.observe([launch.attempt_id])[launch.attempt_id]

    def end_of(self, launch: Launch) -> Sight:
        until(lambda: self.look(launch).phase is Phase.ENDED)
        return self.look(launch)

    def lines(self, launch: Launch) -> list[LogLine]:
        return list(self.backend.log_stream(launch.attempt_id))

    def said(self, launch: Launch, stream: str = "out") -> list[str]:
        return [line.text for line in self.lines(launch) if line.stream == stream]

    def close(self) -> None:
        self.backend.stop(self.launched)
        until(lambda: all(sight.phase is not Phase.RUNNING for sight in self.backend.observe(self.launched).values()))


def add_python(var: Path) -> None:
    """An environment that is no more than the system's Python."""
    python = var / "env/python/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        # Python tells it to everybody and the types of its library do not.
        python.symlink_to(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    (var / "env/python/.ready").touch()


class LocalStage(Stage):
    """Real processes, with an environment that is no more than the system's Python."""

    quick = "echo hello"
    endless = "sleep 600"
    saving = """trap 'touch "$HAEIN_CHECKPOINT"' USR1; while :; do sleep 0.05; done"""

    def __init__(self, var: Path | None = None, **settings: Any) -> None:
        """On a data folder that the caller made and removes, else on one for the length of this stage."""
        super().__init__()
        self.var = var or Path(tempfile.mkdtemp(prefix="haein-", dir="/var/tmp"))
        self._is_ours = var is None
        if self._is_ours:
            self.var.chmod(0o755)  # a job's own user must be able to pass
        self.settings = settings
        self.backend = self.local = LocalBackend(self.var, **settings)
        add_python(self.var)

    def folder(self, launch: Launch) -> Path:
        return self.var / "attempts" / str(launch.attempt_id)

    def work(self, launch: Launch) -> Path:
        return self.var / "work" / str(launch.job_id)

    def record(self, launch: Launch, name: str) -> dict[str, str]:
        items = (self.folder(launch) / name).read_text().split("\0")
        return dict(item.split("=", 1) for item in items if item)

    def runner(self, launch: Launch) -> int:
        return int(self.record(launch, "start")["runner"])

    def close(self) -> None:
        super().close()
        # The runner tidies up after its last record; what was killed before it could is tidied up by forget().
        until(lambda: self.backend.forget(self.launched) or not any((self.var / "scratch").glob("*")))
        if self._is_ours:
            shutil.rmtree(self.var)


class SimulatorStage(Stage):
    """A cluster on paper whose clock moves on a little whenever it is looked at, so that nothing waits for it."""

    quick = "echo hello; simulate 1s"
    endless = saving = "simulate 1h"

    def __init__(self, *, tick: float = 0.005, **settings: Any) -> None:
        super().__init__()
        self.var = Path(tempfile.mkdtemp(prefix="haein-", dir="/var/tmp"))
        self.now, self.tick = time.time(), tick
        self.settings: dict[str, Any] = {"nodes": 3, "speed": 100, "clock": self._look_at_clock, **settings}
        self.backend = self.another()

    def another(self, **settings: Any) -> SimulatorBackend:
        """The same cluster as another process sees it."""
        return SimulatorBackend(self.var, **{**self.settings, **settings})

    def _look_at_clock(self) -> float:
        self.now += self.tick
        return self.now

    def close(self) -> None:
        super().close()
        shutil.rmtree(self.var)


STAGES: dict[str, Callable[[], Stage]] = {"local": LocalStage, "simulator": SimulatorStage}


def alive(*words: str) -> list[int]:
    """Living processes whose command line holds all of these words."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if folder.name.isdigit() and all(word in line for word in words) and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
