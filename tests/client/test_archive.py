"""The same files make the same bytes, and what can't be sent is named before anything is."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from haein.client import BadFiles, GitSource, archive, git_source


def packed(content: object) -> bytes:
    with archive.packed(content) as file:  # type: ignore[arg-type]
        return file.read()


def names_and_contents(content: object) -> dict[str, bytes]:
    with archive.packed(content) as file, tarfile.open(fileobj=file) as tar:  # type: ignore[arg-type]
        members = tar.getmembers()
        assert all(member.isreg() for member in members)
        return {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in sorted(["b", "a", "sub/c"], reverse=name == "two"):
            (tmp_path / name / file).write_text(file)
    os.utime(tmp_path / "one/a", (1, 1))
    (tmp_path / "one/a").chmod(0o600)
    assert packed(archive.members(tmp_path / "one")) == packed(archive.members(tmp_path / "two"))
    (tmp_path / "two/a").chmod(0o755)
    assert packed(archive.members(tmp_path / "one")) != packed(archive.members(tmp_path / "two"))


def test_a_link_within_is_sent_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert names_and_contents(archive.members(tmp_path)) == {"link": b"x", "real": b"x"}


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("/etc/passwd", "leads out of the folder, to /etc/passwd"),
        ("../../..", "leads out of the folder"),
        ("nowhere", "leads nowhere"),
        ("link", "leads nowhere"),
        ("folder", "to a folder"),
    ],
)
def test_a_link_that_cannot_be_sent_is_named(tmp_path: Path, target: str, sentence: str) -> None:
    top = tmp_path / "top"
    (top / "folder").mkdir(parents=True)
    (top / "folder/x").write_text("x")
    (top / "link").symlink_to(target)
    with pytest.raises(BadFiles, match=f"^link is a link (that )?{sentence}"):
        packed(archive.members(top))


def test_nothing_to_send_and_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadFiles, match="no file to send"):
        packed(archive.members(tmp_path))
    with pytest.raises(BadFiles, match="is no folder"):
        packed(archive.members(tmp_path / "nowhere"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare one with two commits; `first` and `second` are its tags."""
    work, bare = tmp_path / "work", tmp_path / "bare.git"
    (work / "train").mkdir(parents=True)

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(work), *words],
            check=True,
            capture_output=True,
        )

    git("init", "-q")
    (work / "train/main.py").write_text("one")
    (work / "train/link.py").symlink_to("main.py")
    (work / "out").symlink_to("/etc/passwd")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "first")
    (work / "train/main.py").write_text("two")
    git("commit", "-qam", "two")
    git("tag", "second")
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return bare


def commit(repository: Path, name: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repository), "rev-parse", name], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(("name", "text"), [("first", b"one"), ("second", b"two")])
@pytest.mark.parametrize("length", [40, 12])
def test_a_commit_of_a_repository(repository: Path, name: str, text: bytes, length: int) -> None:
    source = GitSource(str(repository), commit(repository, name)[:length], "train")
    assert names_and_contents(git_source.members(source)) == {"main.py": text, "link.py": text}
    assert packed(git_source.members(source)) == packed(git_source.members(source))


def test_what_a_repository_cannot_give_is_said(repository: Path) -> None:
    good = commit(repository, "second")
    for source, sentence in [
        (GitSource(str(repository), "ab" * 20), "Commit abab.* is not in .*: is it pushed"),
        (GitSource(str(repository), good, "nowhere"), "nowhere is no folder of commit"),
        (GitSource(str(repository), good, "train/main.py"), "is no folder of commit"),
        (GitSource(str(repository), good), "out is a link that leads to no file of the commit"),
        (GitSource(str(repository / "nowhere"), good), "can't be fetched"),
        (GitSource(f"ext::git -C {repository} %s", good), "only https, ssh and git"),
        (GitSource("--upload-pack=touch /tmp/x", good), "write an address"),
        (GitSource(str(repository), "--output=x"), "write the commit's hash"),
        (GitSource(str(repository), good, "-x"), "name a folder within"),
    ]:
        with pytest.raises(BadFiles, match=sentence):
            packed(git_source.members(source))


def test_a_repository_may_not_send_git_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    source = GitSource(str(repository), commit_without_environment(repository), "train")
    assert set(names_and_contents(git_source.members(source))) == {"main.py", "link.py"}


def commit_without_environment(repository: Path) -> str:
    return (repository / "packed-refs").read_text().split("refs/tags/second")[0].split()[-1]
