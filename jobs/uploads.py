"""Keeps the files that come with jobs, where the backend can fetch them and no job can."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils.translation import gettext as _

from haein.lib.errors import Invalid
from haein.tenants.models import Team
from jobs.models import Upload

log = structlog.get_logger(__name__)

BLOCK = 1 << 20
LONGEST_NAME = 200  # bytes: a disk keeps 255, and programs add endings
# Control characters, those that are not seen or turn the text around them, and halves of characters.
UNREADABLE = {"Cc", "Cf", "Cs"}
# Longer than anybody fills in a form; and no upload is being written for so long.
ABANDONED_AFTER = timedelta(days=1)


def folder() -> Path:
    return Path(settings.HAEIN_VAR) / "uploads"


def path(upload: Upload) -> Path:
    return folder() / str(upload.pk)


def keep(source: BinaryIO, *, team: Team, name: str, size: int) -> Upload:
    """Write a file of `size` bytes down for a job to come.

    Raises Invalid for a name or size that can't be, a file that is not what it was said to be, and a quota that is
    used up; nothing of the file is left then.
    """
    upload = Upload(team=team, name=_plain(name), size=size)
    if size > settings.HAEIN_UPLOAD_BYTES:
        most = settings.HAEIN_UPLOAD_BYTES >> 20
        raise _refused(_("The file is larger than %(most)s MiB. Compress it or fetch it in the job.") % {"most": most})
    _check_quota(team, size)
    try:
        _write(source, path(upload), size)
        with transaction.atomic():
            # Of two files that come at once, the second is counted after the first.
            _check_quota(Team.objects.select_for_update().get(pk=team.pk), size)
            upload.save()
    except OSError as error:
        path(upload).unlink(missing_ok=True)
        raise _refused(
            _("The server could not keep the file: %(why)s. Try again later.") % {"why": error.strerror}
        ) from error
    except BaseException:
        path(upload).unlink(missing_ok=True)
        raise
    return upload


def remove_abandoned(*, now: datetime) -> int:
    """Remove what no job came for within a day: rows, then every file without a row. Returns how many files."""
    before = now - ABANDONED_AFTER
    with transaction.atomic():
        # A job that comes for one of them now holds its row, or waits for it; one that came a moment ago is seen below.
        unused = Upload.objects.filter(created_at__lt=before, job=None)
        locked = [upload.pk for upload in unused.select_for_update(skip_locked=True, of=("self",))]
        Upload.objects.filter(pk__in=locked, job=None).delete()
    files = {file.name: file for file in _files_before(before)}
    known = set(map(str, Upload.objects.filter(pk__in=_ids(files)).values_list("pk", flat=True)))
    orphans = [file for name, file in files.items() if name not in known]
    for file in orphans:
        file.unlink(missing_ok=True)
    if orphans:
        log.info("removed uploads that no job came for", files=len(orphans))
    return len(orphans)


def _plain(name: str) -> str:
    """The last part of the name. Raises Invalid when it is none."""
    plain = Path(name.replace("\\", "/")).name
    odd = any(unicodedata.category(letter) in UNREADABLE for letter in plain)
    if not plain or plain.startswith(".") or odd:
        raise _refused(_("Give the file a plain name that does not begin with a dot."))
    if len(plain.encode()) > LONGEST_NAME:
        raise _refused(_("The name of the file is too long: give it a shorter one."))
    return plain


def _check_quota(team: Team, size: int) -> None:
    most = settings.HAEIN_TEAM_UPLOADS_BYTES
    used: int = Upload.objects.filter(team=team).aggregate(sum=Sum("size"))["sum"] or 0
    if used + size > most:
        raise _refused(
            _(
                "Your team keeps %(used)s MiB of uploads on this server, this file has %(size)s MiB, and %(most)s MiB"
                " is the most. Clone a job to use its file again, fetch the data in the job, or ask an operator for"
                " more."
            )
            % {"used": -(-used >> 20), "size": -(-size >> 20), "most": most >> 20}
        )


def _write(source: BinaryIO, target: Path, size: int) -> None:
    """Raises Invalid as soon as it is clear that the file is not of that size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(target, "xb", opener=lambda file, flags: os.open(file, flags, 0o640)) as kept:
        while block := source.read(BLOCK):
            written += len(block)
            if written > size:
                break
            kept.write(block)
        if written != size:
            raise _refused(_("The file is not of the size that was announced. Send it again."))
        kept.flush()
        os.fsync(kept.fileno())


def _files_before(before: datetime) -> list[Path]:
    """Every file that is as old: also the web server's own temporary ones, when it was killed in the midst of one."""
    if not folder().is_dir():
        return []
    return [
        Path(entry.path)
        for entry in os.scandir(folder())
        if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before.timestamp()
    ]


def _ids(names: Iterable[str]) -> list[UUID]:
    found = []
    for name in names:
        with suppress(ValueError):
            found.append(UUID(name))
    return found


def _refused(sentence: str) -> Invalid:
    return Invalid({"upload": sentence})
