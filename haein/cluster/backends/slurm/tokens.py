"""Slurm's JSON Web Tokens (auth/jwt): minted from the site's own key, or read from a file that somebody else renews."""

from __future__ import annotations

import abc
import base64
import binascii
import hashlib
import hmac
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haein.cluster.backends.slurm.gateway import SlurmDown

LIFE_S = 600
# A request that waits for slurmctld must still find its token good.
_RENEWED_BEFORE_S = 120


class Tokens(abc.ABC):
    """Where the token comes from. `user` is whose it is."""

    def __init__(self, user: str) -> None:
        self.user = user

    @abc.abstractmethod
    def token(self) -> str:
        """One that is good now. Raises SlurmDown where there is none."""

    @property
    @abc.abstractmethod
    def doubt(self) -> str:
        """A sentence for an operator about what may be wrong with it, for when Slurm does not take it."""


class MintedTokens(Tokens):
    """Signed here with the raw bytes of `key` (slurm.conf: AuthAltParameters=jwt_key=...) and renewed in time."""

    def __init__(self, key: Path, user: str, life_s: int = LIFE_S) -> None:
        super().__init__(user)
        self._key = key
        self._life_s = life_s
        self._minting = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    def token(self) -> str:
        with self._minting:
            now = time.time()
            if now >= self._good_until - min(_RENEWED_BEFORE_S, self._life_s / 2):
                self._token = mint(self._read_key(), self.user, int(now), self._life_s)
                self._good_until = int(now) + self._life_s
            return self._token

    def _read_key(self) -> bytes:
        try:
            return self._key.read_bytes()
        except OSError as error:
            raise SlurmDown(
                f"Slurm's key for tokens, {self._key} (HAEIN_SLURM_JWT_KEY), can't be read: {error.strerror}."
            ) from error

    @property
    def doubt(self) -> str:
        return (
            f"The token is minted for {self.user} with {self._key} (HAEIN_SLURM_JWT_KEY): is it slurmctld's key, "
            "and are both clocks right?"
        )


class FileTokens(Tokens):
    """In `file`, as `scontrol token` prints it ("SLURM_JWT=...") or alone; read anew for every request."""

    def __init__(self, file: Path, user: str) -> None:
        super().__init__(user)
        self._file = file

    def token(self) -> str:
        token = self._read()
        end = expiry(token)
        if end is not None and end <= time.time():
            raise SlurmDown(f"Slurm can't be asked: {self._expired(end)}")
        return token

    def _read(self) -> str:
        try:
            token = self._file.read_text("ascii", "replace").strip().removeprefix("SLURM_JWT=")
        except OSError as error:
            raise SlurmDown(
                f"Slurm's token, {self._file} (HAEIN_SLURM_TOKEN_FILE), can't be read: {error.strerror}."
            ) from error
        if not token or not token.isascii() or not token.isprintable():
            raise SlurmDown(f"There is no token for Slurm in {self._file} (HAEIN_SLURM_TOKEN_FILE).")
        return token

    def _expired(self, end: float) -> str:
        at = datetime.fromtimestamp(end, UTC)
        return (
            f"The token in {self._file} (HAEIN_SLURM_TOKEN_FILE) expired at {at:%Y-%m-%d %H:%M:%S} UTC; "
            "whoever renews it has not."
        )

    @property
    def doubt(self) -> str:
        return f"Is the token in {self._file} (HAEIN_SLURM_TOKEN_FILE) one of slurmctld's, for {self.user}?"


def mint(key: bytes, user: str, now: int, life_s: int) -> str:
    """A token for `user` that Slurm takes from `now` on for `life_s` seconds."""
    claims = {"iat": now, "exp": now + life_s, "sun": user}
    signed = b".".join(_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return b".".join((signed, _encode(hmac.new(key, signed, hashlib.sha256).digest()))).decode()


def expiry(token: str) -> float | None:
    """When it ends, in seconds since the epoch, by its own words; None where it does not say."""
    try:
        body = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
