"""Archives made to hurt whoever unpacks them: each is refused with a sentence, and costs neither memory nor time."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haein.cluster.backends.local import uploads

from .stage import LocalStage
from .test_local_uploads import member, refused, tar

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _in_little_memory() -> Iterator[None]:
    """What these archives ask for is gigabytes; 600 MB more than there is now must be enough for any of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 600 * MIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def zipped(path: Path, *names: str, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return path


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\nb", "control characters"),
        ("a\x1b[2Jb", "control characters"),
        ("a\x7fb", "control characters"),
        ("a\x9bb", "control characters"),
        ("cod\u202efdp.exe", "control characters"),
        ("\u2066a", "control characters"),
        ("a/" * 65 + "b", "64 folders deep"),
        ("a/" * 1000 + "b", "64 folders deep"),
        ("é" * 200, "too long"),
        ("C:/../../evil", "within the job's folder"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_deceives_or_can_not_be(local: LocalStage, tmp_path: Path, name: str, why: str, kind: str) -> None:
    if kind == "zip":
        assert why in refused(local, zipped(tmp_path / "kept", "good", name), "code.zip")
    else:
        assert why in refused(local, tar(tmp_path / "kept", (member("good"), b"x"), (member(name), b"x")), "code.tgz")


def test_names_that_differ_in_case_or_accents_are_different_files(local: LocalStage, tmp_path: Path) -> None:
    names = ["A", "a", "\u00e9", "e\u0301", "한글.py", "with space", "back\\slash"]
    launch, _ = local.run("ls | wc -l", upload=str(zipped(tmp_path / "kept", *names)), upload_name="code.zip")
    assert local.said(launch) == [str(len(names))]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(local: LocalStage, tmp_path: Path) -> None:
    assert "twice" in refused(local, zipped(tmp_path / "zip", "a", "./a"), "code.zip")
    assert "twice" in refused(local, zipped(tmp_path / "again", "a", "a"), "code.zip")
    assert "twice" in refused(local, tar(tmp_path / "tar", (member("d/a"), b"x"), (member("d//a"), b"y")), "code.tgz")


def test_a_name_that_is_a_file_and_a_folder(local: LocalStage, tmp_path: Path) -> None:
    assert "as a folder" in refused(local, zipped(tmp_path / "zip", "a", "a/b"), "code.zip")
    assert "as a folder" in refused(local, zipped(tmp_path / "other", "a/b", "a"), "code.zip")


def test_a_device_and_a_hard_link_to_what_lies_outside(local: LocalStage, tmp_path: Path) -> None:
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        assert "neither a file" in refused(local, tar(tmp_path / "kept", (member("null", kind), b"")), "code.tgz")
    link = member("link", tarfile.LNKTYPE, "/etc/shadow")
    assert "neither a file" in refused(local, tar(tmp_path / "kept", (link, b"")), "code.tgz")


def test_more_files_than_are_allowed(local: LocalStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_FILES", 50)
    names = [f"f{number}" for number in range(51)]
    assert "more than 50 files" in refused(local, zipped(tmp_path / "zip", *names), "code.zip")
    packed = tar(tmp_path / "tar", *((member(name), b"x") for name in names))
    assert "more than 50 files" in refused(local, packed, "code.tgz")


def index_of(entries: int) -> bytes:
    """A zip that is nothing but an index of as many empty files."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = entries * len(entry)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0)
    return entry * entries + end


def test_an_index_of_half_a_million_files(local: LocalStage, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(index_of(500_000))
    assert "more than 100,000 files" in refused(local, tmp_path / "kept", "code.zip")


def test_an_index_of_two_million_files(local: LocalStage, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(index_of(2_000_000))
    assert "index is too large" in refused(local, tmp_path / "kept", "code.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_that_may_take_any_memory(local: LocalStage, tmp_path: Path, method: int) -> None:
    assert "rare compression" in refused(local, zipped(tmp_path / "kept", "a", compression=method), "code.zip")


def test_an_encrypted_zip(local: LocalStage, tmp_path: Path) -> None:
    packed = bytearray(zipped(tmp_path / "kept", "a").read_bytes())
    packed[6] |= 1
    packed[packed.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "kept").write_bytes(packed)
    assert "encrypted" in refused(local, tmp_path / "kept", "code.zip")


def test_a_sparse_file_of_a_terabyte(local: LocalStage, tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as hole:
        hole.truncate(1 << 40)
    for format_ in ("gnu", "posix"):
        subprocess.run(
            ["tar", "--sparse", f"--format={format_}", "-czf", tmp_path / "kept", "-C", tmp_path, "hole"], check=True
        )
        assert "sparse" in refused(local, tmp_path / "kept", "code.tgz")


def test_a_sparse_map_without_an_end(local: LocalStage, tmp_path: Path) -> None:
    info = member("map")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "map"}
    info.size = 1 << 33
    header = info.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "kept").write_bytes(gzip.compress(header + b"99999999\n" + b"1\n" * (8 << 20), 1))
    assert "sparse" in refused(local, tmp_path / "kept", "code.tgz")


def long_names(times: int, size: int) -> bytes:
    """As many headers, each of which announces a longer name for the one that follows."""
    header = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = size
    return (header.tobuf(tarfile.GNU_FORMAT) + b"a" * size) * times + member("end").tobuf()


def test_headers_that_announce_headers(local: LocalStage, tmp_path: Path) -> None:
    (tmp_path / "many").write_bytes(gzip.compress(long_names(2000, 512), 1))
    refused(local, tmp_path / "many", "code.tgz")
    (tmp_path / "large").write_bytes(gzip.compress(long_names(3, 15 << 20), 1))
    assert "header in it is too large" in refused(local, tmp_path / "large", "code.tgz")


def test_global_headers_that_add_up(local: LocalStage, tmp_path: Path) -> None:
    packed = io.BytesIO()
    for number in range(20):
        packed.write(tarfile.TarInfo.create_pax_global_header({f"key{number}": "x" * 100_000}))
        packed.write(member(f"f{number}").tobuf())
    (tmp_path / "kept").write_bytes(gzip.compress(packed.getvalue(), 1))
    assert "headers are too large" in refused(local, tmp_path / "kept", "code.tgz")


def test_a_zip_whose_files_lie_upon_each_other(tmp_path: Path) -> None:
    """One kernel of deflated zeros, named by every entry: small on disk, huge in sum."""
    stage = LocalStage(upload_cap_mb=2)
    try:
        with zipfile.ZipFile(tmp_path / "kept", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", bytes(MIB))
        packed = (tmp_path / "kept").read_bytes()
        start = packed.index(b"PK\1\2")
        entry = packed[start : packed.index(b"PK\5\6")]
        end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 30, 30, 30 * len(entry), start, 0)
        (tmp_path / "kept").write_bytes(packed[:start] + entry * 30 + end)
        # As files that overlap, by newer Pythons; else because the name, the file's own header's, is there twice.
        refused(stage, tmp_path / "kept", "code.zip")
    finally:
        stage.close()


def test_a_bomb_in_a_bomb_stays_packed(local: LocalStage, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner", "a").read_bytes()
    with zipfile.ZipFile(tmp_path / "kept", "w") as archive:
        archive.writestr("inner.zip", inner)
    launch, _ = local.run("ls", upload=str(tmp_path / "kept"), upload_name="code.zip")
    assert local.said(launch) == ["inner.zip"]
