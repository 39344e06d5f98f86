"""A job sees neither the server's secrets nor another's files: one lock is the user, the other is the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from haein.cluster.backends.local import confinement, landlock, locks

from .stage import LocalStage, until

ROOT = os.geteuid() == 0


needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")


def test_the_environment_is_built_from_nothing(local: LocalStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAEIN_SECRET_KEY", "of the server")
    monkeypatch.setenv("UNRELATED", "of the server")
    variables = {"MINE": "two\nlines", "HAEIN_JOB_ID": "forged", "HOME": "/root", "OMP_NUM_THREADS": "7", "LD_X": "="}
    launch, _ = local.run("env -0 > all", variables=variables, cpus=2000)
    seen = dict(item.split("=", 1) for item in (local.work(launch) / "all").read_text().split("\0") if item)
    assert "of the server" not in seen.values()
    assert seen["MINE"] == "two\nlines"
    assert seen["LD_X"] == "="
    assert seen["OMP_NUM_THREADS"] == "7"
    assert seen["HAEIN_JOB_ID"] == str(launch.job_id)
    assert seen["HAEIN_ATTEMPT"] == "1"
    assert seen["HOME"] == seen["PWD"] == str(local.work(launch))
    assert seen["CUDA_VISIBLE_DEVICES"] == "0"
    assert seen["HAEIN_GPU_SHARE"] == "0.5"
    assert seen["PATH"].startswith(str(local.var / "env/python/bin") + ":")
    assert seen["MKL_NUM_THREADS"] == "2"
    assert seen["LOGNAME"] == seen["USER"]


def test_the_runner_has_nothing_of_the_servers_environment(local: LocalStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAEIN_SECRET_KEY", "of the server")
    launch = local.begin("sleep 600")
    with open(f"/proc/{local.runner(launch)}/environ") as file:
        assert "of the server" not in file.read()


def test_no_descriptor_is_inherited(local: LocalStage) -> None:
    held = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        launch, _ = local.run("ls /proc/self/fd; readlink /proc/self/fd/0")
    finally:
        os.close(held)
    assert local.said(launch) == ["0", "1", "2", "3", "/dev/null"]  # 3 is the folder that ls reads


def test_it_can_write_where_it_should(local: LocalStage) -> None:
    launch, sight = local.run(
        'set -e; echo a > a; echo b > "$HAEIN_TEAM_DIR/b"; echo c > "$TMPDIR/c"; echo d > /dev/null; '
        "echo e > /dev/stdout; "
        "python -c 'import multiprocessing as m; m.Lock(); import tempfile; tempfile.TemporaryFile()'"
    )
    assert (sight.exit_code, local.said(launch)) == (0, ["e"])
    until(lambda: not (local.var / "scratch" / str(launch.attempt_id)).exists())


def test_a_data_folder_inside_the_system_is_cut_out_of_it(tmp_path: Path) -> None:
    for name in ("haein/var/secrets", "haein/docs", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "haein/var")
    shown = confinement.without(tmp_path, (tmp_path / "haein/var",))
    assert sorted(shown) == [tmp_path / "haein/docs", tmp_path / "other"]
    assert confinement.without(tmp_path, (Path("/elsewhere"),)) == [tmp_path]


def test_a_python_that_is_the_checkout_itself_does_not_bring_it_back(tmp_path: Path) -> None:
    checkout, environment = tmp_path / "haein", tmp_path / "haein/var/env/python"
    (checkout / "bin").mkdir(parents=True)
    (checkout / "bin/python3").symlink_to("/usr/bin/python3")
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(checkout / "bin/python3")
    hidden = (checkout / "var", checkout)
    assert confinement.shown(environment, hidden)[1] == [str(environment)]
    assert str(checkout) not in confinement.readable(environment, hidden)


@needs_landlock
def test_it_reaches_neither_secrets_nor_other_jobs_nor_the_code(local: LocalStage) -> None:
    (local.var / "secrets").mkdir()
    (local.var / "secrets/haein.env").write_text("HAEIN_SECRET_KEY=x")
    # As open as a careless operator may leave it: the kernel's lock must hold by itself.
    (local.var / "secrets/haein.env").chmod(0o644)
    other = local.begin("echo mine > file; chmod 777 . file; sleep 600")
    until(lambda: (local.work(other) / "file").exists())
    code = landlock.__file__
    tried = [local.var / "secrets/haein.env", local.work(other) / "file", local.folder(other) / "start", code]
    launch, _ = local.run(
        "; ".join(f"cat {path} && echo reached {path}" for path in tried) + f"; ls {local.var} && echo reached"
    )
    assert [line for line in local.said(launch) if "reached" in line] == []
    refusals = [line for line in local.said(launch, "err") if "denied" in line or "No such file" in line]
    assert len(refusals) == len(tried) + 1


@needs_landlock
def test_it_can_neither_read_nor_signal_processes_outside(local: LocalStage) -> None:
    launch, _ = local.run(
        f"cat /proc/{os.getpid()}/environ | head -c 1; kill -0 {os.getpid()} && echo reached; "
        "cat /proc/$PPID/environ | head -c 1; cat /proc/$PPID/maps | head -c 1"
    )
    assert local.said(launch) == []
    assert len(local.said(launch, "err")) == 4


has_namespaces = locks.found(users=False).namespaces
needs_mounts = pytest.mark.skipif(not has_namespaces, reason="this kernel lets us mount nothing for a job")


@needs_mounts
def test_temporary_files_and_shared_memory_are_the_jobs_own(local: LocalStage, mark: str) -> None:
    outside = [Path("/tmp") / mark, Path("/dev/shm") / mark]
    for path in outside:
        path.write_text("another's")
    try:
        launch, _sight = local.run(
            f"ls /tmp /dev/shm; echo x > /tmp/mine && cat $TMPDIR/mine; head -c 3000000 /dev/zero > /dev/shm/{mark} || "
            "echo full",
            memory_mb=2,
        )
    finally:
        kept = [path.read_text() for path in outside]
        for path in outside:
            path.unlink()
    assert kept == ["another's"] * 2
    assert local.said(launch) == ["/dev/shm:", "", "/tmp:", "x", "full"]


@needs_landlock
def test_it_can_still_debug_its_own_children(local: LocalStage) -> None:
    launch, _ = local.run("sleep 5 & cat /proc/$!/environ | tr '\\0' '\\n' | grep HAEIN_ATTEMPT=; kill $!")
    assert local.said(launch) == ["HAEIN_ATTEMPT=1"]


def test_it_gains_no_privileges(local: LocalStage) -> None:
    launch, _ = local.run("grep -E 'NoNewPrivs|CapEff' /proc/self/status")
    assert [line.split()[1] for line in local.said(launch)] == ["0" * 16, "1"]


@pytest.mark.skipif(not ROOT, reason="only root can start jobs as users of their own")
def test_each_job_has_its_own_user_and_each_team_its_group(local: LocalStage) -> None:
    team = uuid.uuid4()
    first, _ = local.run("id -u; id -g; id -G", team_id=team)
    second, _ = local.run("id -u; id -g", team_id=team)
    third, _ = local.run("id -u; id -g")
    again, _ = local.run("id -u; id -g", team_id=team, job_id=first.job_id, attempt_number=2)
    (uid1, gid1, groups), (uid2, gid2), (uid3, gid3) = (local.said(launch) for launch in (first, second, third))
    assert len({uid1, uid2, uid3}) == 3
    assert gid1 == gid2 == groups != gid3
    assert local.said(again) == [uid1, gid1]
    assert "0" not in (uid1, gid1)


@pytest.mark.skipif(not ROOT, reason="only root can start jobs as users of their own")
def test_a_team_shares_its_folder_and_no_one_else_does(local: LocalStage) -> None:
    team = uuid.uuid4()
    local.run('mkdir "$HAEIN_TEAM_DIR/d"; echo one > "$HAEIN_TEAM_DIR/d/f"', team_id=team)
    local.run('echo two >> "$HAEIN_TEAM_DIR/d/f"', team_id=team)
    folder = local.var / "teams" / str(team)
    assert (folder / "d/f").read_text() == "one\ntwo\n"
    assert folder.stat().st_mode & 0o7777 == 0o2770


AS_THE_SERVICE = """
import sys, uuid, pathlib
from haein.cluster.backends.local.backend import LocalBackend
backend = LocalBackend(pathlib.Path(sys.argv[1]))
attempt, job = map(uuid.UUID, sys.argv[2:])
print(backend.observe([attempt])[attempt].phase.name)
print([line.text for line in backend.read_log(attempt, 0, 1000).lines])
print([str(fact.path) for fact in backend.list_files(job, pathlib.PurePosixPath("d"))])
print(backend.open_file(job, pathlib.PurePosixPath("d/f"))[0].read())
print(len(backend.readings([attempt])))
"""


@pytest.mark.skipif(not ROOT, reason="only root can start jobs as users of their own")
def test_the_service_asks_without_rights_of_its_own() -> None:
    stage = LocalStage(service_gid=64_321)
    become = ["setpriv", "--reuid=64998", "--regid=64321", "--clear-groups", sys.executable, "-c", AS_THE_SERVICE]
    try:
        launch = stage.begin("mkdir d; echo data > d/f; echo said; sleep 600")
        until(lambda: stage.backend.readings([launch.attempt_id]) and stage.said(launch))
        seen = subprocess.run(
            [*become, str(stage.var), str(launch.attempt_id), str(launch.job_id)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (seen.stdout.splitlines(), seen.stderr) == (["RUNNING", "['said']", "['d/f']", "b'data\\n'", "1"], "")
    finally:
        stage.close()


@pytest.mark.skipif(not ROOT, reason="only root can start jobs as users of their own")
def test_the_service_can_read_logs_and_files_through_its_group() -> None:
    stage = LocalStage(service_gid=64_321)
    try:
        launch, _ = stage.run("echo said; mkdir d; echo data > d/f")
        for path in (stage.folder(launch), stage.folder(launch) / "log", stage.work(launch) / "d"):
            status = path.stat()
            assert (status.st_gid, status.st_mode & 0o057) == (64_321, 0o050), path
        for path in (
            *(stage.folder(launch) / "log").iterdir(),
            stage.folder(launch) / "exit",
            stage.work(launch) / "d/f",
        ):
            status = path.stat()
            assert (status.st_gid, status.st_mode & 0o047) == (64_321, 0o040), path
        assert (stage.folder(launch) / "order").stat().st_mode & 0o077 == 0, "it holds the user's variables"
    finally:
        stage.close()
