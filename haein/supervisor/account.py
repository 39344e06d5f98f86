"""The account that the parts run as: as root one of our own, so that a broken web server is not root."""

import os
import pwd
import subprocess
from dataclasses import dataclass

from haein.supervisor.refusal import Refusal


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int
    home: str

    @property
    def is_ours(self) -> bool:
        """Whether this is the account that the supervisor itself has."""
        return self.uid == os.geteuid()

    @property
    def change(self) -> tuple[int | None, int | None, list[int] | None]:
        """The user, group and further groups that a process must take on to be this account, where it is another."""
        return (None, None, None) if self.is_ours else (self.uid, self.gid, [])


def own() -> Account:
    """Who the supervisor is."""
    try:
        return _of(pwd.getpwuid(os.geteuid()))
    except KeyError:  # a container may give a number that has no name
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), "/nonexistent")


def service() -> Account:
    """Who PostgreSQL, Valkey, the web server and the beat are: as root HAEIN_USER (made if missing), else ourselves."""
    if os.geteuid() != 0:
        return own()
    name = os.environ.get("HAEIN_USER") or "haein"
    try:
        found = _of(pwd.getpwnam(name))
    except KeyError:
        _make(name)
        found = _of(pwd.getpwnam(name))
    if found.uid == 0:
        raise Refusal(f"HAEIN_USER is {name}, which is root: name an ordinary account, or leave it out.")
    return found


def _make(name: str) -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    try:
        made = subprocess.run([*command, "--shell", "/usr/sbin/nologin", name], capture_output=True, text=True)
    except FileNotFoundError:
        raise Refusal(f"The account {name} is missing and there is no useradd: name one with HAEIN_USER.") from None
    # 9: somebody else made it in the same moment.
    if made.returncode not in {0, 9}:
        raise Refusal(f"The account {name} could not be made ({made.stderr.strip()}): name one with HAEIN_USER.")


def _of(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
