"""Finds what keeps Slurm and Haein from working together, and says what to do about it: read first, then tried."""

from __future__ import annotations

import enum
import os
import pwd
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from haein.cluster.backends.base import BackendDown, Cause, Launch, NodeFact, Phase, Place, Refused, Sight
from haein.cluster.backends.local import preparing
from haein.cluster.backends.slurm import tools
from haein.cluster.backends.slurm.backend import Site, SlurmBackend
from haein.cluster.backends.slurm.commands import Runner
from haein.cluster.backends.slurm.gateway import Gateway, SlurmDown, SlurmRefused

# Fewer seconds than that, and a job may be gone from slurmctld before Haein has seen its end.
LEAST_JOB_AGE = 60
LOOK_S = 0.5
# What the job of a trial does, so that its log shows where and as whom it ran.
COMMAND = 'echo "$(id -un) on $(uname -n), $(python3 --version)"'
_NO = frozenset({"", "(null)", "none", "no"})


class Grade(enum.Enum):
    """How much of it works."""

    GOOD = "ok"
    DOUBTFUL = "note"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: a sentence, with what to do where it is not good."""

    grade: Grade
    sentence: str


def good(sentence: str) -> Finding:
    return Finding(Grade.GOOD, sentence)


def doubtful(sentence: str) -> Finding:
    return Finding(Grade.DOUBTFUL, sentence)


def wrong(sentence: str) -> Finding:
    return Finding(Grade.WRONG, sentence)


def read(runner: Runner, gateway: Gateway, site: Site, *, by_rest: bool, by_account: bool) -> Iterator[Finding]:
    """What can be known without running anything. `by_rest` says that slurmrestd is used, `by_account` that each
    team has an account of its own."""
    try:
        config = tools.config(runner)
        yield good(f"slurmctld of the cluster {config.get('ClusterName', '?')} answers: Slurm {_version(config)}.")
        yield from of_config(config, by_rest=by_rest, by_account=by_account)
        yield from _of_partitions(runner, site)
        yield from _of_nodes(gateway, site)
        if not _is_off(config.get("AccountingStorageType", "")):
            yield from _of_accounting(runner)
    except (SlurmDown, SlurmRefused) as fault:
        yield wrong(str(fault))
    yield from _of_folder(site)
    yield from _of_users(site)


def _version(config: Mapping[str, str]) -> str:
    return config.get("SLURM_VERSION", "of an unknown version")


def _is_off(value: str) -> bool:
    return value.lower() in _NO or value.endswith("/none")


def of_config(config: Mapping[str, str], *, by_rest: bool, by_account: bool) -> Iterator[Finding]:
    """What slurm.conf, as slurmctld has read it, says for or against."""

    def says(name: str, word: str) -> bool:
        return word in config.get(name, "").lower()

    if not says("SelectType", "cons_tres"):
        yield wrong("SelectType is not select/cons_tres: Slurm can't give single GPUs of a node.")
    if "memory" not in config.get("SelectTypeParameters", "").lower():
        yield doubtful(
            "SelectTypeParameters counts no memory: jobs of others may take what Haein's jobs were promised."
        )
    if not says("GresTypes", "gpu"):
        yield wrong("GresTypes has no gpu: Slurm knows of no GPUs.")
    if not says("ProctrackType", "cgroup"):
        yield doubtful("ProctrackType is not proctrack/cgroup: a process that detaches itself outlives its job.")
    if not says("ConstrainDevices", "yes"):
        yield doubtful("cgroup.conf has no ConstrainDevices=yes: a job can use GPUs of the node that are not its own.")
    age = config.get("MinJobAge", "").split(" ")[0]
    if age.isdigit() and int(age) < LEAST_JOB_AGE:
        yield doubtful(
            f"MinJobAge is {age} s: set at least {LEAST_JOB_AGE}, or ends are learned from accounting alone."
        )
    if by_rest and not says("AuthAltTypes", "auth/jwt"):
        yield wrong("AuthAltTypes has no auth/jwt: slurmrestd takes no tokens.")
    if _is_off(config.get("AccountingStorageType", "")):
        grade = wrong if by_account else doubtful
        yield grade("Slurm keeps no accounting: what it forgets (MinJobAge) is known by Haein's own records alone.")
        return
    if not says("AccountingStorageTRES", "gres/gpu"):
        yield doubtful("AccountingStorageTRES has no gres/gpu: accounts can't limit GPUs, and a past has none in it.")
    if by_account and not says("AccountingStorageEnforce", "limits"):
        yield doubtful("AccountingStorageEnforce has no limits: Slurm notes the teams' limits and does not hold them.")


def _of_partitions(runner: Runner, site: Site) -> Iterator[Finding]:
    lines = tools.ask(runner, "scontrol", "-o", "-a", "show", "partition").splitlines()
    rows = (dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines)
    known = {row["PartitionName"]: row for row in rows if "PartitionName" in row}
    for name in site.terms.partitions:
        if name not in known:
            yield wrong(f"There is no partition {name}: HAEIN_SLURM_PARTITIONS may name {', '.join(sorted(known))}.")
    for name in sorted(set(site.terms.partitions or known) & known.keys()):
        row = known[name]
        if row.get("State") != "UP":
            yield wrong(f"The partition {name} is {row.get('State')}.")
        if row.get("OverSubscribe") == "EXCLUSIVE":
            yield wrong(f"The partition {name} has OverSubscribe=EXCLUSIVE: Haein places several jobs on one node.")


def _of_nodes(gateway: Gateway, site: Site) -> Iterator[Finding]:
    wanted = set(site.terms.partitions)
    nodes = [node for node in gateway.nodes() if not wanted or wanted & set(node.partitions)]
    gpus = sum(each.count for node in nodes for each in node.gres if each.name == "gpu")
    if not gpus:
        yield wrong("No node has a GPU: gres.conf and the Gres= of slurm.conf's nodes say which there are.")
        return
    yield good(f"{len(nodes)} nodes with {gpus} GPUs, as Slurm counts them (each MIG instance is one).")
    untyped = [node.name for node in nodes if any(each.name == "gpu" and not each.type for each in node.gres)]
    if untyped:
        yield doubtful(f"GPUs without a type on {_some(untyped)}: give them one in gres.conf (Type=b200).")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _of_accounting(runner: Runner) -> Iterator[Finding]:
    try:
        who = tools.ask(runner, "id", "-un").strip()
        level = tools.ask(runner, "sacctmgr", "-nP", "show", "user", who, "format=admin").strip()
    except (SlurmDown, SlurmRefused) as fault:
        yield doubtful(f"slurmdbd does not answer now: {fault}")
        return
    yield good("slurmdbd answers.")
    if who == "root" or level == "Administrator":
        return
    if level != "Operator":
        yield doubtful(
            f"{who} is no operator in Slurm: it can't end jobs that run as others, nor keep accounts by team."
        )
    yield doubtful(f"{who} is no administrator in Slurm: a drain of Haein's holds for Haein's own jobs alone.")


def _of_folder(site: Site) -> Iterator[Finding]:
    folder = site.folder
    if not folder.is_dir():
        yield wrong(f"The shared folder {folder} (HAEIN_SLURM_FOLDER) is not there.")
        return
    shut = [each for each in (folder, *folder.parents) if not each.stat().st_mode & 0o001]
    if shut and (site.user or site.users):
        yield wrong(f"Others can't pass through {shut[0]}, so jobs can't reach {folder}: chmod o+x.")
    layout = preparing.Layout(folder)
    ready = [name for name in preparing.environment_names(layout) if (layout.environments / name / ".ready").exists()]
    if ready:
        yield good(f"The shared folder {folder} has the Python environments {', '.join(sorted(ready))}.")
    else:
        yield wrong(f"There is no Python environment ready in {layout.environments}: jobs have nothing to run in.")


def _of_users(site: Site) -> Iterator[Finding]:
    for user in sorted({site.user, *site.users.values()} - {""}):
        try:
            pwd.getpwnam(user)
        except KeyError:
            if os.geteuid() == 0:
                yield wrong(f"There is no user {user} on this machine, to whom the jobs' folders would be given.")


# Tries.


def chosen(nodes: Sequence[NodeFact], *, every: bool) -> list[NodeFact]:
    """Where to try: the first node of each pool that takes work, or each that does."""
    able = [node for node in nodes if not node.problem]
    return able if every else list({node.pool: node for node in reversed(able)}.values())[::-1]


def tried(backend: SlurmBackend, site: Site, nodes: Sequence[NodeFact], patience_s: float) -> Iterator[Finding]:
    """Run a small job without a GPU on each of the nodes, as each user that jobs run as, from launch to log."""
    environment = next((each.name for each in backend.environments() if each.ready), "")
    owners: Sequence[UUID | None] = list(site.users) or [None]
    launches = [_launch(node, organization, environment) for node in nodes for organization in owners]
    waiting: dict[UUID, Launch] = {}
    for launch in launches:
        try:
            backend.launch(launch)
            waiting[launch.attempt_id] = launch
        except (Refused, BackendDown) as fault:
            yield wrong(f"{launch.places[0].node}: {fault}")
    deadline = time.monotonic() + patience_s
    try:
        while waiting:
            sights = backend.observe(list(waiting))
            late = time.monotonic() > deadline
            for attempt, sight in sights.items():
                if sight.phase is Phase.ENDED or late:
                    yield _judged(backend, waiting.pop(attempt), sight)
            time.sleep(LOOK_S if waiting else 0)
    finally:
        _clear(backend, site.folder, launches, list(waiting))


def _launch(node: NodeFact, organization: UUID | None, environment: str) -> Launch:
    return Launch(
        attempt_id=uuid4(),
        attempt_number=1,
        job_id=uuid4(),
        job_name="haein check",
        team_id=uuid4(),
        command=COMMAND,
        environment=environment,
        places=(Place(node.name, ()),),
        cpus=1000,
        memory_mb=256,
        time_limit_s=60,
        grace_s=1,
        organization_id=organization,
    )


def _judged(backend: SlurmBackend, launch: Launch, sight: Sight) -> Finding:
    node = launch.places[0].node
    if sight.phase is not Phase.ENDED:
        return wrong(f"{node}: the trial has not ended in time. {sight.detail or 'It runs.'}")
    if sight.cause is not Cause.EXITED or sight.exit_code != 0:
        return wrong(f"{node}: the trial failed ({sight.cause.value if sight.cause else '?'}). {sight.detail}")
    said = [line.text for line in backend.read_log(launch.attempt_id, 0, 1 << 16).lines if line.stream == "out"]
    if not said:
        return wrong(f"{node}: the trial ran, and its log did not arrive in the shared folder.")
    return good(f"{node}: a job ran as {said[0]}.")


def _clear(backend: SlurmBackend, folder: Path, launches: Sequence[Launch], running: Sequence[UUID]) -> None:
    backend.stop(running)
    layout = preparing.Layout(folder)
    for launch in launches:
        for left in (layout.work(launch.job_id), layout.team(launch.team_id)):
            shutil.rmtree(left, ignore_errors=True)
    backend.forget([launch.attempt_id for launch in launches if launch.attempt_id not in running])
