"""A job of ill will against a running server, in every mode that this kernel allows: what each lock keeps it from.

As root each job has a user of its own; the same file is run as an ordinary user by test_local_as_ordinary_user.py.
Namespaces and Landlock are left off one by one, so that each lock is seen to hold without the others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from haein.cluster.backends.base import Launch
from haein.cluster.backends.local import landlock, locks
from haein.supervisor import account
from haein.supervisor.layout import ROOT, Layout

from .stage import LocalStage, until

ATTACK = Path(__file__).with_name("attack.py")
USERS, NAMESPACES, LANDLOCK = locks.USERS, locks.NAMESPACES, locks.LANDLOCK
SIGNALS = {LANDLOCK} if landlock.abi() >= 6 else set()
# What refuses each attack. Where none of these is in force, it succeeds; a password refuses in every mode.
GUARDS: dict[str, set[str]] = {
    "the server's secrets": {USERS, NAMESPACES, LANDLOCK},
    "the database's files": {USERS, NAMESPACES, LANDLOCK},
    "the data folder": {USERS, NAMESPACES, LANDLOCK},
    "the server's code": {NAMESPACES, LANDLOCK},
    "the rest of the machine": {NAMESPACES, LANDLOCK},
    "another job's file": {USERS, NAMESPACES, LANDLOCK},
    "another team's file": {USERS, NAMESPACES, LANDLOCK},
    "another job's records": {USERS, NAMESPACES, LANDLOCK},
    "another's temporary file": {USERS, NAMESPACES, LANDLOCK},
    "another's shared memory": {USERS, NAMESPACES},
    "the server's environment": {USERS, NAMESPACES, LANDLOCK},
    "the server's command line": {NAMESPACES},
    "a signal to the server": {USERS, NAMESPACES} | SIGNALS,
    "a trace of the server": {USERS, NAMESPACES, LANDLOCK},
    "another job's environment": {USERS, NAMESPACES, LANDLOCK},
    "a signal to another job": {USERS, NAMESPACES} | SIGNALS,
    "Valkey's socket": {USERS, NAMESPACES},
    "PostgreSQL's socket": {USERS, NAMESPACES},
    "Valkey itself": {"requirepass"},
    "PostgreSQL itself": {"scram"},
}
# Yama, where a kernel has it, may refuse this without any lock of ours.
SOMETIMES = {"a trace of the server"}

MODES = [frozenset[str](), frozenset({LANDLOCK}), frozenset({NAMESPACES}), frozenset({NAMESPACES, LANDLOCK})]
POSSIBLE = {NAMESPACES} if not locks.found(users=False).obstacle else set()
POSSIBLE |= {LANDLOCK} if landlock.abi() else set()
in_each_mode = pytest.mark.parametrize(
    "off", [off for off in MODES if off <= POSSIBLE], ids=lambda off: "without " + (" and ".join(sorted(off)) or "none")
)


@dataclass
class Server:
    var: Path
    mark: str
    pid: int


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """PostgreSQL, Valkey and their secrets in a data folder, and a process that has the server's environment."""
    var = Path(tempfile.mkdtemp(prefix="haein-", dir="/var/tmp"))
    mark = f"server-of-{var.name}"
    wait = [sys.executable, "-c", f"import os, time; print(os.getpid(), flush=True); time.sleep(3600) # {mark}"]
    command = [sys.executable, "-m", "haein.supervisor", "services", "--var", str(var), "--", *wait]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HAEIN_")}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield Server(var, mark, int(running.stdout.readline()))
        running.terminate()
    shutil.rmtree(var)


@pytest.fixture
def left_about(server: Server) -> Iterator[list[Path]]:
    """Files of the server's account where everybody's temporary files are."""
    files = [Path(folder, server.mark) for folder in ("/tmp", "/dev/shm")]
    for file in files:
        file.touch(0o600)
        file.write_text("x")
    yield files
    for file in files:
        file.unlink()


def attacked(stage: LocalStage, server: Server, other: Launch, left_about: list[Path]) -> set[str]:
    var, temporary = server.var, left_about
    aim = {
        "server": server.pid,
        "other": int(stage.record(other, "start")["pid"]),
        "mark": server.mark,
        "sockets": str(Layout(var, account.own(), account.service()).sockets),
        "files": {
            "the server's secrets": str(var / "secrets/haein.env"),
            "the server's code": str(ROOT / "haein/settings.py"),
            "another job's file": str(stage.work(other) / "file"),
            "another team's file": str(var / "teams" / str(other.team_id) / "file"),
            "another job's records": str(stage.folder(other) / "start"),
            "another's temporary file": str(temporary[0]),
            "another's shared memory": str(temporary[1]),
        },
        "folders": {
            "the database's files": str(var / "postgres/data"),
            "the data folder": str(var),
            "the rest of the machine": "/var",
        },
    }
    launch, sight = stage.run(
        "python attack.py", upload=str(ATTACK), upload_name="attack.py", variables={"AIM": json.dumps(aim)}
    )
    said = stage.said(launch)
    assert (sight.exit_code, said[-1]) == (0, "tried everything"), stage.lines(launch)
    return {line.removeprefix("reached ") for line in said[:-1]}


@in_each_mode
def test_what_a_lock_guards_is_out_of_reach(server: Server, left_about: list[Path], off: frozenset[str]) -> None:
    stage = LocalStage(server.var, locks_off=off)
    held = {"requirepass", "scram"} | POSSIBLE - off | ({USERS} if os.geteuid() == 0 else set())
    try:
        assert stage.backend.isolation().separates_tenants is bool(held & {USERS, NAMESPACES})
        other = stage.begin("echo mine | tee file > $HAEIN_TEAM_DIR/file; echo ready; sleep 600")
        until(lambda: stage.said(other))
        open_to_all = {name for name, guards in GUARDS.items() if not guards & held}
        assert attacked(stage, server, other, left_about) | SOMETIMES == open_to_all | SOMETIMES
    finally:
        stage.close()


@in_each_mode
def test_a_job_has_what_it_needs(off: frozenset[str]) -> None:
    stage = LocalStage(locks_off=off)
    try:
        launch, sight = stage.run(
            'set -e; echo a > a; echo b > "$HAEIN_TEAM_DIR/b"; echo c > "$TMPDIR/c"; echo d > /dev/null; '
            "echo e > /dev/stdout; cat /proc/self/comm /proc/$$/comm; head -c 1 /dev/urandom > r; "
            "getent hosts localhost; "
            "python -c 'import multiprocessing as m; m.Lock(); import tempfile; tempfile.TemporaryFile()'; "
            "python -c 'import ssl, sqlite3, ctypes, socket; socket.socket()'"
        )
        assert sight.exit_code == 0, stage.lines(launch)
        assert stage.said(launch)[:3] == ["e", "cat", "bash"]
    finally:
        stage.close()


needs_namespaces = pytest.mark.skipif(NAMESPACES not in POSSIBLE, reason="this kernel lets us make no namespaces")


@needs_namespaces
def test_a_job_sees_its_own_processes_and_a_process_1_that_it_can_not_touch(local: LocalStage) -> None:
    launch, _ = local.run(
        "sleep 600 & python -c 'import os; print(sorted(int(n) for n in os.listdir(\"/proc\") if n.isdigit())[:3])'; "
        "kill -KILL 1; kill -STOP 1; cat /proc/1/environ /proc/1/maps | head -c 1; kill $!; echo lived"
    )
    assert local.said(launch) == ["[1, 2, 3]", "lived"]


@needs_namespaces
def test_a_job_has_terminals_that_nobody_else_has(local: LocalStage) -> None:
    show = "import os, pty; os.ttyname(pty.openpty()[1]); print(sorted(os.listdir('/dev/pts')))"
    launch, _ = local.run(f'python -c "{show}"')
    assert local.said(launch) == ["['0', 'ptmx']"]


@needs_namespaces
def test_nothing_that_was_mounted_for_it_can_be_undone(local: LocalStage) -> None:
    launch, _ = local.run(
        "umount /tmp; umount -l /; unshare -rm sh -c 'umount -l /tmp; umount -l /proc; ls /.old; echo x > /x; "
        f"ls {local.var}/attempts; mount -o remount,rw /usr' && echo undone; ls /home /root /boot; touch /usr/x"
    )
    assert local.said(launch) == []


@needs_namespaces
def test_a_data_folder_in_tmp_is_hidden_like_any_other() -> None:
    stage = LocalStage(Path(tempfile.mkdtemp(prefix="haein-", dir="/tmp")))
    try:
        (stage.var / "secret").write_text("x")
        launch, _ = stage.run(
            f'cat {stage.var}/secret; ls {stage.var}/attempts; pwd; echo a > "$TMPDIR/a"; ls "$TMPDIR"'
        )
        assert stage.said(launch) == [str(stage.work(launch)), "a"]
    finally:
        stage.close()
        shutil.rmtree(stage.var)


@needs_namespaces
def test_a_python_that_lies_where_it_is_hidden_is_shown_alone() -> None:
    """An interpreter inside the data folder, reached by a chain of links, one of them of a folder."""
    var = Path(tempfile.mkdtemp(prefix="haein-", dir="/var/tmp"))
    var.chmod(0o755)
    stage = LocalStage(var)
    try:
        made = var / "pythons/cpython-3.11.2"
        (made / "bin").mkdir(parents=True)
        (made / "bin/python3").symlink_to("/usr/bin/python3")
        (made / "note").write_text("of this Python\n")
        (var / "pythons/cpython-3.11").symlink_to("cpython-3.11.2")
        python = var / "env/python/bin/python"
        python.unlink()
        python.symlink_to(var / "pythons/cpython-3.11/bin/python3")
        (var / "pythons/other").write_text("x")
        launch, _ = stage.run(f"python -c 'print(1)'; cat {var}/pythons/cpython-3.11/note; cat {var}/pythons/other")
        assert stage.said(launch) == ["1", "of this Python"], stage.lines(launch)
    finally:
        stage.close()
        shutil.rmtree(var)


# A user namespace has limits of its own: in this one nobody can make another, as on a system that forbids it.
FORBIDDING = ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c"]
LOOK = """
from haein.cluster.backends.local import locks
found = locks.found(users=False)
print(found.namespaces, found.obstacle, found.isolation().separates_tenants, found.isolation().sentence, sep="|")
"""


@needs_namespaces
def test_where_the_system_forbids_namespaces_it_says_which_switch_does() -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    seen = subprocess.run(
        [*FORBIDDING, forbid, sys.executable, LOOK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert seen.returncode == 0, seen.stderr
    namespaces, obstacle, separates, sentence = seen.stdout.strip().split("|")
    assert (namespaces, obstacle, separates) == ("False", "No space left on device", "False")
    assert sentence.endswith("or allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000.")
