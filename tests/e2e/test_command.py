"""The command against a real house: through a web server that is killed, and left with Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.house import House, until
from tests.rows import Rows
from tests.tokens import token_of

SMALL = ["--gpus", "0", "--cpus", "0.1", "--memory", "128MiB"]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(house: House, visitor: object, rows: Rows) -> Start:
    """Starts the command, signed in."""
    ((email,),) = rows.ask("SELECT email FROM tenants_user")
    token = token_of(house, email)
    signed_in = {"HAEIN_URL": f"http://localhost:{house.port}", "HAEIN_TOKEN": token}

    def start(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "haein.client", *words]
        return subprocess.Popen(command, env={**os.environ, **signed_in}, stdout=pipe, stderr=pipe, text=True)

    return start


def test_following_survives_a_web_server_that_is_killed(house: House, start: Start) -> None:
    loop = "for i in $(seq 1 150); do echo line-$i; sleep 0.04; done; exit 3"
    with start("submit", *SMALL, "--wait", "--", loop) as command:
        assert command.stdout
        assert command.stderr
        seen = [command.stdout.readline() for _ in range(20)]
        os.kill(house.pid("web"), signal.SIGKILL)
        seen += command.stdout.readlines()
        told = command.stderr.read()
    assert seen == [f"line-{number}\n" for number in range(1, 151)]
    assert (command.returncode, "exit code 3" in told) == (3, True)


def test_ctrl_c_leaves_the_job_running_and_says_how_to_end_it(house: House, rows: Rows, start: Start) -> None:
    with start("submit", *SMALL, "--follow", "--", "echo here; exec sleep 600") as command:
        assert command.stdout
        assert command.stdout.readline() == "here\n"
        command.send_signal(signal.SIGINT)
        _, told = command.communicate(timeout=30)
    ((job, state),) = rows.states().items()
    assert (command.returncode, state) == (130, "running")
    assert f"The job goes on. `haein cancel {job[-8:]}` ends it" in told
    with start("cancel", job[-8:]) as cancel:
        assert cancel.wait(30) == 0
    until(lambda: set(rows.states().values()) == {"cancelled"}, "it is cancelled")
