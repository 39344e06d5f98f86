"""What is in the way of a start is told in one line that says what to do."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haein.supervisor.layout import ROOT
from tests.house import COMMAND, House, until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and give files away")


def test_it_names_a_taken_port_and_another_one(house: House) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", house.port))
        taker.listen()
        line = house.refusal()
    assert f"Port {house.port} of 127.0.0.1 is taken by" in line
    assert f"(process {os.getpid()})" in line
    assert f"HAEIN_PORT={house.port % 65535 + 1} make up" in line


def test_it_refuses_a_port_that_is_no_number(house: House) -> None:
    assert "HAEIN_PORT is 'http': it must be a number from 1 to 65535." in house.refusal(HAEIN_PORT="http")


def test_it_refuses_an_address_that_this_machine_does_not_have(house: House) -> None:
    assert "HAEIN_BIND is 192.0.2.1, where this machine can't listen" in house.refusal(HAEIN_BIND="192.0.2.1")


@pytest.mark.parametrize("version", ["format 1\nhaein 999.0.0\n", "format 999\nhaein 0.1.0\n"])
def test_it_leaves_data_of_a_newer_version_alone(house: House, version: str) -> None:
    (house.var / "version").write_text(version)
    line = house.refusal()
    assert f"{house.var} was last used by Haein" in line
    assert "run the newer version" in line
    assert (house.var / "version").read_text() == version


def test_a_second_one_is_told_about_the_first(house: House) -> None:
    hold = [
        *COMMAND,
        "services",
        "--var",
        str(house.var),
        "--",
        sys.executable,
        "-c",
        "print('on', flush=True); input()",
    ]
    with subprocess.Popen(hold, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "on\n"
        line = house.refusal()
        first.stdin.write("\n")
    assert f"already runs on {house.var} (process {first.pid}" in line
    assert first.returncode == 0


def test_it_does_not_take_a_file_for_a_folder(house: House) -> None:
    (house.var / "work").write_text("")
    assert f"{house.var / 'work'} " in house.refusal()


@as_root
def test_it_leaves_the_folder_of_another_account_alone(house: House) -> None:
    os.chown(house.var, 65534, 65534)
    assert "belongs to another account" in house.refusal()


@pytest.fixture
def small_disk(house: House) -> Iterator[House]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", house.var], check=True)
    try:
        yield house
    finally:
        subprocess.run(["umount", house.var], check=True)


@as_root
def test_it_names_a_disk_without_room(small_disk: House) -> None:
    line = small_disk.refusal()
    assert f"The disk of {small_disk.var} has 6" in line
    assert "free some room" in line


@as_root
@pytest.mark.long
def test_a_disk_that_fills_up_is_said_plainly_and_stops_nothing(house: House) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", house.var], check=True)
    try:
        (house.var / "env").symlink_to(ROOT / "var" / "env")
        house.up()
        fill(house.var / "ballast")
        until(lambda: house.says("is full: free some room") or house.says("MB left: free some room"), "the line", 90)
        assert house.answers()
        (house.var / "ballast").unlink()
        house.end()
    finally:
        subprocess.run(["umount", house.var], check=True)


def fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass
