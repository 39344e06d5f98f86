"""Haein on a real Slurm of 128 nodes, beside the same Slurm used bare in the same run."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench.ground import Figure, inhabited, percentile, summary
from haein.cluster.backends.slurm.tokens import MintedTokens
from haein.slurmlab.lab import Lab
from tests.contract.slurm_stage import JOBS_USER
from tests.house import until
from tests.rows import Rows
from tests.slurmlab import house_settings
from tests.tokens import token_of

NODES = 128
CLIENTS = 16
JOBS = 800
BARE_JOBS = 400
STARTS = 20
KNOWN = 5000
SPEC = {"name": "held", "command": "true", "cpus": 1, "memory_mb": 64, "gpus": 1}
NUMBERED = threading.Lock()


@contextmanager
def cluster(nodes: int = NODES) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="haein-slurm-"))
    folder.chmod(0o755)
    lab = Lab(folder, nodes=nodes, accounting=True)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder)


def settings(lab: Lab) -> dict[str, str]:
    return {**house_settings(lab), "HAEIN_API_RATE": "1000000"}


def submits() -> Figure:
    """POST /api/v1/jobs by 16 clients until slurmctld lists every job, while a limit of Slurm's lets none start.

    Beside it, in the same run: slurmrestd alone by 16 clients, and 16 parallel sbatch, with jobs that are held.
    """
    with cluster() as lab:
        bare_rest = _rate(BARE_JOBS, _rest_client(lab))
        bare_sbatch = _rate(BARE_JOBS, _sbatch_client(lab))
        lab.run("scancel", "--state=PENDING", f"--user={JOBS_USER}")
        # Slurm takes jobs, and starts none.
        lab.run("sacctmgr", "-i", "-Q", "modify", "qos", "normal", "set", "GrpJobs=0")
        with inhabited(**settings(lab), HAEIN_SLURM_PATIENCE_SECONDS="3600") as (house, visitor):
            rows = Rows(house.var)
            until(lambda: rows.ask("SELECT FROM cluster_device"), "the cluster has reported")
            token = token_of(house, "operator@localhost")
            begun = time.monotonic()
            answered = _rate(JOBS, _client(visitor.host, token))
            until(lambda: len(_accepted(lab)) >= JOBS, "slurmctld has every job", 300)
            took = time.monotonic() - begun
            accepted = _accepted(lab)
            ((committed,),) = rows.ask("SELECT count(*) FROM jobs_job WHERE name = 'held'")
    rate = JOBS / took
    once = len(accepted) == committed == JOBS and set(accepted.values()) == {1}
    detail = {
        "jobs": JOBS,
        "found_once": once,
        "rest_answers_per_s": round(answered, 1),
        "slurmrestd_alone_per_s": round(bare_rest, 1),
        "sbatch_16_per_s": round(bare_sbatch, 1),
        "ratio_to_slurmrestd": round(rate / bare_rest, 3),
        "ratio_to_sbatch": round(rate / bare_sbatch, 3),
    }
    return Figure(round(rate, 1), "1/s", 100, detail, more_is_better=True, besides=once)


def _rate(jobs: int, submit: Callable[[int], None]) -> float:
    """How many a second 16 threads do."""
    numbers = iter(range(jobs))

    def work() -> None:
        while True:
            with NUMBERED:
                number = next(numbers, None)
            if number is None:
                return
            submit(number)

    begun = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return jobs / (time.monotonic() - begun)


def _client(host: str, token: str) -> Callable[[int], None]:
    mine = threading.local()

    def post(number: int) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(host, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        headers["Idempotency-Key"] = f"held-{number}"
        mine.connection.request("POST", "/api/v1/jobs", json.dumps(SPEC), headers)
        answer = mine.connection.getresponse()
        body = answer.read()
        assert answer.status == 201, body

    return post


def _rest_client(lab: Lab, name: Callable[[int], str] = lambda number: f"bare-{number}") -> Callable[[int], None]:
    tokens = MintedTokens(lab.jwt_key, "root" if os.geteuid() == 0 else JOBS_USER)
    host, mine = urlsplit(lab.rest_url).netloc, threading.local()

    def submit(number: int) -> None:
        job = {
            "name": name(number),
            "partition": "main",
            "hold": True,
            "gres": "gpu:b200:1",
            "cpus_per_task": 1,
            "time_limit": 10,
            "current_working_directory": "/",
            "standard_output": "/dev/null",
            "environment": {"PATH": "/usr/bin:/bin"},
        }
        headers = {"X-SLURM-USER-NAME": JOBS_USER, "X-SLURM-USER-TOKEN": tokens.token()}
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(host, timeout=60)
        body = json.dumps({"script": "#!/bin/sh\ntrue\n", "job": job})
        headers["Content-Type"] = "application/json"
        mine.connection.request("POST", "/slurm/v0.0.38/job/submit", body, headers)
        answer = mine.connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said

    return submit


def _sbatch_client(lab: Lab) -> Callable[[int], None]:
    own = (
        [f"--uid={JOBS_USER}", f"--gid={JOBS_USER if JOBS_USER != 'nobody' else 'nogroup'}"]
        if os.geteuid() == 0
        else []
    )
    command = ["sbatch", "--parsable", "--hold", "--gres=gpu:b200:1", "--output=/dev/null", "--chdir=/", *own]
    environ = {**os.environ, **lab.environ}

    def submit(number: int) -> None:
        subprocess.run(
            [*command, f"--job-name=bare-{number}", "--wrap=true"], env=environ, check=True, capture_output=True
        )

    return submit


def _accepted(lab: Lab) -> Counter[str]:
    names = lab.run("squeue", "--noheader", "--states=all", "--format=%j").split()
    return Counter(name for name in names if name.startswith("haein-"))


def starts() -> Figure:
    """From before the form is posted until the stamp on the script's first line; bare sbatch in turns with it."""
    ours, handed, bare = [], [], []
    with cluster() as lab, inhabited(**settings(lab)) as (house, visitor):
        rows = Rows(house.var)
        until(lambda: rows.ask("SELECT FROM cluster_device"), "the cluster has reported")
        folder = house.var / "bare"
        folder.mkdir()
        folder.chmod(0o777)
        for number in range(STARTS):
            # Slurm looks at batch jobs about once a second: each of the two meets every part of that second.
            time.sleep(number / STARTS)
            begun = time.time()
            job = visitor.submit("date +%s.%N", gpus=1, share=100, cpus=1)
            until(partial(_has_run, rows, job), "it has run")
            ours.append((float(_first_line(house.var, rows, job)) - begun) * 1000)
            handed.append((_handed_over(house.var, rows, job) - begun) * 1000)
            time.sleep(number / STARTS)
            bare.append(_bare_start(lab, folder / str(number)))
    ratio = statistics.median(ours) / statistics.median(bare)
    detail = {
        "ours_ms": summary(ours),
        "handed_over_ms": summary(handed),
        "sbatch_ms": summary(bare),
        "ratio": round(ratio, 3),
        "ratio_target": 1.3,
    }
    return Figure(round(statistics.median(ours)), "ms", 1.3 * statistics.median(bare), detail)


def _has_run(rows: Rows, job: str) -> bool:
    return rows.states().get(job) == "succeeded"


def _first_line(var: Path, rows: Rows, job: str) -> str:
    ((attempt,),) = rows.ask(f"SELECT id FROM jobs_attempt WHERE job_id = '{job}'")
    (segment,) = (var / "attempts" / str(attempt) / "log").iterdir()
    return segment.read_text().split("\n")[0][18:]


def _handed_over(var: Path, rows: Rows, job: str) -> float:
    """When Slurm had accepted it."""
    ((attempt,),) = rows.ask(f"SELECT id FROM jobs_attempt WHERE job_id = '{job}'")
    return (var / "attempts" / str(attempt) / "submitted").stat().st_mtime


def _bare_start(lab: Lab, written: Path) -> float:
    own = (
        [f"--uid={JOBS_USER}", f"--gid={JOBS_USER if JOBS_USER != 'nobody' else 'nogroup'}"]
        if os.geteuid() == 0
        else []
    )
    begun = time.time()
    lab.run(
        "sbatch",
        "--gres=gpu:b200:1",
        "--output=/dev/null",
        "--chdir=/",
        *own,
        f"--wrap=date +%s.%N > {written}.new; mv {written}.new {written}",
    )
    until(written.exists, "it has run")
    return (float(written.read_text()) - begun) * 1000


# In a process of its own, so that its memory is that of observing alone.
OBSERVER = """
import json, resource, sys, time
from pathlib import Path
from haein.cluster.backends.slurm.backend import Site, SlurmBackend
from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner
from uuid import UUID
folder, conf, user = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
backend = SlurmBackend(CommandGateway(LocalRunner(conf)), Site(folder, user=user, patience_s=1 << 30))
attempts = [UUID(path.name) for path in (folder / "attempts").iterdir()]
times = []
for _ in range(7):
    begun = time.perf_counter()
    sights = backend.observe(attempts)
    times.append((time.perf_counter() - begun) * 1000)
    assert len(sights) == len(attempts) and all(sight.detail for sight in sights.values())
print(json.dumps([times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def observes() -> Figure:
    """One observation of 5,000 attempts that wait in slurmctld, and squeue's bare text in the same run."""
    with cluster() as lab, tempfile.TemporaryDirectory(prefix="haein-bench-") as data:
        folder = Path(data)
        attempts = [_waiting_attempt(folder) for _ in range(KNOWN)]
        _rate(KNOWN, _rest_client(lab, lambda number: f"haein-{attempts[number]}"))
        command = [sys.executable, "-c", OBSERVER, data, str(lab.conf), JOBS_USER]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **lab.environ})
        times, memory_mb = json.loads(said.stdout)
        bare = []
        for _ in range(7):
            begun = time.perf_counter()
            lab.run("squeue", "-h", "-o", "%i|%T|%u|%r|%N")
            bare.append((time.perf_counter() - begun) * 1000)
    detail = {
        "jobs": KNOWN,
        "observe_ms": summary(times),
        "squeue_text_ms": summary(bare),
        "memory_mb": round(memory_mb, 1),
        "memory_mb_target": 200,
        "p95_ms": round(percentile(times, 95), 1),
    }
    return Figure(round(statistics.median(times), 1), "ms", 300, detail, besides=memory_mb < 200)


def _waiting_attempt(folder: Path) -> str:
    """The folder of one that was handed over and waits, as a launch leaves it."""
    import uuid

    attempt = str(uuid.uuid4())
    home = folder / "attempts" / attempt
    home.mkdir(parents=True)
    (home / "order").write_bytes(b"attempt=x\0")
    return attempt
