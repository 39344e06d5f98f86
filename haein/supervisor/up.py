"""The whole house in the foreground: looks, starts, watches, and stops in order."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from haein.supervisor import account, checks, credentials, ground, migrations, processes
from haein.supervisor.crew import Crew, Stopped
from haein.supervisor.journal import Journal
from haein.supervisor.layout import ROOT, Layout, folder_in_use
from haein.supervisor.parts import Part, environment, port, python
from haein.supervisor.probe import Probe
from haein.supervisor.refusal import Refusal

LOW_MB = 100
CELERY_WORKER = (
    *("-m", "celery", "--quiet", "-A", "haein.celery", "worker", "--loglevel", "INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)


def run(folder: Path | None = None, welcome: Callable[[Crew], None] | None = None, engine: Part | None = None) -> int:
    """Runs on the folder (by default the one that was asked for) until somebody asks it to end; returns the exit code.

    `welcome` is done once pages answer, instead of offering the setup link. An `engine` that runs the jobs is up before
    anybody asks it, and ends after all who do. Raises Refusal.
    """
    begun = time.monotonic()
    layout = Layout(folder or folder_in_use(), account.own(), account.service())
    layout.prepare()
    held = checks.hold(layout, address())
    checks.same_or_newer(layout)
    checks.room(layout.var)
    journal = Journal(layout.log)
    processes.end_leftovers(layout.records, journal.say)
    checks.port_free(bind(), port())
    crew = Crew(layout, journal)
    crew.on_turn = DiskWatch(journal, layout.var)
    try:
        _start(crew, begun, engine)
        (welcome or offer_setup)(crew)
        crew.watch()
    except Stopped:
        journal.say("Stopping; once more hurries. Jobs that run go on, and are found again at the next start.")
        return 0
    except Refusal as refusal:
        journal.say(str(refusal))
        return 1
    finally:
        last = [*ground.NAMES, *([engine.name] if engine else [])]
        crew.stop([[name for name in crew.members if name not in last], last])
        journal.say("Everything is stopped.")
        journal.close()
        os.close(held)


def _start(crew: Crew, begun: float, engine: Part | None) -> None:
    layout = crew.layout
    names = ground.wanted()
    if "postgres" in names and not (layout.postgres / "data").exists():
        crew.journal.say(f"Making the database in {layout.postgres} ...")
    credentials.write_environment(layout, ground.values(layout, names))
    if engine:
        crew.start(engine)
    ground.start(crew, names)
    _bring_up_to_date(crew)
    if engine:
        _wait_for_engine(crew, engine.name)
    checks.write_version(layout)
    for part in (web(layout), worker(layout), beat(layout), replayer(layout)):
        crew.start(part)
    if backend() != "simulator":
        crew.start(jobs_python(layout))
    probe = Probe(bind(), port())
    if not crew.wait(probe.answered, 60):
        crew.journal.say("The web server has not answered for a minute; its lines above should say why.")
        crew.wait(probe.answered)
    crew.journal.say(f"Haein {checks.app_version()} answers at {address()} ({time.monotonic() - begun:.1f} s)")


def _wait_for_engine(crew: Crew, name: str) -> None:
    def ready() -> bool:
        if crew.members[name].deaths >= 3:
            raise Refusal(f"{name} does not start; its last words are above and in {crew.layout.log}.")
        return crew.members[name].ready

    crew.wait(ready)


def offer_setup(crew: Crew) -> None:
    """While there is no operator, shows the link that makes the first one."""

    def shown(line: str) -> bool:
        if line.startswith("http"):
            crew.journal.say(f"To make the first operator, open this; it works once: {line}")
        return not line.startswith("http")

    crew.run(manage(crew.layout, "setup", "setup_link", "--base-url", address(), shown=shown))


def _bring_up_to_date(crew: Crew) -> None:
    # A database of somebody else's may have been replaced meanwhile: only of our own we know what was applied.
    if "postgres" in crew.members and not migrations.pending(crew.layout):
        return
    if crew.run(manage(crew.layout, "migrate", "migrate", "--no-input", shown=lambda line: "Applying" in line)):
        raise Refusal("The database could not be brought up to date; the lines above say why. Nothing was started.")
    migrations.applied(crew.layout)


def backend() -> str:
    return os.environ.get("HAEIN_BACKEND") or "local"


def bind() -> str:
    return os.environ.get("HAEIN_BIND") or "127.0.0.1"


def address() -> str:
    """Where a browser on this machine finds us, unless HAEIN_URL says what the world calls us."""
    host = bind()
    if host in {"127.0.0.1", "0.0.0.0", "::", "::1"}:  # noqa: S104 - compared, not bound
        host = "localhost"
    return os.environ.get("HAEIN_URL", "").rstrip("/") or f"http://{f'[{host}]' if ':' in host else host}:{port()}"


def web(layout: Layout) -> Part:
    cores = len(os.sched_getaffinity(0))
    workers = os.environ.get("HAEIN_WEB_WORKERS") or str(min(4, cores))
    serve = ["--interface", "asginl", "--host", bind(), "--port", str(port()), "--workers", workers, "--loop", "uvloop"]
    ends = ["--respawn-failed-workers", "--respawn-interval", "0.2", "--workers-kill-timeout", "5"]
    return Part(
        name="web",
        command=python("-m", "granian", *serve, *ends, "--log-level", "warning", "haein.asgi:application"),
        account=layout.service,
        environ=environment(layout, layout.service),
        # Its workers outlive a killed master and would keep the port.
        owns_session=True,
    )


def worker(layout: Layout) -> Part:
    pool = ["--pool", "threads", "--concurrency", "4"]
    # As root it must be: it starts each job under an account of its own. Messages are JSON, never pickles.
    quiet = ["-W", "ignore::Warning:celery.platforms"]
    return Part(
        name="worker",
        command=python(*quiet, *CELERY_WORKER, "-n", "worker@%h", *pool),
        account=layout.owner,
        environ=environment(layout, layout.owner),
        patience=15,
    )


def replayer(layout: Layout) -> Part:
    """Computes for minutes at a time, so it is a process of its own and lets everyone else go first.

    Two threads: while one replays, the other goes on rehearsing the queue.
    """
    pool = ["--pool", "threads", "--concurrency", "2", "--queues", "replay"]
    return Part(
        name="replayer",
        command=["nice", "-n", "10", *python(*CELERY_WORKER, "-n", "replayer@%h", *pool)],
        account=layout.service,
        environ=environment(layout, layout.service),
        patience=5,
        # The looks that came while it was busy: there is one for every five seconds.
        shown=lambda line: "Discarding revoked task" not in line,
    )


def beat(layout: Layout) -> Part:
    schedule = str(layout.beat / "schedule")
    return Part(
        name="beat",
        command=python("-m", "celery", "--quiet", "-A", "haein.celery", "beat", "--schedule", schedule, "--pidfile="),
        account=layout.service,
        environ=environment(layout, layout.service),
        patience=5,
    )


def jobs_python(layout: Layout) -> Part:
    """Makes what jobs run on, while pages already answer; jobs wait for it."""
    return Part(
        name="python",
        command=python(str(Path(__file__).with_name("bootstrap.py")), "jobs"),
        account=layout.owner,
        environ={**os.environ, "HAEIN_VAR": str(layout.var)},  # a mirror or proxy may be set for pip and uv
        restarted=False,
        owns_session=True,  # an installer that goes on alone would meet the next start's
    )


def manage(layout: Layout, name: str, *arguments: str, shown: Callable[[str], bool] = lambda _line: True) -> Part:
    return Part(
        name=name,
        command=python(str(ROOT / "manage.py"), *arguments),
        account=layout.service,
        environ=environment(layout, layout.service),
        restarted=False,
        shown=shown,
    )


class DiskWatch:
    """Says that room runs out before it does."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self._journal = journal
        self._folder = folder
        self._next = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 30
        free = checks.free_mb(self._folder)
        if free < LOW_MB:
            self._journal.complain_of_disk(f"The disk of {self._folder} has {free} MB left: free some room now.")
