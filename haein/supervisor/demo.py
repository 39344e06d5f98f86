"""`make demo`: the whole house on a simulated cluster, in a data folder of its own, with made-up people at work."""

import os

from haein.supervisor import credentials, up
from haein.supervisor.crew import Crew
from haein.supervisor.layout import ROOT, folder_in_use
from haein.supervisor.parts import Part, environment, python

SPEED = "30"
# Short enough to be typed, long enough not to be guessed.
PASSWORD_DIGITS = 16


def run() -> int:
    """As up.run, where nothing that is real is met: on a folder below the usual one, whatever services are named."""
    for outside in ("HAEIN_DATABASE_URL", "HAEIN_REDIS_URL"):
        os.environ.pop(outside, None)
    os.environ["HAEIN_BACKEND"] = "simulator"
    os.environ.setdefault("HAEIN_SIM_SPEED", SPEED)
    return up.run(folder_in_use() / "demo", _settle)


def _settle(crew: Crew) -> None:
    """Its people write their month of history at the first start, say how to sign in, and go on submitting."""
    layout = crew.layout
    credentials.secret(layout, "demo", digits=PASSWORD_DIGITS)
    command = ["demo", "--base-url", up.address(), "--password-file", str(layout.secrets / "demo")]
    crew.start(
        Part(
            name="demo",
            command=python(str(ROOT / "manage.py"), *command),
            account=layout.service,
            environ=environment(layout, layout.service),
        )
    )
