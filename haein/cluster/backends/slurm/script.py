"""What is handed over: the batch script, and the order that the process it starts finds in the attempt's folder."""

from __future__ import annotations

import hashlib
import py_compile
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from haein.cluster.backends.base import Launch, Refused
from haein.cluster.backends.local import confinement, preparing
from haein.cluster.backends.local.orders import Order
from haein.cluster.backends.local.preparing import Layout
from haein.cluster.backends.slurm import devices, names
from haein.cluster.backends.slurm.devices import Rig
from haein.cluster.backends.slurm.records import Submission

SCRIPT = """\
#!/bin/sh
# Haein runs attempt {attempt} of job {job}. This process only starts the one that looks after it.
exec /usr/bin/env python3 -I -S -E {agent} {folder}
"""
# Slurm's own limit is the second lock, for a process that looks after nothing any more.
SPARE_MIN = 2
FRESH_S = 60
PACKAGE = Path(__file__).resolve().parents[3]
# What a node needs of us, from the package's folder on: the standard library is all that it stands on.
AGENT = (
    *("__init__", "cluster/__init__", "cluster/backends/__init__"),
    *(f"cluster/backends/local/{name}" for name in ("__init__", "landlock", "log", "namespaces", "orders")),
    *(f"cluster/backends/local/{name}" for name in ("processes", "records", "scratch", "starting", "tending", "usage")),
    *(f"cluster/backends/slurm/{name}" for name in ("__init__", "agent", "worker")),
)


class Uneven(Exception):
    """Its workers would share nodes unevenly, and Slurm gives every node of a job the same."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the site asks of every submission."""

    partitions: tuple[str, ...] = ()
    account: str = ""
    qos: str = ""
    reservation: str = ""


@cache
def install_agent(folder: Path) -> Path:
    """Put the code that runs on nodes into the shared folder, once for each version of it. Returns its main file."""
    files = {name: (PACKAGE / f"{name}.py").read_bytes() for name in AGENT}
    digest = hashlib.sha256(b"".join(files[name] for name in AGENT)).hexdigest()[:16]
    home = folder / "agent" / digest
    if not home.exists():
        home.parent.mkdir(mode=0o755, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{digest}.", dir=home.parent))
        for name, content in files.items():
            path = aside / "haein" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            # Whoever runs it may not write here; a node with another Python compiles for itself each time.
            py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        for path in (aside, *aside.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            aside.rename(home)
        except OSError:  # another process was as fast
            shutil.rmtree(aside)
    return home / "haein" / "cluster/backends/slurm/agent.py"


def workers_by_node(launch: Launch) -> int:
    """How many workers each of its nodes has. Raises Uneven."""
    counts = set(Counter(place.node for place in launch.places).values())
    if len(counts) > 1:
        raise Uneven
    return counts.pop()


def submission(
    launch: Launch,
    layout: Layout,
    rigs: Mapping[str, Rig],
    pools: Mapping[str, str],
    terms: Terms,
    *,
    account: str,
    user: str,
) -> Submission:
    """Raises Refused, Uneven."""
    nodes = tuple(dict.fromkeys(place.node for place in launch.places))
    workers = workers_by_node(launch)
    rig = rigs.get(nodes[0])
    shards = rig.shards if rig else 0
    _check_slices(launch, shards)
    folder = layout.attempt(launch.attempt_id)
    agent = install_agent(layout.var)
    return Submission(
        name=names.job_name(launch.attempt_id),
        comment=f"haein job {launch.job_id} attempt {launch.attempt_number}",
        script=SCRIPT.format(attempt=launch.attempt_id, job=launch.job_id, agent=agent, folder=folder),
        folder="/",
        output=str(folder / "slurm.out"),
        nodes=nodes,
        cpus=preparing.cores_of(launch) * workers,
        memory_mb=launch.memory_mb * workers,
        time_limit_min=-(-(launch.time_limit_s + launch.grace_s) // 60) + SPARE_MIN,
        gres=devices.gres_for(launch.places[0].slices, shards, workers),
        partition=pools.get(nodes[0], "") or (terms.partitions[0] if terms.partitions else ""),
        account=account or terms.account,
        qos=terms.qos,
        reservation=terms.reservation,
        user=user,
        environment={"PATH": preparing.SYSTEM_PATH, "LANG": "C.UTF-8"},
    )


def _check_slices(launch: Launch, shards: int) -> None:
    for place in launch.places:
        shared = [grant for grant in place.slices if not grant.profile and grant.units < devices.WHOLE]
        if shared and (len(place.slices) > 1 or shared[0].units * shards % devices.WHOLE or not shards):
            raise Refused(
                f"Slurm gives shares of one GPU only, in {shards}ths of it here: ask for such a share, or whole GPUs."
                if shards
                else "Slurm's GPUs are not shared on these nodes: ask for whole GPUs."
            )


def order(
    launch: Launch, layout: Layout, rigs: Mapping[str, Rig], *, environment: Path, log_cap: int, must_confine: bool
) -> tuple[Order, list[tuple[str, str]]]:
    """What the process on the node is to do, and beside it, as pairs of its own, what only Slurm's side needs.

    Raises Refused.
    """
    made = Order()
    made.attempt, made.command = str(launch.attempt_id), preparing.checked_command(launch.command)
    made.shell = preparing.SHELLS[0]
    made.work, made.scratch = str(layout.work(launch.job_id)), str(layout.scratch(launch.attempt_id))
    made.devices = ""  # told by Slurm, on the node
    made.checkpoint = preparing.checkpoint_file(launch, layout)
    made.uid = made.gid = 0
    # Slurm binds cores itself; more than any machine has leaves its choice as it is.
    made.cores, made.first_core, made.cpus, made.memory_mb = 1 << 20, 0, launch.cpus, launch.memory_mb
    made.time_limit_s, made.grace_s, made.log_cap = launch.time_limit_s, launch.grace_s, log_cap
    made.variable = [f"{name}={value}" for name, value in _variables(launch, layout, environment).items()]
    made.namespaces, made.landlock = 0, 1
    made.readable, made.device = _reachable(environment, layout.hidden, int(time.time()) // FRESH_S)
    made.system, made.own, made.hidden = [], [], []
    made.writable = [made.work, made.scratch, str(layout.team(launch.team_id)), confinement.SHARED_MEMORY]
    nodes = dict.fromkeys(place.node for place in launch.places)
    more = [("unit", f"{node}={_units_of(rigs.get(node))}") for node in nodes]
    more += [("workers", str(len(launch.places))), ("workers_by_node", str(workers_by_node(launch)))]
    more += [("must_confine", str(int(must_confine))), ("worker_cores", str(preparing.cores_of(launch)))]
    more.append(("emulated", str(int(_is_emulated(rigs)))))
    return made, more


@lru_cache(maxsize=64)
def _reachable(environment: Path, hidden: tuple[Path, ...], _moment: int) -> tuple[list[str], list[str]]:
    """What a job may read, and the devices it may open: the same for a minute, and a hundred looks at the disk."""
    return confinement.readable(environment, hidden), confinement.devices()


def _units_of(rig: Rig | None) -> str:
    """The node's GPUs in Slurm's order, by our names."""
    return ",".join(unit.device for unit in rig.units) if rig else ""


def _is_emulated(rigs: Mapping[str, Rig]) -> bool:
    return any(device.emulated for rig in rigs.values() for device in rig.devices[:1])


def _variables(launch: Launch, layout: Layout, environment: Path) -> dict[str, str]:
    """What a job's environment holds beside what Slurm puts there on the node."""
    threads = dict.fromkeys(preparing.THREAD_VARIABLES, str(preparing.cores_of(launch)))
    defaults = {
        "PATH": f"{environment}/bin:{preparing.SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        **threads,
    }
    slices = launch.places[0].slices
    owned = {
        "HOME": str(layout.work(launch.job_id)),
        "TMPDIR": str(layout.scratch(launch.attempt_id)),
        "HAEIN_JOB_ID": str(launch.job_id),
        "HAEIN_JOB_NAME": launch.job_name.replace("\0", ""),
        "HAEIN_ATTEMPT": str(launch.attempt_number),
        "HAEIN_ATTEMPT_ID": str(launch.attempt_id),
        "HAEIN_TEAM_DIR": str(layout.team(launch.team_id)),
        "HAEIN_WORKERS": str(len(launch.places)),
        "HAEIN_RANK": "0",
        "HAEIN_GPU_SHARE": f"{slices[0].units / devices.WHOLE:g}" if slices and not slices[0].profile else "0",
        "HAEIN_GPU_MEMORY_MB": "0",
    }
    if launch.checkpoints:
        owned["HAEIN_CHECKPOINT"] = preparing.checkpoint_file(launch, layout)
    return defaults | preparing.users_own(launch) | owned
