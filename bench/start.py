"""How long `make up` takes to a page that answers."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from bench.ground import Figure
from haein.supervisor.layout import ROOT
from tests.house import House, made, until

WARM = 3


def up_warm() -> Figure:
    """The command itself, on a new data folder (cold; dependencies installed) and then again and again (warm)."""
    with made() as house:
        cold = _once(house)
        warm = sorted(_once(house) for _ in range(WARM))
    detail = {"cold": round(cold, 2), "cold_target": 40, "warm": [round(seconds, 2) for seconds in warm]}
    return Figure(round(warm[WARM // 2], 2), "s", 12, detail, besides=cold < 40)


def _once(house: House) -> float:
    begun = time.monotonic()
    with subprocess.Popen(
        ["make", "up"],
        cwd=ROOT,
        env=house.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as up:
        until(house.answers, "the page answers", 120)
        took = time.monotonic() - begun
        os.killpg(up.pid, signal.SIGTERM)
        up.wait(60)
    until(lambda: not house.processes(), "everything is stopped")
    return took
