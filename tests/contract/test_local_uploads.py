"""Uploads are unpacked into the job's folder, or refused with a sentence; never do they reach beyond it."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haein.cluster.backends.base import Cause, Phase, Refused

from .stage import LocalStage


@pytest.fixture
def narrow() -> Iterator[LocalStage]:
    """A stage on which 2 MB is the most that an upload may hold."""
    stage = LocalStage(upload_cap_mb=2)
    yield stage
    stage.close()


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def refused(stage: LocalStage, archive: Path, name: str) -> str:
    launch = stage.order("true", upload=str(archive), upload_name=name)
    with pytest.raises(Refused) as refusal:
        stage.backend.launch(launch)
    sight = stage.look(launch)
    assert (sight.phase, sight.cause, sight.detail) == (Phase.ENDED, Cause.NOT_STARTED, str(refusal.value))
    assert not stage.work(launch).exists()
    assert [path.name for path in (stage.var / "work").iterdir()] == []
    return str(refusal.value)


def test_a_tar_is_unpacked_with_its_folders_and_programs(local: LocalStage, tmp_path: Path) -> None:
    script = member("code/run", mode=0o755)
    archive = tar(tmp_path / "kept", (member("code", tarfile.DIRTYPE), b""), (script, b"#!/bin/sh\necho ran\n"))
    launch, _ = local.run("code/run; touch code/new && echo mine", upload=str(archive), upload_name="code.tar.gz")
    assert local.said(launch) == ["ran", "mine"]


def test_a_zip_is_unpacked(local: LocalStage, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "kept", "w") as archive:
        archive.writestr("deep/er/data.txt", "found")
    launch, _ = local.run("cat deep/er/data.txt", upload=str(tmp_path / "kept"), upload_name="Code.ZIP")
    assert local.said(launch) == ["found"]


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/evil"),
        member("../evil"),
        member("a/../../evil"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "other"),
        member("pipe", tarfile.FIFOTYPE),
        member("disk", tarfile.BLKTYPE),
        member("x" * 300),
    ],
    ids=lambda info: f"{info.name[:12]}-{info.type!r}",
)
def test_it_refuses_a_tar_that_reaches_out(local: LocalStage, tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = tar(tmp_path / "kept", (member("good"), b"x"), (bad, b"evil"))
    refused(local, archive, "code.tgz")


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil"])
def test_it_refuses_a_zip_that_reaches_out(local: LocalStage, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "kept", "w") as archive:
        archive.writestr(name, "evil")
    assert "within the job's folder" in refused(local, tmp_path / "kept", "code.zip")


def test_it_refuses_a_link_in_a_zip(local: LocalStage, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "kept", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "neither a file nor a folder" in refused(local, tmp_path / "kept", "code.zip")


def test_it_refuses_bombs(narrow: LocalStage, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(30_000_000))
    assert "larger than 2 MB" in refused(narrow, tmp_path / "zip", "code.zip")
    assert "larger than 2 MB" in refused(narrow, tar(tmp_path / "tar", (member("bomb"), bytes(30_000_000))), "a.tgz")


def test_it_refuses_a_zip_that_lies_about_its_size(narrow: LocalStage, tmp_path: Path) -> None:
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(30_000_000))
    lie = path.read_bytes().replace((30_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(lie)
    refused(narrow, path, "code.zip")


def test_it_refuses_a_tar_header_that_would_fill_the_memory(local: LocalStage, tmp_path: Path) -> None:
    header = member("pax", tarfile.XHDTYPE)
    header.size = 1 << 40
    (tmp_path / "kept").write_bytes(gzip.compress(header.tobuf() + bytes(1 << 20)))
    refused(local, tmp_path / "kept", "code.tgz")


@pytest.mark.parametrize("name", ["code.zip", "code.tar.gz"])
def test_it_refuses_what_is_no_archive(local: LocalStage, tmp_path: Path, name: str) -> None:
    (tmp_path / "kept").write_bytes(b"this is no archive" * 100)
    assert "not a readable archive" in refused(local, tmp_path / "kept", name)


def test_it_refuses_a_cut_off_archive(local: LocalStage, tmp_path: Path) -> None:
    whole = tar(tmp_path / "kept", (member("data"), random_bytes())).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    refused(local, tmp_path / "cut", "code.tgz")


def test_it_refuses_an_upload_that_is_gone_and_a_name_that_is_a_path(local: LocalStage, tmp_path: Path) -> None:
    assert "upload it again" in refused(local, tmp_path / "gone", "a.txt")
    (tmp_path / "kept").write_bytes(b"x")
    refused(local, tmp_path / "kept", "../a.txt")


def random_bytes() -> bytes:
    import random

    return random.Random(7).randbytes(100_000)
