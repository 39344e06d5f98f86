"""The whole house on real processes: whatever is killed comes back, and what is stopped is gone."""

import os
import signal
from pathlib import Path

import pytest

from tests.house import House, until

PARTS = ("web", "worker", "replayer", "beat", "valkey", "postgres")

pytestmark = pytest.mark.long


def test_a_part_that_is_killed_is_started_again_and_said_so(house: House) -> None:
    house.up()
    for part in PARTS:
        before = house.pid(part)
        os.kill(before, signal.SIGKILL)
        until(lambda: house.pid(part) not in {0, before}, f"another {part}")  # noqa: B023 - looked at within the turn
        until(lambda: house.says(f"{part} was ended by SIGKILL. It is started again"), "it is said")  # noqa: B023
        until(house.answers, f"the page answers after the death of {part}")


def test_asked_to_end_it_leaves_no_process(house: House) -> None:
    house.up()
    assert len(house.processes()) > len(PARTS)
    house.end()
    assert house.process is not None
    assert house.process.returncode == 0
    assert house.says("Everything is stopped.")
    assert house.processes() == []


def test_after_its_own_death_the_parts_end_by_themselves(house: House) -> None:
    house.up()
    assert house.process is not None
    house.process.kill()
    until(lambda: not house.processes(), "all parts have ended", 20)


def test_the_next_one_ends_what_a_killed_one_left(house: House) -> None:
    house.up()
    assert house.process is not None
    # Stopped parts hear no signal but the last: the worst that a death can leave.
    held = {part: house.pid(part) for part in PARTS}
    for pid in held.values():
        os.kill(pid, signal.SIGSTOP)
    house.process.kill()
    house.process.wait()
    house.up()
    assert not set(held.values()) & {int(line.split()[0]) for line in house.processes()}
    for part in PARTS:
        assert house.says(f"{part} still runs without a supervisor; it is ended first.")
        assert house.pid(part) not in {0, held[part]}
    assert house.answers()


def test_a_number_that_is_somebody_elses_by_now_is_left_alone(house: House) -> None:
    records = house.var / "run"
    records.mkdir(mode=0o700)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (records / "worker.pid").write_text(f"{os.getpid()} 1 {boot} {signal.SIGKILL:d} {signal.SIGKILL:d} 1 1\n")
    house.up()
    assert not house.says("worker still runs")


def test_it_says_what_keeps_jobs_apart(house: House) -> None:
    house.up()
    until(lambda: house.says("Jobs are kept apart by") or house.says("Jobs share one user here"), "it is said")
