"""One command on a PostgreSQL and a Valkey of its own, which end with it."""

import subprocess
import sys
from pathlib import Path

from haein.supervisor.layout import ROOT
from tests.house import COMMAND, House

CONNECT = """
import os, psycopg, redis
with psycopg.connect(os.environ["HAEIN_DATABASE_URL"]) as connection:
    print(connection.execute("SHOW listen_addresses").fetchone()[0] or "no port")
wire = redis.from_url(os.environ["HAEIN_REDIS_URL"])
print(wire.config_get("port")["port"], wire.config_get("maxmemory-policy")["maxmemory-policy"])
print(os.environ["HAEIN_VAR"], len(os.environ["HAEIN_SECRET_KEY"]))
"""


def run(*arguments: str, var: Path | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--var", str(var)] if var else []
    command = [*COMMAND, "services", *where, "--", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_has_both_and_its_exit_code_comes_back(house: House) -> None:
    ran = run(sys.executable, "-c", CONNECT + "raise SystemExit(7)", var=house.var)
    assert ran.returncode == 7, ran.stderr
    assert ran.stdout.splitlines() == ["no port", "0 noeviction", f"{house.var} 64"]
    assert house.processes() == []


def test_what_was_written_is_there_the_next_time(house: House) -> None:
    psql = "import os, psycopg; print(psycopg.connect(os.environ['HAEIN_DATABASE_URL'], autocommit=True).execute({!r}))"
    assert run(sys.executable, "-c", psql.format("CREATE TABLE kept (id int)"), var=house.var).returncode == 0
    assert run(sys.executable, "-c", psql.format("SELECT * FROM kept"), var=house.var).returncode == 0


def test_without_a_folder_nothing_is_left_behind() -> None:
    ran = run(sys.executable, "-c", CONNECT)
    assert ran.returncode == 0, ran.stderr
    assert not Path(ran.stdout.splitlines()[2].split()[0]).exists()


def test_secrets_are_for_their_owner_alone(house: House) -> None:
    assert run("true", var=house.var).returncode == 0
    secrets = house.var / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in secrets.iterdir()} == dict.fromkeys(
        ["django", "postgres", "valkey", "valkey.conf", "haein.env"], 0o600
    )
    kept = (secrets / "django").read_text()
    assert run("true", var=house.var).returncode == 0
    assert (secrets / "django").read_text() == kept


def test_neither_answers_without_its_password(house: House) -> None:
    ask = """
import os, psycopg, socket
sockets = os.environ["HAEIN_VAR"] + "/sock"
try:
    psycopg.connect(f"postgresql://haein:guess@/haein?host={sockets}")
except psycopg.OperationalError as refused:
    print("password authentication failed" in str(refused))
wire = socket.socket(socket.AF_UNIX)
wire.connect(sockets + "/valkey.sock")
wire.sendall(b"INFO\\r\\n")
print(wire.recv(99).startswith(b"-NOAUTH"))
"""
    assert run(sys.executable, "-c", ask, var=house.var).stdout.splitlines() == ["True", "True"]


def test_a_folder_too_deep_for_a_socket_has_it_elsewhere(house: House) -> None:
    deep = house.var.joinpath(*["a-folder-with-a-long-name"] * 4, "var")
    deep.mkdir(parents=True)
    (deep / "env").symlink_to(ROOT / "var" / "env")
    ran = run(sys.executable, "-c", CONNECT, var=deep)
    assert ran.returncode == 0, ran.stderr


def test_a_making_that_was_interrupted_is_made_anew(house: House) -> None:
    half = house.var / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert run("true", var=house.var).returncode == 0
    assert not half.exists()
