"""The files that make Slurm's daemons run beside each other on one machine, without systemd and without cgroups.

Every node is a slurmd of its own on a port of its own (Debian builds them with --enable-multiple-slurmd). A GPU is a
symbolic link to the null device, the least that slurmd takes for one; its trailing number becomes the index that a job
finds in CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLUSTER = "haein"
GPU_TYPE = "b200"
MIG_PROFILE = "1g.23gb"
MIG_OF_A_GPU = 7
DATABASE_PASSWORD = "haein"  # noqa: S105 - of a database on loopback whose data is thrown away with the folder
# So much as a machine with eight B200 has; nothing is really there (config_overrides).
CORES_OF_A_SOCKET, MEMORY_MB = 56, 2_000_000


@dataclass(frozen=True)
class Ports:
    """One after another, from the first."""

    first: int
    nodes: int

    @property
    def controller(self) -> int:
        return self.first

    @property
    def accounting(self) -> int:
        return self.first + 1

    @property
    def database(self) -> int:
        return self.first + 2

    @property
    def rest(self) -> int:
        return self.first + 3

    def node(self, number: int) -> int:
        """Of the node with this number, from 1."""
        return self.first + 3 + number

    @property
    def all(self) -> range:
        return range(self.first, self.node(self.nodes) + 1)


@dataclass(frozen=True)
class Shape:
    """What the cluster is made of: the last `mig_nodes` of the nodes have every GPU carved into seven instances, the
    others whole GPUs of `shards` shards each."""

    nodes: int
    gpus: int
    mig_nodes: int
    shards: int
    accounting: bool
    node_timeout_s: int

    def names(self) -> list[str]:
        return [node_name(number) for number in range(1, self.nodes + 1)]

    @property
    def whole_nodes(self) -> int:
        return self.nodes - self.mig_nodes


def node_name(number: int) -> str:
    return f"node{number:03d}"


def slurm_conf(folder: Path, shape: Shape, ports: Ports, user: str) -> str:
    return "\n".join(
        (
            f"ClusterName={CLUSTER}",
            "SlurmctldHost=localhost(127.0.0.1)",
            f"SlurmctldPort={ports.controller}",
            # Else the daemons listen on every address of the machine.
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={folder}/run/munge.sock",
            "CredType=cred/munge",
            "AuthAltTypes=auth/jwt",
            f"AuthAltParameters=jwt_key={folder}/etc/jwt.key",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/d/%n",
            f"SlurmctldPidFile={folder}/run/slurmctld.pid",
            f"SlurmdPidFile={folder}/run/%n.pid",
            # By this file a step is known for ours after its slurmd is gone.
            f"SlurmdLogFile={folder}/log/%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            # Every step of jobacct_gather/linux looks through all of /proc, those of the other nodes included.
            "JobAcctGatherType=jobacct_gather/none",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "SlurmdParameters=config_overrides",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SchedulerType=sched/backfill",
            f"SchedulerParameters={','.join(_SCHEDULER)}",
            "DefCpuPerGPU=4",
            "DefMemPerCPU=1000",
            "JobRequeue=1",
            "MaxJobCount=50000",
            "MaxArraySize=10001",
            "MinJobAge=300",
            "CompleteWait=0",
            "KillWait=5",
            "UnkillableStepTimeout=60",
            # A dead node is asked for so long before its silence begins to count.
            f"MessageTimeout={max(10, shape.node_timeout_s // 5)}",
            "SlurmctldTimeout=120",
            f"SlurmdTimeout={shape.node_timeout_s}",
            "ReturnToService=2",
            # Each slurmd is told directly: all are one hop away.
            "TreeWidth=65533",
            "MailProg=/bin/true",
            *(_accounting(folder, shape, ports) if shape.accounting else _NO_ACCOUNTING),
            f"GresTypes={'gpu,shard' if shape.shards else 'gpu'}",
            *_nodes(shape, ports),
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO",
            "",
        )
    )


_SCHEDULER = (
    "bf_continue",
    "bf_interval=10",
    "bf_max_job_test=1000",
    "default_queue_depth=1000",
    "batch_sched_delay=0",
    "sched_min_interval=0",
    "sched_interval=10",
    "max_rpc_cnt=150",
)
_NO_ACCOUNTING = ("AccountingStorageType=accounting_storage/none", "PriorityType=priority/basic")


def _accounting(folder: Path, shape: Shape, ports: Ports) -> tuple[str, ...]:
    tres = ["gres/gpu", f"gres/gpu:{GPU_TYPE}"]
    if shape.mig_nodes:
        tres.append(f"gres/gpu:{MIG_PROFILE}")
    if shape.shards:
        tres.append("gres/shard")
    return (
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={ports.accounting}",
        # Named a second time: the connection to slurmdbd does not look at AuthInfo.
        f"AccountingStoragePass={folder}/run/munge.sock",
        "AccountingStorageEnforce=associations,limits,qos,safe",
        f"AccountingStorageTRES={','.join(tres)}",
        "AccountingStoreFlags=job_comment",
        "PreemptType=preempt/qos",
        "PreemptMode=REQUEUE",
        "PriorityType=priority/multifactor",
        "PriorityDecayHalfLife=7-0",
        "PriorityCalcPeriod=1",
        "PriorityWeightFairshare=100000",
        "PriorityWeightQOS=10000",
        "PriorityWeightAge=1000",
    )


def _nodes(shape: Shape, ports: Ports) -> list[str]:
    whole, lines = shape.whole_nodes, []
    if whole:
        shards = f",shard:{shape.shards * shape.gpus}" if shape.shards else ""
        lines.append(_node_line(1, whole, ports, f"gpu:{GPU_TYPE}:{shape.gpus}{shards}", f"{GPU_TYPE},full"))
    if shape.mig_nodes:
        gres = f"gpu:{MIG_PROFILE}:{MIG_OF_A_GPU * shape.gpus}"
        lines.append(_node_line(whole + 1, shape.nodes, ports, gres, f"{GPU_TYPE},mig"))
    return lines


def _node_line(first: int, last: int, ports: Ports, gres: str, features: str) -> str:
    return (
        f"NodeName={_names(first, last)} NodeHostname=localhost NodeAddr=127.0.0.1 "
        f"Port=[{ports.node(first)}-{ports.node(last)}] Sockets=2 CoresPerSocket={CORES_OF_A_SOCKET} "
        f"ThreadsPerCore=1 RealMemory={MEMORY_MB} Gres={gres} Feature={features} State=UNKNOWN"
    )


def _names(first: int, last: int) -> str:
    return f"node[{first:03d}-{last:03d}]"


def gres_conf(folder: Path, shape: Shape) -> str:
    lines, whole = ["AutoDetect=off"], shape.whole_nodes
    if whole:
        files = f"File={folder}/dev/nvidia[0-{shape.gpus - 1}]"
        lines.append(f"NodeName={_names(1, whole)} Name=gpu Type={GPU_TYPE} {files}")
        if shape.shards:
            lines.append(f"NodeName={_names(1, whole)} Name=shard Count={shape.shards * shape.gpus}")
    if shape.mig_nodes:
        files = f"File={folder}/dev/mig[0-{MIG_OF_A_GPU * shape.gpus - 1}]"
        lines.append(f"NodeName={_names(whole + 1, shape.nodes)} Name=gpu Type={MIG_PROFILE} {files}")
    return "\n".join((*lines, ""))


def devices(shape: Shape) -> list[str]:
    """The names of the files that stand for GPUs and instances."""
    whole = [f"nvidia{number}" for number in range(shape.gpus)]
    return whole + [f"mig{number}" for number in range(MIG_OF_A_GPU * shape.gpus) if shape.mig_nodes]


# Without it slurmd looks for a mounted cgroup file system, even where no plugin uses one, and dies.
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=no
"""


def slurmdbd_conf(folder: Path, ports: Ports, user: str) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/etc/jwt.key
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.accounting}
SlurmUser={user}
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.database}
StorageUser=slurm
StoragePass={DATABASE_PASSWORD}
StorageLoc=slurm
"""


DATABASE_SQL = f"""\
CREATE DATABASE slurm;
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{DATABASE_PASSWORD}';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
"""


def accounts(users: list[str]) -> list[list[str]]:
    """What sacctmgr is told of a fresh database, command by command: an account for these users, and a quality of
    service that takes nodes away from the ordinary one."""
    return [
        ["add", "cluster", CLUSTER],
        ["add", "qos", "urgent", "priority=100", "preempt=normal"],
        ["modify", "account", "root", "set", "qos=normal,urgent", "defaultqos=normal"],
        ["add", "account", "haein"],
        *(["add", "user", user, "account=haein"] for user in users),
    ]
