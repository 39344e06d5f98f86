"""A machine of the job's own: it sees its own processes, and of all files only the system's and those it was given.

Namespaces of mounts, processes and IPC, entered in the job's process before it gives up its rights. Root needs no more;
an ordinary user makes them inside a user namespace. The root of the new machine is an empty file system in memory into
which only what is allowed is mounted, so whatever else there is (data, secrets, sockets, homes) has not even a name.
"""

from __future__ import annotations

import os
import stat

from haein.cluster.backends.local.landlock import call, libc
from haein.cluster.backends.local.orders import Order

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_SLAVE, MS_RELATIME = 1024, 2048, 4096, 16384, 1 << 19, 1 << 21
MNT_DETACH = 2
# What a mount must keep when it is made read-only: an ordinary user may not take these from it.
FLAGS = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_NOATIME, MS_NOATIME),
    (os.ST_NODIRATIME, MS_NODIRATIME),
    (os.ST_RELATIME, MS_RELATIME),
)
OLD = "/.old"
# Each is one of the job's own.
TEMPORARY, SHARED_MEMORY, TERMINALS, PTMX = "/tmp", "/dev/shm", "/dev/pts", "/dev/ptmx"  # noqa: S108
STREAMS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))


def enter() -> tuple[int, int] | None:
    """Leave the machine's namespaces. The next child is process 1 of the new ones, and with it all in them end.

    Returns the user and group that an ordinary user must step back to; None for root.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call(libc.unshare, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC)
        return None
    call(libc.unshare, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC)
    # Root within for now: nobody else is let mount terminals.
    _map(f"0 {uid} 1", f"0 {gid} 1")
    return uid, gid


def build(order: Order, ordinary: tuple[int, int] | None) -> None:
    """Called by process 1: make the job's file system, and let go of the machine's for good. Raises OSError."""
    os.umask(0)
    writable = [path for path in order.writable if path != SHARED_MEMORY]
    # Links are resolved now: afterwards an absolute one would lead into the new root.
    real = {path: os.path.realpath(path) for path in (*order.system, *order.own, *writable, *order.device)}
    links = {path: os.readlink(path) for path in order.system if os.path.islink(path)}
    _turn_root(order.scratch)
    for path in order.system:
        if path in links:
            os.symlink(links[path], path)
        else:
            _bind(real[path], path, read_only=True)
    masks = [path for path in order.hidden if os.path.isdir(path)]
    for path in masks:
        _mount("tmpfs", path, MS_NOSUID | MS_NODEV, "mode=755")
    for path in order.own:
        _bind(real[path], path, read_only=True)
    for path in writable:
        _bind(real[path], path)
    # A data folder that lies in /tmp itself would be covered: there the job has TMPDIR alone.
    if not os.path.lexists(TEMPORARY):
        _bind(real[order.scratch], TEMPORARY)
    _furnish([path for path in order.device if path not in (TERMINALS, PTMX)], real, order.memory_mb)
    call(libc.umount2, OLD.encode(), MNT_DETACH)
    os.rmdir(OLD)
    for path in (*masks, "/"):
        call(libc.mount, None, path.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, None)
    if ordinary:
        # Itself again, and in a user namespace from which none of this can be undone.
        call(libc.unshare, CLONE_NEWUSER)
        _map(f"{ordinary[0]} 0 1", f"{ordinary[1]} 0 1")


def _furnish(devices: list[str], real: dict[str, str], memory_mb: int) -> None:
    """Device files, a /dev/shm of at most so much (0 is no limit), terminals that nobody else has, and /proc."""
    for path in devices:
        _bind(real[path], path)
    size = f"size={memory_mb}m," if memory_mb else ""
    os.makedirs(SHARED_MEMORY, 0o755)
    _mount("tmpfs", SHARED_MEMORY, MS_NOSUID | MS_NODEV, f"{size}mode=1777")
    os.mkdir(TERMINALS, 0o755)
    _mount("devpts", TERMINALS, MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=600")
    os.symlink("pts/ptmx", PTMX)
    for name, number in STREAMS:
        os.symlink(f"/proc/self/fd{number}", f"/dev/{name}")
    # While the old one is there: an ordinary user is let mount a /proc only where a whole one is seen already.
    os.mkdir("/proc", 0o755)
    _mount("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _turn_root(place: str) -> None:
    """Make an empty root over any folder, with the machine's files in OLD; the folder is as it was again."""
    # What is mounted on the machine later still arrives; what is mounted here stays here.
    call(libc.mount, None, b"/", None, MS_REC | MS_SLAVE, None)
    _mount("tmpfs", place, MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir(place + OLD)
    call(libc.pivot_root, place.encode(), (place + OLD).encode())
    os.chdir("/")


def _bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show what lies at the real path `source`; nothing, where nothing does."""
    source = OLD + source
    if not os.path.lexists(source):
        return
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if not stat.S_ISDIR(os.stat(source).st_mode):
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
    else:
        os.makedirs(target, 0o755, exist_ok=True)
    call(libc.mount, source.encode(), target.encode(), None, MS_BIND | MS_REC, None)
    if read_only:
        has = os.statvfs(target).f_flag
        kept = sum(mount_flag for flag, mount_flag in FLAGS if has & flag)
        call(libc.mount, None, target.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY | kept, None)


def _mount(kind: str, target: str, flags: int, options: str = "") -> None:
    call(libc.mount, kind.encode(), target.encode(), kind.encode(), flags, options.encode() or None)


def _map(user: str, group: str) -> None:
    for name, line in (("setgroups", "deny"), ("uid_map", user), ("gid_map", group)):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
