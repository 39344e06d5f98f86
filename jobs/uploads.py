"""Keeps the files that come with jobs, where the backend can fetch them and no job can."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.utils.translation import gettext as _

from haein.lib.errors import Invalid
from haein.tenants.models import Team
from jobs.models import Upload


def path(upload: Upload) -> Path:
    return Path(settings.HAEIN_VAR) / "uploads" / str(upload.pk)


def keep(source: BinaryIO, *, team: Team, name: str, size: int) -> Upload:
    """Write a file down for a job to come. Raises Invalid for a name or size that can't be."""
    plain = Path(name.replace("\\", "/")).name
    if not plain or plain.startswith(".") or len(plain) > 200 or any(ord(letter) < 32 for letter in plain):
        raise Invalid({"upload": _("Give the file a plain name that does not begin with a dot.")})
    if size > settings.HAEIN_UPLOAD_BYTES:
        most = settings.HAEIN_UPLOAD_BYTES >> 20
        raise Invalid(
            {"upload": _("The file is larger than %(most)s MiB. Compress it or fetch it in the job.") % {"most": most}}
        )
    upload = Upload(team=team, name=plain, size=size)
    target = path(upload)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb", opener=lambda file, flags: os.open(file, flags, 0o640)) as kept:
            shutil.copyfileobj(source, kept, 1 << 20)
            os.fsync(kept.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise Invalid(
            {"upload": _("The server could not keep the file: %(why)s. Try again later.") % {"why": error.strerror}}
        ) from error
    upload.save()
    return upload
