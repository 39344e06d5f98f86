"""The indexes of an array of jobs as people write them, in the form of sbatch: 0-9, 1,3,7 or 0-30:10."""

from __future__ import annotations

import re

from django.utils.translation import gettext as _

MOST_MEMBERS = 1000
LARGEST = 999_999
# A list of a thousand indexes of six digits, with a comma and a blank after each.
MOST_TEXT = 8 * MOST_MEMBERS
_PART = re.compile(r"(?P<first>\d{1,9})(-(?P<last>\d{1,9})(:(?P<step>\d{1,9}))?)?", re.ASCII)


def read(text: str) -> tuple[int, ...]:
    """In order, each once; none of an empty text. Raises ValueError with a sentence."""
    if not text.strip():
        return ()
    if "%" in text:
        raise ValueError(_("How many run at once is a matter of quotas: leave out the % and what follows it."))
    found: set[int] = set()
    for part in text.split(","):
        found.update(_range(part.strip()))
        if len(found) > MOST_MEMBERS:
            raise ValueError(_too_many())
    return tuple(sorted(found))


def _range(part: str) -> range:
    matched = _PART.fullmatch(part)
    if matched is None:
        raise ValueError(_("“%(part)s”: write indexes such as 0-9, 1,3,7 or 0-30:10.") % {"part": part[:40]})
    first, last, step = matched["first"], matched["last"] or matched["first"], matched["step"] or "1"
    found = range(int(first), int(last) + 1, max(1, int(step)))
    if not found or step.strip("0") == "":
        raise ValueError(_("“%(part)s” has no index in it.") % {"part": part})
    if found[-1] > LARGEST:
        raise ValueError(_("An index is at most %(most)s.") % {"most": LARGEST})
    if len(found) > MOST_MEMBERS:
        raise ValueError(_too_many())
    return found


def _too_many() -> str:
    return _("An array has at most %(most)s jobs: submit several.") % {"most": MOST_MEMBERS}
