"""Landlock by system call: what a job's processes may touch on disk, enforced by the kernel without privileges.

Numbers are from the kernel's uapi/linux/landlock.h; what the running kernel does not know is left out, by the ABI it
reports. Landlock also keeps the job from tracing, or reading the environment of, any process outside its own domain.
"""

from __future__ import annotations

import ctypes
import os
import stat

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
BEFORE_REFER = REFER - 1
ALL_RIGHTS = BEFORE_REFER | REFER | TRUNCATE | IOCTL_DEV
RIGHTS_BY_ABI = {
    1: BEFORE_REFER,
    2: BEFORE_REFER | REFER,
    3: BEFORE_REFER | REFER | TRUNCATE,
    4: BEFORE_REFER | REFER | TRUNCATE,
}
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

READ = EXECUTE | READ_FILE | READ_DIR
USE_DEVICE = READ_FILE | WRITE_FILE | READ_DIR | IOCTL_DEV


class _RulesetAttributes(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's Landlock version, 0 where it has none."""
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION))
    return max(int(version), 0)


def gain_no_privileges() -> None:
    """For good, and for everything this process starts: no program makes it more than it is."""
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def confine(*, readable: list[str], devices: list[str], writable: list[str]) -> int:
    """Leave this process, which must have called gain_no_privileges(), for good only what is listed; paths that are
    not there are passed over.

    Returns the ABI that is in force, 0 when the kernel has no Landlock. Raises OSError when a rule can't be set.
    """
    version = abi()
    if version == 0:
        return 0
    rights = RIGHTS_BY_ABI.get(version, ALL_RIGHTS)
    scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if version >= 6 else 0
    attributes = _RulesetAttributes(fs=rights, net=0, scoped=scoped)
    size = ctypes.c_size_t(ctypes.sizeof(attributes) if scoped else 8)
    ruleset = call(libc.syscall, CREATE_RULESET, ctypes.byref(attributes), size, ctypes.c_uint32(0))
    for paths, allowed in ((readable, READ), (devices, USE_DEVICE), (writable, ALL_RIGHTS)):
        for path in paths:
            _allow(ruleset, path, allowed & rights)
    call(libc.syscall, RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= ON_FILES
        rule = _PathBeneath(allowed=rights, parent_fd=fd)
        call(libc.syscall, ADD_RULE, ctypes.c_int(ruleset), RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(fd)


def call(function: ctypes._CFuncPtr, *arguments: object) -> int:  # type: ignore[name-defined]
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
