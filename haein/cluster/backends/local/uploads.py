"""What a user uploaded, put into the job's folder without trusting a word of it."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from haein.cluster.backends.base import Refused

MOST_FILES = 100_000
COPY_SIZE = 256 * 1024
DEEPEST = 64  # folders within folders: what is deeper than Python's recursion could not even be removed again
# Tar reads a header whole, and keeps hundreds of them at once when each announces another.
LARGEST_HEADER = 256 * 1024
LARGEST_INDEX = 32 * 1024 * 1024  # of a zip, which is read whole: 100,000 files with names of some length
PACKED_BY = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes of memory to be unpacked
# Characters that turn the text around them: what one reads of a name would not be its order.
TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


class Entry:
    """One file of an archive (or a folder, when `file` is None)."""

    def __init__(self, name: str, file: IO[bytes] | None, executable: bool) -> None:
        self.path = safe_path(name)
        self.file = file
        self.executable = executable


def place(upload: Path, name: str, folder: Path, limit: int) -> None:
    """Unpack an archive, or copy any other file, into the empty folder; `limit` is in bytes.

    Raises Refused, with a sentence, for an archive that is broken, too large, or reaches outside the folder.
    """
    lower = name.lower()
    try:
        if lower.endswith((".tar.gz", ".tgz")):
            _write(_tar_entries(upload, limit), folder, limit)
        elif lower.endswith(".zip"):
            _write(_zip_entries(upload), folder, limit)
        else:
            with upload.open("rb") as file:
                _write(iter([Entry(name or upload.name, file, executable=False)]), folder, limit)
    except FileNotFoundError:
        raise Refused("The uploaded file is no longer on the server. Please upload it again.") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise Refused(f"The upload {name!r} is not a readable archive: {error}.") from None
    except (NotImplementedError, RuntimeError, ValueError, IndexError, struct.error) as error:
        raise Refused(f"The upload {name!r} can't be unpacked: {error}.") from None
    except OSError as error:
        # An archive that sends its reader to a place before its beginning; any other error is this machine's.
        if error.errno != errno.EINVAL:
            raise
        raise Refused(f"The upload {name!r} is not a readable archive: its index is broken.") from None


def safe_path(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not name:
        raise Refused(f"The upload names {name!r}: a file must stay within the job's folder.")
    if any(unicodedata.category(letter) == "Cc" or unicodedata.bidirectional(letter) in TURNING for letter in name):
        raise Refused(f"The upload names {name!r}: a name must not hold control characters. Rename it.")
    if len(path.parts) > DEEPEST:
        raise Refused(f"The upload names {name[:80]!r}..., which is more than {DEEPEST} folders deep.")
    if any(len(os.fsencode(part)) > 255 for part in path.parts) or len(os.fsencode(name)) > 2048:
        raise Refused(f"The upload names a file that no disk can keep: {name[:80]!r}... is too long.")
    return path


class _GentleGzip(gzip.GzipFile):
    """Decompression that won't be talked into one huge read: tar headers may claim any size and are read whole."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > LARGEST_HEADER:
            raise tarfile.ReadError("a header in it is too large")
        return super().read(size)


class _PlainTarInfo(tarfile.TarInfo):
    """A member that is no sparse file: their maps are read into memory, however long a header says they are."""

    def _no_sparse_files(self, *_: Any) -> NoReturn:
        raise Refused("The upload holds a sparse file. Pack it without --sparse.")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_sparse_files


class _GentleFile(io.BufferedReader):
    """A zip file whose index may not claim any size."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LARGEST_INDEX:
            raise zipfile.BadZipFile("its index is too large")
        return super().read(size)


class _ShortList(list[zipfile.ZipInfo]):
    def append(self, item: zipfile.ZipInfo) -> None:
        _check_count(len(self) + 1)
        super().append(item)


class _ShortZip(zipfile.ZipFile):
    """Gives up at the first entry that is one too many, rather than hold millions of them in memory."""

    @property
    def filelist(self) -> list[zipfile.ZipInfo]:
        return self._filelist

    @filelist.setter
    def filelist(self, entries: list[zipfile.ZipInfo]) -> None:
        self._filelist = _ShortList(entries)


def _tar_entries(upload: Path, limit: int) -> Iterator[Entry]:
    claimed = 0
    with _GentleGzip(upload) as data, tarfile.TarFile(fileobj=data, tarinfo=_PlainTarInfo) as archive:
        for member in archive:
            # Counted from the headers too: to skip a member is to decompress it.
            claimed += member.size
            _check_size(claimed, limit)
            # Global ones are kept for all members that follow, so that each could add to them.
            if sum(map(len, archive.pax_headers.values())) + len(archive.pax_headers) > LARGEST_HEADER:
                raise tarfile.ReadError("its headers are too large")
            if member.size < 0:
                raise tarfile.ReadError("a size in it is negative")
            if not member.isreg() and not member.isdir():
                raise Refused(f"The upload holds {member.name!r}, which is neither a file nor a folder (a link?).")
            yield Entry(member.name, archive.extractfile(member), bool(member.mode & 0o100))
            archive.members.clear()  # type: ignore[attr-defined]  # else a million tiny members stay in memory


def _zip_entries(upload: Path) -> Iterator[Entry]:
    with _GentleFile(io.FileIO(upload)) as data, _ShortZip(data) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Refused(f"The upload holds {info.filename!r}, which is neither a file nor a folder (a link?).")
            if info.compress_type not in PACKED_BY:
                raise Refused(f"The upload holds {info.filename!r} in a rare compression. Pack it with deflate.")
            if info.is_dir():
                yield Entry(info.filename, None, executable=False)
            else:
                with archive.open(info) as file:
                    yield Entry(info.filename, file, bool(mode & 0o100))


def _write(entries: Iterator[Entry], folder: Path, limit: int) -> None:
    total = 0
    for count, entry in enumerate(entries, start=1):
        _check_count(count)
        target = folder / entry.path
        try:
            if entry.file is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                total += _copy(entry.file, file, limit - total, limit)
            target.chmod(0o770 if entry.executable else 0o660)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise Refused(f"The upload holds {str(entry.path)!r} twice, or both as a file and as a folder.") from None


def _copy(source: IO[bytes], target: IO[bytes], left: int, limit: int) -> int:
    """Copy what is really there, whatever the archive said of its size."""
    copied = 0
    while block := source.read(COPY_SIZE):
        copied += len(block)
        _check_size(limit - left + copied, limit)
        target.write(block)
    return copied


def _check_count(count: int) -> None:
    if count > MOST_FILES:
        raise Refused(f"The upload holds more than {MOST_FILES:,} files. Pack them into one that the job unpacks.")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise Refused(f"The upload is larger than {limit / 1e6:,.0f} MB when unpacked, which is the most allowed.")


def give(folder: Path, uid: int, gid: int) -> None:
    """Make the folder and all in it belong to the job; links are not followed (and there are none)."""
    for path, _, files in os.walk(folder):
        os.chown(path, uid, gid)
        os.chmod(path, 0o2770)  # noqa: S103  (the web process lists files through its group)
        for name in files:
            os.chown(os.path.join(path, name), uid, gid, follow_symlinks=False)


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
