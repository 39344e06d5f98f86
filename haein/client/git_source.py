"""A commit of a git repository as a job's files: fetched and packed on the submitter's machine, with his own keys.

The address may come from a job file that somebody else wrote. So git runs without a shell, may speak only the protocols
below (`ext::` runs a command), and nothing that begins with a dash reaches it as an option.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from haein.client.archive import Member
from haein.client.errors import BadFiles
from haein.client.fields import COMMIT_PATTERN

PROTOCOLS = ("https", "ssh", "git", "file")
_ADDRESS = re.compile(r"(?:https|ssh|git)://(?!-)[^\s\x00-\x1f]+")
_SCP_LIKE = re.compile(r"[A-Za-z0-9_.][\w.-]*@[A-Za-z0-9][\w.-]*:[^\s:\x00-\x1f][^\s\x00-\x1f]*")


@dataclass(frozen=True, slots=True)
class GitSource:
    """`url` is an https, ssh or git address or a folder of this machine, `commit` a hash, `path` a folder within it."""

    url: str
    commit: str
    path: str = ""


def fault_of(name: str, text: str) -> str:
    """What is wrong with a value of `git`, `commit` or `path`, and the way out; "" when nothing is."""
    if name == "git":
        return _fault_of_address(text)
    if name == "commit":
        return "" if re.fullmatch(COMMIT_PATTERN, text) else "write the commit's hash; `git rev-parse HEAD` prints it"
    if text.startswith(("/", "-")) or ".." in PurePosixPath(text).parts or re.search(r"[\x00-\x1f]", text):
        return "name a folder within the repository, such as train/digits"
    return ""


def absolute(url: str, folder: Path) -> str:
    """The same address; one that is a folder of this machine seen from `folder`."""
    if _ADDRESS.fullmatch(url) or _SCP_LIKE.fullmatch(url):
        return url
    return str((folder / Path(url.removeprefix("file://")).expanduser()).resolve())


def _fault_of_address(text: str) -> str:
    if _ADDRESS.fullmatch(text):
        host = text.split("://", 1)[1].split("/", 1)[0].rpartition("@")[2]
        return "its host can't begin with a dash" if host.startswith("-") or not host else ""
    if "::" in text or ("://" in text and not text.startswith("file://")):
        return "only https, ssh and git addresses and folders of this machine are taken"
    if text.startswith("-") or re.search(r"[\x00-\x1f]", text):
        return "write an address, for example git: https://git.example.com/team/project.git"
    return ""


def members(source: GitSource) -> Iterator[Member]:
    """The commit's files, sorted by name. Raises BadFiles: no git, no such repository, commit or folder."""
    for name in ("git", "commit", "path"):
        value = source.url if name == "git" else str(getattr(source, name))
        if value and (fault := fault_of(name, value)):
            raise BadFiles(f'files.{name} is "{value}": {fault}.')
    with tempfile.TemporaryDirectory(prefix="haein-git-") as scratch:
        repository = Path(scratch) / "repository"
        _git(Path(scratch), "init", "--quiet", "--bare", str(repository))
        _fetch(repository, source)
        tree = f"{source.commit}:{source.path.strip('/')}" if source.path.strip("./") else source.commit
        if _git(repository, "ls-tree", "-d", "--end-of-options", tree, fails=True):
            raise BadFiles(f"{source.path} is no folder of commit {source.commit} in {source.url}.")
        tar = Path(scratch) / "tree.tar"
        _git(repository, "archive", "--format=tar", f"--output={tar}", "--end-of-options", tree)
        yield from _unpacked(tar, source)


def _fetch(repository: Path, source: GitSource) -> None:
    commit = f"{source.commit}^{{commit}}"
    shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--end-of-options", source.url, source.commit]
    # One commit alone is asked for first; a server may refuse that, and a shortened hash can't be asked for.
    if len(source.commit) < 40 or _git(repository, *shallow, fails=True):
        everything = _git(
            repository, "fetch", "--quiet", "--end-of-options", source.url, "+refs/*:refs/remotes/them/*", fails=True
        )
        if everything:
            raise BadFiles(f"{source.url} can't be fetched: {everything}")
    if _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", commit, fails=True):
        raise BadFiles(f"Commit {source.commit} is not in {source.url}: is it pushed?")


def _git(folder: Path, *arguments: str, fails: bool = False) -> str:
    """What went wrong, in git's last words; "" when nothing did. Raises BadFiles unless it `fails` politely."""
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_GIT}
    environ["GIT_ALLOW_PROTOCOL"] = ":".join(PROTOCOLS)
    environ["LC_ALL"] = "C"
    if not sys.stdin.isatty():
        environ["GIT_TERMINAL_PROMPT"] = "0"
    try:
        ran = subprocess.run(["git", *arguments], cwd=folder, env=environ, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, check=False)  # fmt: skip
    except FileNotFoundError:
        raise BadFiles("git is not installed here, and files.git needs it.") from None
    if ran.returncode == 0:
        return ""
    said = ran.stderr.decode(errors="replace").strip().splitlines()
    words = (said[-1] if said else f"git {arguments[0]} ended with {ran.returncode}").removeprefix("fatal: ")
    if not fails:
        raise BadFiles(f"git {arguments[0]} failed: {words}")
    return words


# They would lead git to another repository than the one it is told of, as within a hook.
_NOT_FOR_GIT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}


def _unpacked(tar: Path, source: GitSource) -> Iterator[Member]:
    with tarfile.open(tar) as archive:
        found = sorted((member for member in archive if not member.isdir()), key=lambda member: member.name)
        if not found:
            raise BadFiles(f"There is no file in {source.path or 'commit'} of {source.commit}.")
        for member in found:
            # A job's folder takes no links, so what a link leads to is sent in its place.
            try:
                target = archive._find_link_target(member) if member.issym() else member  # type: ignore[attr-defined]
            except KeyError:
                target = None
            content = archive.extractfile(target) if target is not None and target.isreg() else None
            if content is None or target is None:
                raise BadFiles(f"{member.name} is a link that leads to no file of the commit, and can't be sent.")
            yield Member(member.name, content, target.size, bool(target.mode & 0o100))
