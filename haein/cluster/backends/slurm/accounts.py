"""Keeps Slurm's accounts in step with those who own the jobs: what is wanted, what is there, and the steps between.

Pure: it is told what sacctmgr says and answers with sacctmgr's own arguments. An account is Haein's when its
organization is "haein" and its name begins with "haein_"; no other is ever changed or removed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from haein.lib import ids

MARK = "haein"
PREFIX = "haein_"
ROOT = "root"
# What a limit is set to so that there is none.
NO_LIMIT = -1
MOST_WORD = 24
MOST_DESCRIPTION = 120
# The questions whose answers `there` reads. What people wrote comes last: it may hold the sign between the columns.
ACCOUNTS = ("-nP", "show", "account", "format=account,organization,description")
QOS = ("-nP", "show", "qos", "format=name")
_GPUS = "gres/gpu"


class Taken(Exception):
    """An account of this name is there and is not Haein's. The message is a sentence that names it."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it should be. `gpus` is the most that its jobs hold at once, as Slurm counts (None: no limit);
    `users` may submit under it; `qos` is one that its jobs, and those of the accounts below it, may name."""

    name: str
    parent: str
    description: str
    gpus: int | None = None
    users: frozenset[str] = frozenset()
    qos: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """An account that is there, on this cluster or (`here` is False) on others of the same slurmdbd alone."""

    organization: str
    description: str
    here: bool = False
    parent: str = ""
    gpus: int | None = None
    users: frozenset[str] = frozenset()
    qos: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class There:
    """What sacctmgr says of one cluster."""

    cluster: str
    accounts: Mapping[str, Present] = field(default_factory=dict)
    qos: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One change: a sentence for people, sacctmgr's arguments for it, and those that take it back. `made` names the
    account that the step adds."""

    sentence: str
    command: tuple[str, ...]
    inverse: tuple[str, ...]
    made: str = ""


def name_of(word: str, owner: UUID) -> str:
    """haein_vision_5f0c1a2b: a word to know it by, and the id's last digits, which make it the owner's alone."""
    plain = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MOST_WORD].rstrip("-")
    return PREFIX + (f"{slug}_" if slug else "") + ids.short(owner)


def described(text: str) -> str:
    """The text as slurmdbd keeps it: in lower case and ASCII, without quotes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9._/@:+-]+", " ", plain).strip()
    return words[:MOST_DESCRIPTION].rstrip() or "unnamed"


# Reads.


def associations(cluster: str) -> tuple[str, ...]:
    """The question for the associations of one cluster."""
    return ("-nP", "show", "assoc", f"cluster={cluster}", "format=account,user,partition,parentname,grptres,qos")


def there(cluster: str, accounts: str, associations: str, qos: str) -> There:
    """From the answers to ACCOUNTS, associations(cluster) and QOS."""
    found = {}
    for name, organization, description in _rows(accounts, 3):
        found[name] = Present(organization, description)
    users: dict[str, set[str]] = {}
    own: dict[str, tuple[str, int | None, frozenset[str]]] = {}
    for account, user, partition, parent, limits, named in _rows(associations, 6):
        if user and not partition:
            users.setdefault(account, set()).add(user)
        elif not user:
            own[account] = (parent, _gpus(limits), frozenset(filter(None, named.split(","))))
    for account, (parent, gpus, named_qos) in own.items():
        before = found.get(account, Present("", ""))
        found[account] = Present(
            before.organization,
            before.description,
            here=True,
            parent=parent,
            gpus=gpus,
            users=frozenset(users.get(account, ())),
            qos=named_qos,
        )
    return There(cluster, found, frozenset(filter(None, qos.splitlines())))


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        cells = line.split("|", columns - 1)
        if len(cells) == columns:
            yield cells


def _gpus(limits: str) -> int | None:
    """gres/gpu of "cpu=8,gres/gpu=16"."""
    said = dict(part.split("=", 1) for part in limits.split(",") if "=" in part)
    return int(said[_GPUS]) if said.get(_GPUS, "").isdigit() else None


# Compares.


def steps(wanted: Sequence[Account], found: There, gone: Iterable[str] = ()) -> list[Step]:
    """What takes Slurm from `found` to `wanted`, parents first; none where they agree.

    `gone` are accounts of Haein's whose owners are no more: they stay, for the sake of their history, with a limit of
    0. Raises Taken.
    """
    made = list(_qos_steps(wanted, found))
    for account in wanted:
        made += _steps_of(account, found)
    for name in sorted(gone):
        present = found.accounts.get(name)
        if present and present.here and _ours(name, present) and present.gpus != 0:
            made.append(_limit(found.cluster, name, present.gpus, 0, f"{name}: its owner is gone; no GPUs any more"))
    return made


def _ours(name: str, present: Present) -> bool:
    return name.startswith(PREFIX) and present.organization == MARK


def _qos_steps(wanted: Sequence[Account], found: There) -> Iterator[Step]:
    for qos in sorted({account.qos for account in wanted} - found.qos - {""}):
        yield Step(f"add the QOS {qos}", ("add", "qos", qos, f"Description={MARK}"), ("delete", "qos", qos))


def _steps_of(account: Account, found: There) -> Iterator[Step]:
    present, cluster = found.accounts.get(account.name), found.cluster
    if present and not _ours(account.name, present):
        raise Taken(f"An account {account.name} is there already and is not Haein's: rename it, or delete it.")
    if present is None or not present.here:
        yield _add(account, cluster)
        present = Present(MARK, account.description, here=True, parent=account.parent)
    where = ("where", f"account={account.name}", f"cluster={cluster}")
    if present.parent != account.parent:
        yield _set(
            f"{account.name}: below {account.parent} instead of {present.parent}",
            where,
            f"parent={account.parent}",
            f"parent={present.parent}",
        )
    if present.description != account.description:
        yield _set(
            f'{account.name}: described as "{account.description}" instead of "{present.description}"',
            where[:2],
            f"Description={account.description}",
            f"Description={present.description}",
        )
    if present.gpus != account.gpus:
        sentence = f"{account.name}: {_most(account.gpus)} instead of {_most(present.gpus)}"
        yield _limit(cluster, account.name, present.gpus, account.gpus, sentence)
    if account.qos and account.qos not in present.qos:
        yield _set(
            f"{account.name}: may name the QOS {account.qos}", where, f"qos+={account.qos}", f"qos-={account.qos}"
        )
    for user in sorted(account.users - present.users):
        yield _associate(account.name, user, cluster)


def _add(account: Account, cluster: str) -> Step:
    return Step(
        f"add the account {account.name} below {account.parent}",
        (
            *("add", "account", account.name, f"cluster={cluster}", f"parent={account.parent}"),
            *(f"Organization={MARK}", f"Description={account.description}"),
        ),
        ("delete", "account", "where", f"account={account.name}", f"cluster={cluster}"),
        made=account.name,
    )


def _associate(account: str, user: str, cluster: str) -> Step:
    return Step(
        f"{account}: {user} may submit under it",
        ("add", "user", user, f"account={account}", f"cluster={cluster}"),
        ("delete", "user", "where", f"user={user}", f"account={account}", f"cluster={cluster}"),
    )


def _limit(cluster: str, account: str, before: int | None, after: int | None, sentence: str) -> Step:
    where = ("where", f"account={account}", f"cluster={cluster}")
    values = [f"GrpTRES={_GPUS}={NO_LIMIT if gpus is None else gpus}" for gpus in (after, before)]
    return _set(sentence, where, *values)


def _set(sentence: str, where: tuple[str, ...], after: str, before: str) -> Step:
    change = ("modify", "account", *where, "set")
    return Step(sentence, (*change, after), (*change, before))


def _most(gpus: int | None) -> str:
    return "no limit" if gpus is None else f"at most {gpus} GPUs"
