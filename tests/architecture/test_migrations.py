"""Every migration has a name that says what it does."""

from tests.architecture.sources import PACKAGES, files


def test_every_migration_is_named() -> None:
    found = [path for path in files(*PACKAGES) if path.parent.name == "migrations" and path.name != "__init__.py"]
    assert found
    assert [path.name for path in found if "_auto_" in path.name or not path.stem[5:]] == []
