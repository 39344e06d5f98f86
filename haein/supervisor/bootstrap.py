"""Makes the Python environments that Haein needs, with nothing but a bare Python: the server's and the jobs'.

`up` and `demo` make the server's and become the supervisor; `jobs` makes the jobs'; `test` makes both with the test
packages and finds a browser and a Slurm, which `demo slurm` needs too. Each is made again when its lock file or its
Python changes, and costs nothing when it did not.
"""

from __future__ import annotations  # so that an older Python gets as far as our sentence

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
LEAST, NEWEST = (3, 11), (3, 13)
NOBODY = 65534
LOCKS = {
    "server": ROOT / "requirements/runtime.txt",
    "test": ROOT / "requirements/test.txt",
    "jobs": ROOT / "requirements/jobs.txt",
}
# The cores of MariaDB rather than its servers: those would start one of their own beside ours.
SLURM = (
    *("slurmctld", "slurmd", "slurmdbd", "slurmrestd", "slurm-client", "slurm-wlm-basic-plugins"),
    *("slurm-wlm-mysql-plugin", "slurm-wlm-jwt-plugin", "munge", "mariadb-server-core", "mariadb-client-core"),
)
SLURM_PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "slurmrestd", "sbatch", "munged", "mariadbd", "mariadb")
SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"  # not in the PATH of every ordinary user
AGAIN = "then run make again"


def main(arguments: list[str]) -> int:
    os.umask(0o022)  # the accounts of the service and of the jobs read what is made here
    if arguments in (["up"], ["demo"], ["demo", "simulator"], ["demo", "slurm"]):
        if "slurm" in arguments:
            slurm("This demonstration runs on a Slurm of its own")
        server_environment()
        os.chdir(ROOT)
        python = str(VENV / "bin/python")
        os.execv(python, [python, "-m", "haein.supervisor", *arguments])  # noqa: S606 - our own, with words of our own
    elif arguments == ["jobs"]:
        jobs_environment()
    elif arguments == ["test"]:
        server_environment(with_tests=True)
        jobs_environment()
        browser()
        slurm("The tests run on a Slurm of their own")
    elif arguments[:1] == ["demo"]:
        refuse(f"CLUSTER is {' '.join(arguments[1:])}: it must be simulator or slurm.")
    else:
        refuse("use: python3 haein/supervisor/bootstrap.py up | demo [simulator | slurm] | jobs | test")
    return 0


def server_environment(*, with_tests: bool = False) -> None:
    """The environment in .venv, complete for what is asked."""
    if os.geteuid() == 0:
        hold_clone_reachable()
    with OneAtATime():
        python = VENV / "bin/python"
        # Without the note that names what is complete, the last attempt was interrupted: start over.
        if not (VENV / "complete").exists() or version_of(python) < LEAST or not runs_for_others(python):
            make_venv(choose_python())
        wanted = ["server", "test"] if with_tests else ["server"]
        complete = read_note(VENV)
        missing = [name for name in wanted if complete.get(name) != fingerprint(name, python)]
        if missing:
            (VENV / "complete").unlink(missing_ok=True)
            for name in missing:
                install(name, python)
                complete[name] = fingerprint(name, python)
            write_note(VENV, complete)


def jobs_environment() -> None:
    """What jobs run on: an environment of its own under the data folder, never the server's."""
    folder = Path(os.environ.get("HAEIN_VAR") or ROOT / "var").resolve() / "env" / "python"
    ready, python = folder / ".ready", folder / "bin/python"
    wanted = fingerprint("jobs", VENV / "bin/python")
    with OneAtATime():
        if ready.exists() and ready.read_text() == wanted and python.exists():
            return
        # A complete one is brought up to date where it is: jobs may be running on it.
        if not ready.exists() or version_of(python) != version_of(VENV / "bin/python"):
            make = [str(VENV / "bin/python"), "-m", "venv", "--clear", "--without-pip", str(folder)]
            step("Making the jobs' environment", make)
        ready.unlink(missing_ok=True)
        install("jobs", python)
        ready.write_text(wanted)


def choose_python() -> str:
    """A Python new enough that every account that needs it can run."""
    names = [sys.executable, "/usr/bin/python3", *(f"python3.{minor}" for minor in (13, 12, 11))]
    found = [path for path in map(shutil.which, names) if path]
    new = [path for path in found if version_of(Path(path)) >= LEAST]
    if not new:
        refuse(f"Python 3.11 or newer is needed, and none is here: install it (apt-get install python3), {AGAIN}.")
    new.sort(key=lambda path: version_of(Path(path)) > NEWEST)  # a newer one may do, if there is no other
    usable = [path for path in new if runs_for_others(Path(path))]
    if not usable:
        refuse(
            f"{os.path.realpath(new[0])} is in a folder that only root may enter, and the service has an account of "
            f"its own: install one for all (apt-get install python3), or run as an ordinary user, {AGAIN}."
        )
    return usable[0]


def make_venv(python: str) -> None:
    if subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True).returncode:
        major, minor = version_of(Path(python))
        apt_install([f"python{major}.{minor}-venv"], f"{python} can't make environments")
    step("Making the server's environment", [python, "-m", "venv", "--clear", str(VENV)])


def install(name: str, python: Path) -> None:
    """Installs what a lock names, with uv, or with pip where uv does not run."""
    lock = LOCKS[name]
    count = sum(1 for line in lock.read_text().splitlines() if "==" in line)
    title = f"Installing the {count} packages of requirements/{lock.name}"
    uv = get_uv()
    if uv is not None:
        quick = [
            uv,
            "pip",
            "install",
            "--python",
            str(python),
            "--require-hashes",
            "--compile-bytecode",
            "-r",
            str(lock),
        ]
        if step(title, quick, environ={"UV_PYTHON_DOWNLOADS": "never"}, must=False):
            return
    pip = [str(VENV / "bin/python"), "-m", "pip", "--python", str(python), "install"]
    step(f"{title}, with pip (some minutes)", [*pip, "--require-hashes", "--no-input", "-r", str(lock)])


def get_uv() -> str | None:
    """The uv of the runtime lock, which pip gets first; None where it does not run."""
    uv = VENV / "bin/uv"
    lines = LOCKS["server"].read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("uv=="))
    end = next(number for number in range(begin, len(lines)) if not lines[number].endswith("\\"))
    pinned = lines[begin].split()[0]
    if not said([str(uv), "--version"]).startswith(pinned.replace("==", " ")):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as only:
            only.write("\n".join(lines[begin : end + 1]) + "\n")
            only.flush()
            pip = [str(VENV / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
            step("Getting the installer", [*pip, "--require-hashes", "-r", only.name])
    return str(uv) if said([str(uv), "--version"]) else None


def browser() -> None:
    """A Chromium for the tests that look at pages."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(shutil.which, names)):
        apt_install(["chromium"], "The tests of pages need a Chromium")


def slurm(why: str) -> None:
    """Slurm's programs, of which nothing is started and nothing configured here."""
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PROGRAMS}"
    if not all(shutil.which(name, path=path) for name in SLURM_PROGRAMS):
        apt_install(list(SLURM), why)


def apt_install(packages: list[str], why: str) -> None:
    """Installs Debian packages where we may, else says the command."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    manual = f"{why}: run `sudo apt-get install {' '.join(packages)}`, {AGAIN}."
    if not shutil.which("apt-get"):
        refuse(f"{why}: install {' '.join(packages)} (as Debian calls it), {AGAIN}.")
    before: list[str] = []
    if os.geteuid() != 0:
        if not shutil.which("sudo") or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode:
            refuse(manual)
        before = ["sudo", "-n"]
    silent = {"DEBIAN_FRONTEND": "noninteractive"}
    if not step(f"Installing {' '.join(packages)}", [*before, *command], environ=silent, must=False):
        # Package lists that are missing or old are the usual reason.
        step("Updating the package lists", [*before, "apt-get", "update"], environ=silent, must=False)
        if not step(f"Installing {' '.join(packages)}", [*before, *command], environ=silent, must=False):
            refuse(manual)


def hold_clone_reachable() -> None:
    """As root the web server has an account of its own, and each job another: they must be able to come here."""
    if not runs_as_nobody(["/usr/bin/test", "-r", str(ROOT / "manage.py")]):
        refuse(
            f"{ROOT} can't be read by other accounts, and as root the service has one of its own: "
            f"move the clone (to /opt or /srv), or run as an ordinary user, {AGAIN}."
        )


def runs_for_others(python: Path) -> bool:
    """As an ordinary user everything runs as that user; as root others must be able to run it."""
    return os.geteuid() != 0 or runs_as_nobody([str(python), "-I", "-c", ""])


def runs_as_nobody(command: list[str]) -> bool:
    try:
        ran = subprocess.run(command, cwd="/", capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[])
    except OSError:
        return False
    return ran.returncode == 0


def version_of(python: Path) -> tuple[int, int]:
    """(major, minor); (0, 0) when it does not run."""
    told = said([str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"]).split()
    return (int(told[0]), int(told[1])) if len(told) == 2 else (0, 0)


def said(command: list[str]) -> str:
    """What the command prints; nothing when it fails."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def step(title: str, command: list[str], *, environ: dict[str, str] | None = None, must: bool = True) -> bool:
    """Runs something that takes a while and shows that it goes on; a failure is told in one line."""
    live = sys.stdout.isatty()
    begun = time.monotonic()
    if not live:
        say(f"{title} ...")
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        whole = {**os.environ, **(environ or {})}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=whole)
        try:
            while process.poll() is None:
                if live:
                    print(f"\r{title} ... {time.monotonic() - begun:.0f} s", end="", flush=True)
                wait_a_little(process)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if live:
            print("\r", end="")
        if process.returncode == 0:
            say(f"{title}: done in {time.monotonic() - begun:.1f} s")
            return True
        output.seek(0)
        reason = reason_in(output.read())
    if must:
        refuse(f"{title} failed ({reason}). Look at the network, the disk or the package mirror, {AGAIN}.")
    say(f"{title} failed ({reason})")
    return False


def reason_in(output: str) -> str:
    """The line that says most about a failure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if line.lower().startswith(("error", "e:"))), lines[-1] if lines else "no word")


def wait_a_little(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


def fingerprint(name: str, python: Path) -> str:
    """What an environment was made from: its lock and its Python."""
    return hashlib.sha256(LOCKS[name].read_bytes() + str(version_of(python)).encode()).hexdigest()


def read_note(folder: Path) -> dict[str, str]:
    try:
        return dict(line.split() for line in (folder / "complete").read_text().splitlines())
    except (OSError, ValueError):
        return {}


def write_note(folder: Path, complete: dict[str, str]) -> None:
    new = folder / "complete.new"
    new.write_text("".join(f"{name} {value}\n" for name, value in complete.items()))
    new.rename(folder / "complete")


class OneAtATime:
    """Holds a second `make` back while the first one installs; the lock is the folder that both read."""

    def __enter__(self) -> None:
        self.held = os.open(str(ROOT / "requirements"), os.O_RDONLY)
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another make that installs packages ...")
            fcntl.flock(self.held, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.held)


def say(text: str) -> None:
    print(text, flush=True)


def refuse(text: str) -> NoReturn:
    sys.exit(f"haein: {text}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
