"""A Slurm of one's own: its daemons started, killed one by one where a test wants it, and ended to the last process."""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from haein.slurmlab import configuration, processes
from haein.slurmlab.configuration import Ports, Shape

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmrestd", "sbatch", "scontrol")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb", "mariadb-install-db")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
# A Unix socket's address holds 107 bytes; the longest of ours is a step's, in its node's spool folder.
LONGEST_FOLDER = 107 - len("/d/node1024/node1024_67043328.4294967291")
NOBODY = "nobody"
# Below the range from which the kernel gives ports to clients: nobody meets ours by chance.
LOWEST_PORT, HIGHEST_PORT = 20_000, 32_000


class LabFailed(Exception):
    """The lab can't be started. The message says what is missing or what the daemon last said."""


class Lab:
    """A Slurm of `nodes` x `gpus` emulated B200 on loopback, everything of it below `folder`.

    The last `mig_nodes` nodes give 7 x `gpus` instances 1g.23gb in place of whole GPUs; each GPU of the others is
    `shards` shards. With `accounting` it keeps accounts (slurmdbd on MariaDB, root and nobody may submit to the account
    haein) and the quality of service "urgent" takes nodes from work of "normal". It listens on ports one after another
    from `first_port`, or from any that are free. A node that does not answer is down after `node_timeout_s`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 8,
        gpus: int = 8,
        mig_nodes: int = 0,
        shards: int = 0,
        accounting: bool = False,
        first_port: int | None = None,
        node_timeout_s: int = 300,
    ) -> None:
        self.folder = folder.resolve()
        self.shape = Shape(nodes, gpus, mig_nodes, shards, accounting, node_timeout_s)
        self.ports = Ports(_free_ports(Ports(0, nodes)) if first_port is None else first_port, nodes)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    @property
    def jwt_key(self) -> Path:
        return self.folder / "etc" / "jwt.key"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.rest}"

    @property
    def environ(self) -> dict[str, str]:
        """What Slurm's commands need to find this one."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Starts all of it, until its nodes take jobs; ends first what an earlier start left. Raises LabFailed."""
        self.hold_possible()
        self.end_leftovers()
        self.write()
        self._start_munge()
        if self.shape.accounting:
            self._start_database()
            self.start_accounting()
            self._make_accounts()
        self.start_controller()
        if (self.folder / "state" / "job_state").exists():
            self._lose_what_runs()
        for name in self.shape.names():
            self._spawn_node(name)
        _until(self._all_take_jobs, "its nodes take jobs", self._tail_of("slurmctld"))
        self._start_rest()

    def stop(self) -> None:
        """Ends everything, jobs included, as when the power goes: what runs is lost, what waits is kept."""
        if (controller := self._running.get("slurmctld")) and controller.poll() is None:
            self._lose_what_runs()
        for name in ("slurmrestd", *self.shape.names()):
            self._kill(name)
        processes.kill_all(lambda: processes.work(self.folder))
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        self.end_leftovers()

    def end_leftovers(self) -> None:
        """Kills whatever of a lab on this folder still runs, by whomever it was started."""
        processes.kill_all(lambda: processes.daemons(self.folder))
        processes.kill_all(lambda: processes.work(self.folder))

    def write(self) -> None:
        """The configuration and the keys; keys that are there are kept."""
        for name in ("etc", "run", "log", "state", "dev", "d"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in self.shape.names():
            (self.folder / "d" / name).mkdir(exist_ok=True)
        for name in configuration.devices(self.shape):
            device = self.folder / "dev" / name
            if not device.is_symlink():
                device.symlink_to(os.devnull)
        etc, shape, ports = self.folder / "etc", self.shape, self.ports
        self.conf.write_text(configuration.slurm_conf(self.folder, shape, ports, self.user))
        (etc / "gres.conf").write_text(configuration.gres_conf(self.folder, shape))
        (etc / "cgroup.conf").write_text(configuration.CGROUP_CONF)
        if shape.accounting:
            _write_private(etc / "slurmdbd.conf", configuration.slurmdbd_conf(self.folder, ports, self.user).encode())
        for key, length in ((etc / "munge.key", 1024), (self.jwt_key, 32)):
            if not key.exists():
                _write_private(key, secrets.token_bytes(length))

    def start_controller(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
        self._wait_for_port("slurmctld", self.ports.controller)

    def kill_controller(self) -> None:
        """At once: what it has not yet written down is forgotten."""
        self._kill("slurmctld")

    def start_accounting(self) -> None:
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        self._wait_for_port("slurmdbd", self.ports.accounting)

    def stop_accounting(self) -> None:
        self._end("slurmdbd")

    def start_node(self, name: str) -> None:
        self._spawn_node(name)
        self._wait_for_port(name, self.ports.node(self.shape.names().index(name) + 1))

    def kill_node(self, name: str) -> None:
        """With the jobs on it, as when its power goes."""
        self._kill(name)
        processes.kill_all(lambda: processes.work(self.folder, name))

    def kill_slurmd(self, name: str) -> None:
        """The daemon alone: its jobs go on."""
        self._kill(name)

    def run(self, *command: str) -> str:
        """What a command of Slurm's prints. Raises CalledProcessError."""
        environ = {**os.environ, **self.environ, "PATH": PATH}
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout

    def answers(self) -> bool:
        """Whether it is up, by whichever process it was started: what is started last listens."""
        return _listens(self.ports.rest)

    def failed(self) -> str:
        """The first daemon that ended by itself; empty while all run."""
        return next((name for name, process in self._running.items() if process.poll() is not None), "")

    def hold_possible(self) -> None:
        """Raises LabFailed where Slurm is not installed, or the folder lies too deep for sockets."""
        wanted = (*PROGRAMS, *(ACCOUNTING_PROGRAMS if self.shape.accounting else ()))
        missing = [name for name in wanted if not shutil.which(name, path=PATH)]
        if missing:
            raise LabFailed(f"Slurm is not installed here: {', '.join(missing)} can't be found.")
        if len(os.fsencode(self.folder)) > LONGEST_FOLDER:
            raise LabFailed(f"{self.folder} is too deep for sockets: at most {LONGEST_FOLDER} bytes.")

    def _lose_what_runs(self) -> None:
        """Else the controller believes for minutes that jobs of which nothing is left go on. A node is up again as soon
        as its slurmd is."""
        with suppress(subprocess.CalledProcessError):
            self.run("scontrol", "update", "nodename=ALL", "state=down", "reason=stopped")

    def _start_munge(self) -> None:
        run = self.folder / "run"
        socket_file = run / "munge.sock"
        socket_file.unlink(missing_ok=True)
        files = [f"--socket={socket_file}", f"--pid-file={run}/munged.pid", f"--seed-file={run}/munged.seed"]
        key = f"--key-file={self.folder}/etc/munge.key"
        self._spawn("munged", ["munged", "--foreground", key, *files, "--num-threads=8"])
        _until(socket_file.exists, "munged answers", self._tail_of("munged"))

    def _start_database(self) -> None:
        data, socket_file = self.folder / "db", self.folder / "run" / "db.sock"
        # Of Linux's own asynchronous I/O a machine has a fixed amount, and a server that finds none left gives up.
        common = ["--no-defaults", f"--datadir={data}", f"--user={self.user}", "--innodb-use-native-aio=0"]
        if not (data / "slurm").exists():
            shutil.rmtree(data, ignore_errors=True)
            install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
            try:
                self.run(*install)
            except subprocess.CalledProcessError as problem:
                raise LabFailed(f"MariaDB's data could not be made: {problem.stdout}{problem.stderr}") from None
        listen = [f"--socket={socket_file}", "--bind-address=127.0.0.1", f"--port={self.ports.database}"]
        # slurmdbd asks for the last two; what a crash of this machine would lose is thrown away anyway.
        size = [
            "--innodb-buffer-pool-size=256M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=2",
        ]
        self._spawn("mariadbd", ["mariadbd", *common, *listen, "--skip-name-resolve", *size])
        self._wait_for_port("mariadbd", self.ports.database)
        if not (data / "slurm").exists():
            self.run("mariadb", "--no-defaults", "-u", "root", "-S", str(socket_file), "-e", configuration.DATABASE_SQL)

    def _make_accounts(self) -> None:
        if configuration.CLUSTER in self.run("sacctmgr", "-nP", "show", "cluster", "format=cluster").split():
            return
        for command in configuration.accounts(sorted({self.user, NOBODY})):
            self.run("sacctmgr", "-i", *command)

    def _start_rest(self) -> None:
        # Its plugins of the accounting are fatal where there is none. It refuses to be root.
        which = [] if self.shape.accounting else ["-s", "openapi/v0.0.38"]
        nobody = pwd.getpwnam(NOBODY)
        account = (nobody.pw_uid, nobody.pw_gid) if os.geteuid() == 0 else None
        command = ["slurmrestd", "-f", str(self.conf), *which, "-t", "20", "-a", "rest_auth/jwt"]
        listen = f"127.0.0.1:{self.ports.rest}"
        # Without SLURM_JWT it answers 401 to everything.
        self._spawn("slurmrestd", [*command, listen], account=account, SLURM_JWT="daemon")
        self._wait_for_port("slurmrestd", self.ports.rest)

    def _spawn_node(self, name: str) -> None:
        # It writes its log by itself, and here only what comes before.
        self._spawn(name, ["slurmd", "-D", "-N", name, "-f", str(self.conf)], log="slurmd")

    def _spawn(
        self, name: str, command: list[str], *, log: str = "", account: tuple[int, int] | None = None, **more: str
    ) -> None:
        program = shutil.which(command[0], path=PATH)
        assert program is not None  # hold_possible has looked
        environ = {**self.environ, "PATH": PATH, "LC_ALL": "C", processes.MARK: str(self.folder), **more}
        with self._log(log or name).open("ab") as output:
            self._running[name] = processes.spawn([program, *command[1:]], environ, output, account)

    def _kill(self, name: str) -> None:
        if (process := self._running.pop(name, None)) is not None:
            process.kill()
            process.wait()

    def _end(self, name: str) -> None:
        """In order, where it may still have something to write."""
        if (process := self._running.pop(name, None)) is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _all_take_jobs(self) -> bool:
        """After a restart a node is believed to be what it was, before its slurmd has been heard of."""
        if not all(_listens(self.ports.node(number)) for number in range(1, self.shape.nodes + 1)):
            return False
        try:
            states = self.run("sinfo", "-hN", "-o", "%N %T").splitlines()
        except subprocess.CalledProcessError:
            return False
        return all(state.endswith((" idle", " mixed", " allocated")) for state in states)

    def _wait_for_port(self, name: str, port: int) -> None:
        def look() -> bool:
            if self._running[name].poll() is not None:
                raise LabFailed(f"{name} ended by itself: {self._tail_of(name)()}")
            return _listens(port)

        _until(look, f"{name} answers", self._tail_of(name))

    def _log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def _tail_of(self, name: str) -> Callable[[], str]:
        return lambda: "\n".join(self._log(name).read_text(errors="replace").splitlines()[-5:])


def _until(look: Callable[[], bool], what: str, said: Callable[[], str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise LabFailed(f"waited {seconds:g} s in vain until {what}: {said()}")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(wanted: Ports) -> int:
    """The first of so many ports one after another that nobody listens on."""
    count = len(wanted.all)
    for _ in range(100):
        first = random.randrange(LOWEST_PORT, HIGHEST_PORT - count)
        if all(map(_is_free, range(first, first + count))):
            return first
    raise LabFailed(f"There are no {count} free ports one after another from {LOWEST_PORT} to {HIGHEST_PORT}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
