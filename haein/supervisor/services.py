"""PostgreSQL and Valkey for the length of one command: what tests, benchmarks and development run on."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from haein.supervisor import account, checks, credentials, ground, processes
from haein.supervisor.crew import Crew, Stopped
from haein.supervisor.journal import Journal
from haein.supervisor.layout import Layout, folder_in_use


def run(command: list[str], folder: Path | None) -> int:
    """Runs the command on services of its own; without a folder, on one that is thrown away afterwards."""
    if folder is not None:
        return _run(command, folder.resolve(), durable=True)
    scratch = Path(tempfile.mkdtemp(prefix="haein-"))
    try:
        # The jobs' Python takes 200 MB and is only read.
        (scratch / "env").symlink_to(folder_in_use() / "env")
        return _run(command, scratch, durable=False)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], folder: Path, *, durable: bool) -> int:
    layout = Layout(folder, account.own(), account.service())
    layout.prepare()
    held = checks.hold(layout, "only its services")
    journal = Journal(layout.log, screen=False)
    processes.end_leftovers(layout.records, journal.say)
    crew = Crew(layout, journal)
    try:
        ground.start(crew, durable=durable)
        given = ground.values(layout)
        credentials.write_environment(layout, given)
        return _follow(crew, command, {**os.environ, **given, "HAEIN_VAR": str(layout.var)})
    except Stopped:
        return 130
    finally:
        crew.stop([ground.NAMES])
        journal.close()
        os.close(held)


def _follow(crew: Crew, command: list[str], environ: dict[str, str]) -> int:
    """The command has the terminal: a Ctrl-C reaches it by itself, and we wait for what it makes of it."""
    child = subprocess.Popen(command, env=environ)
    while child.poll() is None:
        crew.turn(30)
        if crew.asked_by in {signal.SIGTERM, signal.SIGHUP}:
            child.terminate()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
