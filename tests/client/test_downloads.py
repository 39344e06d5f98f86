"""Files come whole or not at all, go on where they were cut, and land nowhere but below the target."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from haein.client import BadFiles, Client, NotFound, ServerAway
from tests.client.replay import Answer, Asked, serving, told

CONTENT = bytes(range(256)) * 400
TAG = '"v1"'


def folder(**entries: Any) -> Answer:
    return told({"path": "", "results": [{"name": name, "type": kind, "size": 1} for name, kind in entries.items()]})


class Disk:
    """One file `a`; each answer is cut after `cut` bytes, and `change` puts another version in its place."""

    def __init__(self, cut: int | None = None, tag: str = TAG) -> None:
        self.content, self.tag, self.cut = CONTENT, tag, cut
        self.ranges: list[str | None] = []
        self.change: int | None = None

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.endswith("/files"):
            return folder(a="file")
        if self.change == len(self.ranges):
            self.content, self.tag = CONTENT[::-1], '"v2"'
        wanted = asked.headers.get("Range")
        self.ranges.append(wanted)
        headers = {"ETag": self.tag, "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        if not found or asked.headers.get("If-Range") != self.tag:
            return Answer(200, self.content, headers, self.cut)
        start, size = int(found[1]), len(self.content)
        if start >= size:
            return Answer(416, b"")
        return Answer(
            206, self.content[start:], {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}, self.cut
        )


def got(disk: Disk, target: Path, patience: float = 5) -> bytes:
    with serving(disk) as server, Client(server.url, "t", patience=patience) as haein:
        (place,) = haein.download("1", "a", target)
        assert place == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return target.read_bytes()


def test_a_cut_download_goes_on(tmp_path: Path) -> None:
    disk = Disk(cut=40_000)
    assert got(disk, tmp_path / "b") == CONTENT
    assert disk.ranges == [None, "bytes=40000-", "bytes=80000-"]


def test_another_version_meanwhile_begins_anew(tmp_path: Path) -> None:
    disk = Disk(cut=60_000)
    disk.change = 1
    assert got(disk, tmp_path / "b") == CONTENT[::-1]
    assert disk.ranges == [None, "bytes=60000-", "bytes=60000-"]


def test_a_weak_tag_promises_nothing(tmp_path: Path) -> None:
    disk = Disk(cut=60_000, tag='W/"v1"')
    with serving(disk) as server, Client(server.url, "t", patience=0.3) as haein, pytest.raises(ServerAway):
        haein.download("1", "a", tmp_path / "b")
    assert set(disk.ranges) == {None}
    assert not (tmp_path / "b").exists()


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(tmp_path: Path) -> None:
    disk = Disk(cut=30_000)
    with serving(disk) as server:
        with Client(server.url, "t", patience=0.2) as haein, pytest.raises(ServerAway, match="goes on from there"):
            # From its first block on every further answer is cut before its first byte.
            haein.download("1", "a", tmp_path / "b", progress=lambda *_: setattr(disk, "cut", 0))
        disk.cut, disk.ranges = None, []
        with Client(server.url, "t") as haein:
            haein.download("1", "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == CONTENT
    assert disk.ranges == ["bytes=30000-"]


def test_an_empty_file_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    disk = Disk()
    disk.content = b""
    assert got(disk, tmp_path / "b") == b""
    with serving(disk) as server, Client(server.url, "t") as haein, pytest.raises(NotFound):
        haein.download("1", "nowhere", tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../x", "/etc/cron.d/x", "a\0b"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_servers_names_are_not_trusted(tmp_path: Path, name: str, kind: str) -> None:
    target = tmp_path / "in" / "target"
    target.parent.mkdir()

    def answers(asked: Asked) -> Answer:
        if asked.path.endswith("/content"):
            return Answer(200, b"x")
        return folder(**{name: kind}) if not asked.query.get("path") else folder(a="file")

    with (
        serving(answers) as server,
        Client(server.url, "t") as haein,
        pytest.raises(BadFiles, match="would lead elsewhere"),
    ):
        haein.download("1", "", target)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["in", "in/target"]


def test_a_link_in_the_target_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target/sub").symlink_to(tmp_path / "elsewhere")

    def answers(asked: Asked) -> Answer:
        return folder(sub="folder") if not asked.query.get("path") else folder(a="file")

    with serving(answers) as server, Client(server.url, "t") as haein, pytest.raises(BadFiles, match="leads out of"):
        haein.download("1", "", tmp_path / "target")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_folders_without_end_are_given_up(tmp_path: Path) -> None:
    endless = pytest.raises(BadFiles, match="deeper folders than can be meant")
    with serving(lambda _: folder(a="folder")) as server, Client(server.url, "t") as haein, endless:
        haein.download("1", "", tmp_path)


def test_a_folder_comes_with_all_below_it(tmp_path: Path) -> None:
    def answers(asked: Asked) -> Answer:
        if asked.path.endswith("/content"):
            return Answer(200, asked.query["path"].encode())
        return {"": folder(out="folder"), "out": folder(a="file", sub="folder"), "out/sub": folder(b="file")}[
            asked.query["path"]
        ]

    with serving(answers) as server, Client(server.url, "t") as haein:
        haein.download("1", "out", tmp_path)  # as with cp: into a folder that is there
        haein.download("1", "out/", tmp_path / "new")
    assert (tmp_path / "out/sub/b").read_text() == "out/sub/b"
    assert (tmp_path / "new/sub/b").read_text() == "out/sub/b"
