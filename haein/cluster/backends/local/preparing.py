"""What must be in place before a runner can start: folders with the right owners, the upload, and the written order."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from haein.cluster.backends.base import BackendDown, Launch, Refused, SliceGrant
from haein.cluster.backends.local import accounts, confinement, locks, uploads
from haein.cluster.backends.local.orders import Order
from haein.cluster.backends.locking import alone

MIB = 1024 * 1024
SHELLS = ("/bin/bash", "/bin/sh")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
READY = ".ready"
CHECKPOINT = ".checkpoint-saved"  # in the job's own folder, so that it outlives the attempt
PACKAGE = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are under the data folder."""

    var: Path

    @property
    def environments(self) -> Path:
        return self.var / "env"

    @property
    def numbers(self) -> Path:
        return self.var / "numbers"

    @property
    def attempts(self) -> Path:
        return self.var / "attempts"

    def attempt(self, attempt: UUID) -> Path:
        return self.attempts / str(attempt)

    def work(self, job: UUID) -> Path:
        return self.var / "work" / str(job)

    def team(self, team: UUID) -> Path:
        return self.var / "teams" / str(team)

    def scratch(self, attempt: UUID) -> Path:
        return self.var / "scratch" / str(attempt)

    @property
    def hidden(self) -> tuple[Path, ...]:
        """What no job may see: all data, and the server's own code with whatever lies beside it."""
        checkout = PACKAGE.parent
        return self.var, checkout if (checkout / "manage.py").exists() else PACKAGE


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a job's files: its own user, its team's group, and the group of the service, which may look.

    All zero where Haein runs as an ordinary user: then everything belongs to that one.
    """

    uid: int = 0
    gid: int = 0
    service_gid: int = 0


def owner_of(launch: Launch, layout: Layout, numbers: tuple[int, int], service_gid: int | None) -> Owner:
    if os.geteuid() != 0:
        return Owner()
    try:
        uid = accounts.number_for(layout.numbers, "uid", launch.job_id, numbers)
        gid = accounts.number_for(layout.numbers, "gid", launch.team_id, numbers)
    except RuntimeError as error:
        raise BackendDown(str(error)) from None
    return Owner(uid, gid, gid if service_gid is None else service_gid)


def make_attempt_folder(layout: Layout, attempt: UUID, service_gid: int | None) -> Path:
    folder = layout.attempt(attempt)
    make_parent(folder)
    if os.geteuid() == 0 and service_gid is not None:
        make(folder, 0o2750, gid=service_gid)  # the web process reads logs through its group
    else:
        make(folder, 0o750)
    return folder


def make_job_folders(launch: Launch, layout: Layout, owner: Owner, upload_cap: int) -> None:
    """The job's working folder with its upload, its team's folder, and the attempt's own temporary folder."""
    _make_work(launch, layout, owner, upload_cap)
    team = layout.team(launch.team_id)
    make_parent(team)
    make(team, 0o2770 if owner.uid else 0o770, gid=owner.gid)  # shared by the team's group alone
    scratch = layout.scratch(launch.attempt_id)
    make_parent(scratch)
    make(scratch, 0o700, uid=owner.uid, gid=owner.gid)


def _make_work(launch: Launch, layout: Layout, owner: Owner, upload_cap: int) -> None:
    work = layout.work(launch.job_id)
    if work.exists():
        return
    # Filled aside and renamed: a working folder that is there is whole, whatever was killed while it was made.
    make_parent(work)
    aside = work.parent / f".{launch.job_id}.new"
    uploads.discard(aside)
    aside.mkdir(mode=0o770)
    try:
        if launch.upload:
            uploads.place(Path(launch.upload), launch.upload_name, aside, upload_cap)
        if owner.uid:
            uploads.give(aside, owner.uid, owner.service_gid)
        aside.rename(work)
    except BaseException:
        uploads.discard(aside)
        raise


def make_parent(folder: Path) -> None:
    # A job's user may pass through to what is its own, and may not list whose folders lie beside it.
    make(folder.parent, 0o711)


def make(folder: Path, mode: int, *, uid: int = 0, gid: int = 0) -> None:
    """Make the folder if it is not there. It appears with its owner and mode, so that nobody ever meets half of it."""
    if folder.exists():
        return
    # One at a time: a rename would replace a folder that somebody else has just made, is empty, and is held already.
    with alone(folder.parent):
        if folder.exists():
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        if os.geteuid() == 0:
            os.chown(aside, uid, gid)
        aside.chmod(mode)
        aside.rename(folder)


def environment_folder(layout: Layout, name: str) -> Path:
    """The folder of a Python environment that is ready. Raises Refused, or BackendDown while it is being made."""
    folder = layout.environments / name
    if os.sep not in name and ":" not in name and (folder / READY).exists() and (folder / "bin" / "python").exists():
        return folder
    known = environment_names(layout)
    listed = ", ".join(known) or "none yet"
    if ":" in name or "/" in name:
        raise Refused(
            f"The environment {name!r} is a container image, and this machine runs none. "
            f"Its Python environments: {listed}."
        )
    if name not in known:
        raise Refused(f"There is no Python environment {name!r} on this machine. Its Python environments: {listed}.")
    raise BackendDown(f"The Python environment {name!r} is still being made.")


def environment_names(layout: Layout) -> list[str]:
    return sorted(python.parent.parent.name for python in layout.environments.glob("*/bin/python"))


def write_order(
    launch: Launch, layout: Layout, owner: Owner, environment: Path, log_cap: int, held: locks.Locks
) -> Order:
    order = Order()
    order.attempt, order.command = str(launch.attempt_id), checked_command(launch.command)
    order.shell = next(shell for shell in SHELLS if os.path.exists(shell))
    order.work, order.scratch = str(layout.work(launch.job_id)), str(layout.scratch(launch.attempt_id))
    order.devices = " ".join(grant.device_uuid for grant in own_slices(launch))
    order.uid, order.gid = owner.uid, owner.gid
    order.checkpoint = checkpoint_file(launch, layout)
    order.cores, order.first_core = cores_of(launch), launch.attempt_id.int % 1024
    order.cpus, order.memory_mb = launch.cpus, launch.memory_mb
    order.time_limit_s, order.grace_s, order.log_cap = launch.time_limit_s, launch.grace_s, log_cap
    order.variable = [f"{name}={value}" for name, value in environment_variables(launch, layout, environment).items()]
    order.namespaces, order.landlock = int(held.namespaces), int(held.landlock > 0)
    order.readable = confinement.readable(environment, layout.hidden)
    order.device = confinement.devices()
    order.system, order.own = confinement.shown(environment, layout.hidden)
    order.hidden = [str(path) for path in layout.hidden]
    order.writable = [order.work, order.scratch, str(layout.team(launch.team_id)), confinement.SHARED_MEMORY]
    return order


def own_slices(launch: Launch) -> tuple[SliceGrant, ...]:
    """This machine runs one worker of an attempt. Raises Refused for a gang, and for what it can't carve."""
    if len(launch.places) != 1:
        raise Refused("This cluster is one machine and starts one worker of a job: ask for workers = 1.")
    slices = launch.places[0].slices
    if any(grant.profile for grant in slices):
        raise Refused("This machine's GPUs are not carved into MIG instances: ask for whole GPUs or a share.")
    return slices


def checkpoint_file(launch: Launch, layout: Layout) -> str:
    return str(layout.work(launch.job_id) / CHECKPOINT) if launch.checkpoints else ""


def cores_of(launch: Launch) -> int:
    return max(1, -(-launch.cpus // 1000))


def environment_variables(launch: Launch, layout: Layout, environment: Path) -> dict[str, str]:
    """Everything that a job's environment holds: nothing of the server's own comes in."""
    defaults = {
        "PATH": f"{environment}/bin:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(THREAD_VARIABLES, str(cores_of(launch))),
    }
    work, slices = str(layout.work(launch.job_id)), own_slices(launch)
    owned = {
        "HOME": work,
        "USER": "job",
        "LOGNAME": "job",
        "TMPDIR": str(layout.scratch(launch.attempt_id)),
        "CUDA_VISIBLE_DEVICES": ",".join(str(grant.device_index) for grant in slices),
        "HAEIN_JOB_ID": str(launch.job_id),
        "HAEIN_JOB_NAME": launch.job_name.replace("\0", ""),
        "HAEIN_ATTEMPT": str(launch.attempt_number),
        "HAEIN_ATTEMPT_ID": str(launch.attempt_id),
        "HAEIN_TEAM_DIR": str(layout.team(launch.team_id)),
        "HAEIN_WORKERS": "1",
        "HAEIN_RANK": "0",
        "HAEIN_NODES": launch.places[0].node,
        "HAEIN_DEVICES": ",".join(grant.device_uuid for grant in slices),
        "HAEIN_GPU_SHARE": f"{slices[0].units / 1000:g}" if slices else "0",
        "HAEIN_GPU_MEMORY_MB": str(slices[0].memory) if slices else "0",
    }
    if launch.checkpoints:
        owned["HAEIN_CHECKPOINT"] = checkpoint_file(launch, layout)
    return defaults | users_own(launch) | owned


def users_own(launch: Launch) -> dict[str, str]:
    for name, value in launch.variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise Refused(f"The environment variable {name!r} can't be set: no '=' in its name, no NUL in either part.")
    return dict(launch.variables)


def checked_command(command: str) -> str:
    if not command.strip() or "\0" in command:
        raise Refused("The command is empty, or holds a NUL character. Give the command that the job is to run.")
    return command
