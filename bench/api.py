"""What programs get out of the API: submits a second, a list's time with a long history, a log's megabytes a second."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

from psutil import Process

from bench.ground import Figure, inhabited, percentile, summary
from haein.supervisor.layout import ROOT
from tests.house import House, until
from tests.rows import Rows
from tests.tokens import token_of
from tests.visitor import Visitor

CLIENTS = 16
SECONDS = 15
SPEC = {"name": "waits", "command": "true", "cpus": 0.1, "memory_mb": 64, "gpus": 1}


def rest_submits() -> Figure:
    """POST /api/v1/jobs, each with an Idempotency-Key, on kept connections, while every device is held."""
    with inhabited(HAEIN_API_RATE="1000000") as (house, visitor):
        holders = _fill(house, visitor)
        token = token_of(house, "operator@localhost")
        answers: list[list[float]] = [[] for _ in range(CLIENTS)]
        begun = time.monotonic()
        threads = [
            threading.Thread(target=_submit, args=(visitor.host, token, number, begun + SECONDS, answers[number]))
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        times = [each for mine in answers for each in mine]
        (rows,) = Rows(house.var).ask("SELECT count(*) FROM jobs_job WHERE name = 'waits'")
        for job in holders:
            visitor.post(f"/jobs/{job}/cancel/")
        until(lambda: all(Rows(house.var).states()[job] == "cancelled" for job in holders), "nothing runs any more")
    rate = round(len(times) / took, 1)
    detail = {"answered": len(times), "rows": rows[0], "clients": CLIENTS, "ms": summary(times)}
    return Figure(rate, "1/s", 150, detail, more_is_better=True, besides=rows[0] == len(times))


def _fill(house: House, visitor: Visitor) -> list[str]:
    """One job on each device; none of them leaves room for another."""
    jobs = [
        visitor.submit("sleep 600", name=f"holds-{number}", share=100, cpus=0.1, memory_gb=0.0625)
        for number in range(8)
    ]
    until(lambda: list(Rows(house.var).states().values()).count("running") == 8, "every device is held")
    return jobs


def _submit(host: str, token: str, client: int, until_s: float, times: list[float]) -> None:
    with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
        number = 0
        while time.monotonic() < until_s:
            number += 1
            begun = time.perf_counter()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            headers["Idempotency-Key"] = f"{client}-{number}"
            connection.request("POST", "/api/v1/jobs", json.dumps(SPEC), headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 201, body
            times.append((time.perf_counter() - begun) * 1000)


PAGES = ("/jobs/", "/jobs/?page=100", "/jobs/?q=job+4711", "/jobs/{id}/", "/api/v1/jobs", "/api/v1/jobs/{id}")
LOOKS = 60
HISTORY = """
from django.db import connection
from haein.tenants.models import User
from tests.cast import Person
from tests.dashboard import crowd
crowd.gather(Person(User.objects.get()), 1000)
crowd.multiply(115)
with connection.cursor() as cursor:
    cursor.execute("VACUUM ANALYZE")
"""


def lists() -> Figure:
    """One reader after another, with 100,000 jobs in the database: from the request to the last byte of the answer."""
    with inhabited(HAEIN_API_RATE="1000000") as (house, visitor):
        rows = Rows(house.var)
        until(lambda: rows.ask("SELECT FROM cluster_device"), "the cluster has reported")
        os.kill(house.pid("worker"), signal.SIGSTOP)  # it would try to run what is written below
        shell(house, HISTORY)
        token = token_of(house, "operator@localhost")
        ((count,),) = rows.ask("SELECT count(*) FROM jobs_job")
        ((job,),) = rows.ask("SELECT id FROM jobs_job WHERE state = 'succeeded' ORDER BY id DESC LIMIT 1")
        by_page = {page: looks(visitor, token, page.replace("{id}", str(job))) for page in PAGES}
    worst = max(percentile(times, 95) for times in by_page.values())
    detail = {"jobs": count, **{page: summary(times) for page, times in by_page.items()}}
    return Figure(round(worst, 1), "ms", 100, detail, besides=count >= 100_000)


def shell(house: House, script: str) -> str:
    """What the script prints, run beside the house's server on its database."""
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", script]
    return subprocess.run(command, cwd=ROOT, env=house.environ(), check=True, stdout=subprocess.PIPE, text=True).stdout


def looks(visitor: Visitor, token: str, path: str) -> list[float]:
    """Milliseconds from each request to the last byte of its answer; pages are asked for with cookies, the API's with
    the token."""
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())}
    if path.startswith("/api/"):
        headers = {"Authorization": f"Bearer {token}"}
    times = []
    with closing(http.client.HTTPConnection(visitor.host, timeout=30)) as connection:
        for _look in range(LOOKS):
            begun = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, path
            times.append((time.perf_counter() - begun) * 1000)
    return times


LOG_MB = 400
LINE = "step 000123 loss 0.0123 accuracy 0.9876 and so on: a line of a hundred bytes, as trainings print them"
PRINTS = f"yes '{LINE}' | head -c {LOG_MB}000000"


def logs() -> Figure:
    """GET .../logs?follow=1 of a log that is there and of one that grows, as text; and what it costs the web server."""
    with inhabited(HAEIN_API_RATE="1000000", HAEIN_LOG_MB="1024", HAEIN_WEB_WORKERS="1") as (house, visitor):
        token = token_of(house, "operator@localhost")
        web = Process(house.pid("web"))
        servers = [web, *web.children(recursive=True)]
        job = visitor.submit(PRINTS, memory_gb=1)
        growing, _peak = _followed(visitor.host, token, job, servers)
        until(lambda: Rows(house.var).states()[job] == "succeeded", "it has ended")
        before = _resident(servers)
        kept, peak = _followed(visitor.host, token, job, servers)
        records, _ = _followed(visitor.host, token, job, servers, "&format=ndjson")
    grown = round(peak - before, 1)
    detail = {"while_it_prints": growing, "as_records": records, "log_mb": LOG_MB}
    detail |= {"web_mb_before": round(before, 1), "web_mb_grown": grown, "web_mb_grown_target": 20}
    return Figure(kept, "MB/s", 20, detail, more_is_better=True, besides=grown < 20)


def _followed(host: str, token: str, job: str, servers: list[Process], more: str = "") -> tuple[float, float]:
    """Megabytes of log a second, and the most megabytes that the web server had resident meanwhile."""
    peak, taken, looked = 0.0, 0, 0.0
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        begun = time.perf_counter()
        path = f"/api/v1/jobs/{job}/logs?follow=1{more}"
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        while piece := answer.read1(1 << 20):
            taken += len(piece)
            if time.perf_counter() - looked > 0.2:
                peak, looked = max(peak, _resident(servers)), time.perf_counter()
        took = time.perf_counter() - begun
    assert taken >= LOG_MB * 1_000_000, taken
    return round(LOG_MB / took, 1), peak


def _resident(servers: list[Process]) -> float:
    return float(sum(server.memory_info().rss for server in servers)) / 1e6
