"""A /tmp and a /dev/shm of the job's own, where the kernel lets us mount: no other job's files are even there.

Done in the job's process before it gives up its rights. Root needs only a mount namespace; an ordinary user gets one
inside a user namespace in which it stays itself. Some systems forbid that, and then TMPDIR is the only place for
temporary files, and /dev/shm is shared.
"""

from __future__ import annotations

import os

from haein.cluster.backends.local.landlock import call, libc

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 4096, 16384, 1 << 19
TEMPORARY, SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108  (each is replaced by one of the job's own)


def make_private(scratch: str, memory_mb: int) -> list[str]:
    """The paths that are now the job's own: none, where mounting is not allowed."""
    # Tried first in a child: half of a user namespace, without its maps, would be worse than none.
    if os.geteuid() != 0 and not _succeeds_elsewhere(scratch, memory_mb):
        return []
    try:
        return _mount(scratch, memory_mb)
    except OSError:
        return []


def _succeeds_elsewhere(scratch: str, memory_mb: int) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            _mount(scratch, memory_mb)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _mount(scratch: str, memory_mb: int) -> list[str]:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call(libc.unshare, CLONE_NEWNS)
    else:
        call(libc.unshare, CLONE_NEWNS | CLONE_NEWUSER)
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    # What is mounted on the machine later still arrives; what is mounted here stays here.
    call(libc.mount, None, b"/", None, MS_REC | MS_SLAVE, None)
    size = f"size={memory_mb}m," if memory_mb else ""
    options = f"{size}mode=1777".encode()
    call(libc.mount, b"shm", SHARED_MEMORY.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options)
    if scratch.startswith(f"{TEMPORARY}/"):
        return [SHARED_MEMORY]  # the data folder lies in /tmp itself: covering it would hide the job's own files
    call(libc.mount, scratch.encode(), TEMPORARY.encode(), None, MS_BIND, None)
    return [SHARED_MEMORY, TEMPORARY]
