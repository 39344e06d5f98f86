"""A token of somebody in a running house, for tests and benchmarks that come in by the API."""

from __future__ import annotations

import subprocess
import sys

from haein.supervisor.layout import ROOT
from tests.house import House

_MADE = """
from haein.tenants import tokens
from haein.tenants.models import Token, User
user = User.objects.get(email={email!r})
print(tokens.create(by=user, name="test", scopes={scopes!r} or Token.Scope.values, days=1)[1])
"""


def token_of(house: House, email: str, *scopes: str) -> str:
    """A token with these scopes, by default all; made by the same verb as the page's."""
    made = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", _MADE.format(email=email, scopes=list(scopes))],
        cwd=ROOT,
        env=house.environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.split()[-1]
