"""Brings a job's files here: goes on where a cut download stopped, and writes nowhere but below its target."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx

from haein.client.answers import File
from haein.client.errors import BadFiles, Refused, ServerAway, ServerFault
from haein.client.transport import Transport

MOST_FILES = 100_000
DEEPEST = 64
Progress = Callable[[str, int, int], None]  # a file's path, its bytes so far, its size


class Listing(Protocol):
    """Lists a folder of the job by its path."""

    def __call__(self, path: str) -> Iterator[File]: ...


def tree(listing: Listing, path: str, target: Path) -> Iterator[tuple[str, Path]]:
    """(path in the job, place here) of every file below a folder, whose own folders it makes as it goes.

    A server's names are not trusted: one that is no plain name raises BadFiles before anything is written for it.
    """
    target.mkdir(parents=True, exist_ok=True)
    top = target.resolve()
    waiting = [(path, target, 0)]
    count = 0
    while waiting:
        where, place, depth = waiting.pop()
        for entry in listing(where):
            count += 1
            if count > MOST_FILES or depth > DEEPEST:
                raise BadFiles("There are more files or deeper folders than can be meant: name a part of them.")
            here = place / checked_name(entry.name)
            there = f"{where}/{entry.name}" if where else entry.name
            if not here.resolve().is_relative_to(top):
                raise BadFiles(f"{here} is a link that leads out of {target}: remove it first.")
            if entry.type == "folder":
                try:
                    here.mkdir(exist_ok=True)
                except FileExistsError:
                    raise BadFiles(f"{here} is a file, and a folder should go there: move it away first.") from None
                waiting.append((there, here, depth + 1))
            else:
                yield there, here


def checked_name(name: str) -> str:
    """The name, if it is one of a file in a folder. Raises BadFiles."""
    separators = {"/", "\0", os.sep, os.altsep or "/"}
    if name in ("", ".", "..") or separators & set(name) or Path(name).drive:
        raise BadFiles(f"The server names a file {name!r}, which would lead elsewhere: nothing was written for it.")
    return name


def fetch(transport: Transport, job: str, path: str, place: Path, progress: Progress | None) -> None:
    """One file, written beside its place and moved there when it is whole. Raises BadFiles, ServerAway.

    `progress` is told of every block.
    """
    if place.is_dir():
        raise BadFiles(f"{place} is a folder, and a file should go there.")
    try:
        _Download(transport, job, path, place, progress).run()
    except OSError as error:
        raise BadFiles(f"{place} can't be written: {error.strerror}.") from None


class _Download:
    def __init__(self, transport: Transport, job: str, path: str, place: Path, progress: Progress | None) -> None:
        self.transport, self.job, self.path, self.place, self.progress = transport, job, path, place, progress
        # A fixed name, so that the next run finds what this one left. Its first line says of which version it is.
        digest = hashlib.sha256(f"{transport.url} {job} {path}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.part = place.parent / f".haein-{digest}.part"
        self.tag = self.part.with_suffix(".etag")

    def run(self) -> None:
        deadline = time.monotonic() + self.transport.patience
        pause = 0.1
        while True:
            before = self._have()
            if self._whole():
                break
            if self._have() > before:
                deadline, pause = time.monotonic() + self.transport.patience, 0.1
            elif time.monotonic() + pause > deadline:
                have = f"{self._have():,} bytes"
                raise ServerAway(f"{self.path} was cut after {have}. The same command goes on from there.")
            else:
                time.sleep(pause)
                pause = min(pause * 2, 5.0)
        self.part.replace(self.place)
        self.tag.unlink(missing_ok=True)

    def _have(self) -> int:
        with suppress(FileNotFoundError):
            if self.tag.exists() and not self.part.is_symlink():
                return self.part.stat().st_size
        return 0

    def _whole(self) -> bool:
        """Asks for what is missing; whether nothing is missing now."""
        have = self._have()
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.tag.read_text()}
        try:
            with self.transport.stream(
                "GET", f"jobs/{self.job}/files/content", params={"path": self.path}, headers=headers
            ) as answer:
                return self._written(answer, have)
        except Refused as refusal:
            if refusal.status != 416:
                raise
            # It has become shorter than what is here.
            self.tag.unlink(missing_ok=True)
            return False

    def _written(self, answer: httpx.Response, have: int) -> bool:
        start = 0
        if answer.status_code == 206:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if told is None or int(told[1]) != have:
                raise ServerFault(f"The server sent another part of {self.path} than it was asked for.", status=206)
            start, size = have, int(told[2])
        else:
            size = int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else -1
        self._keep_tag(answer.headers.get("ETag", ""))
        # The server chose the names around here: no link is followed.
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(self.part, flags, 0o666), "wb") as file:
            file.truncate(start)
            file.seek(start)
            with suppress(httpx.TransportError):
                # Blocks as they come: collected to a size, what had come before a cut would be lost.
                for block in answer.iter_bytes():
                    file.write(block)
                    if self.progress:
                        self.progress(self.path, file.tell(), size)
                return size in (-1, file.tell())
        return False

    def _keep_tag(self, tag: str) -> None:
        """A weak tag does not promise the same bytes: then a cut download begins anew."""
        if tag and not tag.startswith("W/"):
            self.tag.write_text(tag)
        else:
            self.tag.unlink(missing_ok=True)
