"""Files that come with jobs: kept as they were announced, within the team's quota, and not for ever."""

from __future__ import annotations

import os
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from haein.cluster.registry import backend
from haein.lib import clock
from haein.lib.errors import Invalid
from haein.tenants import services as tenants
from jobs import tasks, uploads
from jobs.models import Job, Upload
from tests.cast import Person, person, together


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    backend()  # made once a process, from the settings as they are
    settings.HAEIN_VAR = tmp_path
    return tmp_path / "uploads"


def kept(by: Person, content: bytes = b"data", name: str = "a.bin") -> Upload:
    return uploads.keep(BytesIO(content), team=by.team, name=name, size=len(content))


def refusal(by: Person, content: bytes, *, name: str = "a.bin", size: int) -> str:
    with pytest.raises(Invalid) as refused:
        uploads.keep(BytesIO(content), team=by.team, name=name, size=size)
    assert refused.value.field == "upload"
    return refused.value.message


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.mark.parametrize("size", [3, 5, 0])
def test_a_file_of_another_size_than_was_said_is_refused_and_nothing_is_left(
    alice: Person, folder: Path, size: int
) -> None:
    assert "announced" in refusal(alice, b"data", size=size)
    assert files(folder) == []
    assert not Upload.objects.exists()


def test_what_is_longer_than_it_said_is_not_read_to_its_end(alice: Person, folder: Path) -> None:
    class Endless:
        read_so_far = 0

        def read(self, size: int) -> bytes:
            self.read_so_far += size
            return bytes(size)

    source = Endless()
    with pytest.raises(Invalid, match="announced"):
        uploads.keep(source, team=alice.team, name="a", size=100)  # type: ignore[arg-type]
    assert source.read_so_far <= 2 * uploads.BLOCK
    assert files(folder) == []


def test_a_sender_that_breaks_off_leaves_nothing(alice: Person, folder: Path) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(Invalid, match="Connection reset by peer"):
        uploads.keep(Broken(), team=alice.team, name="a", size=1)  # type: ignore[arg-type]
    assert files(folder) == []


@pytest.mark.parametrize("name", ["a\u202egpj.exe", "a\u200bb", "a\x7f", "a\x9bb", "\ud800a", "..", "/", "한" * 67])
def test_a_name_that_deceives_or_can_not_be_is_refused(alice: Person, folder: Path, name: str) -> None:
    assert "name" in refusal(alice, b"x", name=name, size=1)
    assert files(folder) == []


@pytest.mark.parametrize("name", ["학습.py", "a b.tar.gz", "é.zip", "x" * 200])
def test_a_name_in_any_language_is_kept(alice: Person, name: str) -> None:
    assert kept(alice, name=name).name == name


def test_a_full_quota_says_how_much_is_used_and_what_to_do(alice: Person, folder: Path, settings: Any) -> None:
    settings.HAEIN_TEAM_UPLOADS_BYTES = 3 << 20
    first = kept(alice, bytes(2 << 20))
    said = refusal(alice, bytes((1 << 20) + 1), size=(1 << 20) + 1)
    assert "keeps 2 MiB of uploads on this server, this file has 2 MiB, and 3 MiB is the most" in said
    assert "Clone a job" in said
    assert files(folder) == [str(first.pk)]
    kept(alice, bytes(1 << 20))


def test_a_quota_is_a_teams_own(alice: Person, charlie: Person, settings: Any) -> None:
    settings.HAEIN_TEAM_UPLOADS_BYTES = 10
    kept(alice, bytes(10))
    kept(charlie, bytes(10))


@pytest.mark.django_db(transaction=True)
def test_files_that_come_at_once_do_not_pass_it_together(folder: Path, settings: Any) -> None:
    team = tenants.create_organization(by=person("Alice"), name="Acme").teams.get()
    settings.HAEIN_TEAM_UPLOADS_BYTES = 25

    def send(_: int) -> bool:
        try:
            uploads.keep(BytesIO(bytes(10)), team=team, name="a", size=10)
        except Invalid:
            return False
        return True

    assert sorted(together(send, 4)) == [False, False, True, True]
    assert files(folder) == sorted(str(pk) for pk in Upload.objects.values_list("pk", flat=True))


def aged(upload: Upload, days: float) -> None:
    then = clock.now() - timedelta(days=days)
    Upload.objects.filter(pk=upload.pk).update(created_at=then)
    os.utime(uploads.path(upload), (then.timestamp(), then.timestamp()))


def test_what_no_job_came_for_within_a_day_is_removed(alice: Person, folder: Path, cluster: None, submit: Any) -> None:
    abandoned, fresh, used = kept(alice), kept(alice), kept(alice)
    job: Job = submit(alice, upload=used)
    aged(abandoned, 1.1)
    aged(fresh, 0.9)
    aged(used, 400)
    tasks.remove_abandoned_uploads()
    assert set(Upload.objects.values_list("pk", flat=True)) == {fresh.pk, used.pk}
    assert files(folder) == sorted([str(fresh.pk), str(used.pk)])
    job.refresh_from_db()
    assert job.upload == used
    tasks.remove_abandoned_uploads()
    assert len(files(folder)) == 2


def test_a_file_whose_row_never_came_is_removed(alice: Person, folder: Path) -> None:
    """The web server was killed between the two, or in the midst of receiving it."""
    known = kept(alice)
    long_ago = (clock.now() - timedelta(days=2)).timestamp()
    for name in ("0198c0de-0000-7000-8000-000000000000", "tmpabc.upload.bin", str(known.pk)):
        (folder / name).touch()
        os.utime(folder / name, (long_ago, long_ago))
    (folder / "arriving.upload").touch()
    assert uploads.remove_abandoned(now=clock.now()) == 2
    assert files(folder) == sorted([str(known.pk), "arriving.upload"])


def test_without_any_upload_there_is_nothing_to_do(db: None) -> None:
    assert uploads.remove_abandoned(now=clock.now()) == 0
