"""Whether the database must be brought up to date: asking Django itself would cost each start a second."""

from pathlib import Path

from haein.supervisor.layout import ROOT, Layout

APPS = ("haein/tenants", "haein/cluster", "haein/telemetry", "jobs", "billing", "dashboard")


def pending(layout: Layout) -> bool:
    """Whether any migration, or any package that may bring some, is other than at the last success."""
    try:
        return _stamp(layout).read_text() != _present()
    except FileNotFoundError:
        return True


def applied(layout: Layout) -> None:
    layout.write(_stamp(layout), _present())


def _stamp(layout: Layout) -> Path:
    """Beside the cluster, so that a database that is replaced takes its stamp along."""
    return layout.postgres / "migrated"


def _present() -> str:
    files = [ROOT / "requirements/runtime.txt"]
    for app in APPS:
        files += sorted((ROOT / app / "migrations").glob("*.py"))
    known = ((file, file.stat()) for file in files)
    return "".join(f"{file.relative_to(ROOT)} {now.st_size} {now.st_mtime_ns}\n" for file, now in known)
