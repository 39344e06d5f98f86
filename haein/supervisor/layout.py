"""Where everything lies in the data folder, who owns it and who may look."""

import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from haein.supervisor.account import Account
from haein.supervisor.refusal import Refusal

ROOT = Path(__file__).resolve().parent.parent.parent
# A Unix socket's address holds 107 bytes; PostgreSQL's file name is the longest of ours.
LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432")


@dataclass(frozen=True)
class Layout:
    var: Path
    owner: Account  # the supervisor and the worker
    service: Account  # everything else

    @property
    def secrets(self) -> Path:
        return self.var / "secrets"

    @property
    def postgres(self) -> Path:
        return self.var / "postgres"

    @property
    def beat(self) -> Path:
        return self.var / "beat"

    @property
    def records(self) -> Path:
        """Which processes are ours: read by root, so nobody else may write there."""
        return self.var / "run"

    @property
    def log(self) -> Path:
        return self.var / "log" / "haein.log"

    @property
    def sockets(self) -> Path:
        inside = self.var / "sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_FOLDER and re.fullmatch(r"[\w./+-]+", str(inside), re.ASCII):
            return inside
        here = self.var.stat()
        base = f"/run/user/{self.owner.uid}"
        if self.owner.uid == 0:
            base = "/run"
        elif not os.access(base, os.W_OK):
            base = "/tmp"  # noqa: S108 - the folder made there is private, and checked to be ours
        return Path(base, f"haein-{self.owner.uid}-{here.st_dev:x}-{here.st_ino:x}")

    def prepare(self) -> None:
        """Makes the folders with their owners and modes. Raises Refusal."""
        root, ours = (self.owner.uid, self.owner.gid), (self.service.uid, self.service.gid)
        mixed = (self.owner.uid, self.service.gid)
        # Jobs run under uids of their own and pass through var/, work/ and teams/ on the way to their folders.
        _folder(self.var, 0o711, root)
        if not (self.var / "env").is_symlink():  # throw-away folders share the environments of a lasting one
            _folder(self.var / "env", 0o755, root)
        _folder(self.var / "work", 0o711, mixed)
        _folder(self.var / "teams", 0o711, mixed)
        _folder(self.var / "attempts", 0o711, mixed)
        for private in (self.records, self.log.parent):
            _folder(private, 0o700, root)
        for private in (self.secrets, self.postgres, self.beat, self.sockets, self.var / "uploads"):
            _folder(private, 0o700, ours)
        self._hold_reachable()

    def write(self, path: Path, text: str) -> None:
        """Puts a private file of the service's in place whole, following no link that was laid in its way."""
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            if not self.service.is_ours:
                os.fchown(descriptor, self.service.uid, self.service.gid)
            os.fsync(descriptor)
        new.rename(path)

    def _hold_reachable(self) -> None:
        """A folder above that is closed to others would fail each part with a message of its own."""
        if self.service.is_ours:
            return
        user, group, groups = self.service.change
        python = Path(sys.executable)
        for what, path in {
            "This clone": ROOT / "manage.py",
            "Its Python": python,
            "The data folder": self.beat,
        }.items():
            look = ["/usr/bin/test", "-r", str(path)]
            if subprocess.run(look, user=user, group=group, extra_groups=groups, cwd="/").returncode:
                raise Refusal(
                    f"{what} ({path.parent}) can't be reached by the account "
                    f"{self.service.name}: move it out of folders that only root may enter (/opt or /srv do), "
                    f"or run as an ordinary user."
                )


def folder_in_use() -> Path:
    """The data folder that was asked for: HAEIN_VAR, else var/ beside the code."""
    return Path(os.environ.get("HAEIN_VAR") or ROOT / "var").resolve()


def _folder(path: Path, mode: int, owner: tuple[int, int]) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise Refusal(f"{path} is in the way: it must be a folder. Move it aside.")
        if (found.st_uid, found.st_gid) != owner and found.st_uid not in {os.geteuid(), owner[0]}:
            raise Refusal(f"{path} belongs to another account: run as that account, or choose another HAEIN_VAR.")
        if (found.st_uid, found.st_gid) != owner and os.geteuid() == 0:
            os.chown(path, *owner)
        if stat.S_IMODE(path.lstat().st_mode) != mode:
            path.chmod(mode)
    except PermissionError:
        raise Refusal(f"{path} can't be written: run as its owner, or choose another folder with HAEIN_VAR.") from None
    except OSError as problem:
        raise Refusal(f"{path} can't be made ({problem.strerror}): choose another folder with HAEIN_VAR.") from None
