"""`make demo`: the whole house with made-up people in it, in a data folder of its own.

On a simulated cluster they are at work, with a month behind them; on a real Slurm of emulated GPUs they have just come.
"""

import os
from pathlib import Path

from haein.supervisor import account, credentials, up
from haein.supervisor.crew import Crew
from haein.supervisor.layout import ROOT, folder_in_use
from haein.supervisor.parts import Part, environment, python
from haein.supervisor.refusal import Refusal

SPEED = "30"
# Short enough to be typed, long enough not to be guessed.
PASSWORD_DIGITS = 16
NODES_TO_ONE_CARVED = 32
SHARDS_OF_A_GPU = 10


def run(cluster: str) -> int:
    """As up.run, where nothing that is real is met: on a folder below the usual one, whatever services are named.
    `cluster` is "simulator" or "slurm"."""
    for outside in ("HAEIN_DATABASE_URL", "HAEIN_REDIS_URL"):
        os.environ.pop(outside, None)
    os.environ["HAEIN_BACKEND"] = cluster
    if cluster == "slurm":
        return _run_on_slurm(folder_in_use() / "demo-slurm")
    os.environ.setdefault("HAEIN_SIM_SPEED", SPEED)
    return up.run(folder_in_use() / "demo", _settle)


def _run_on_slurm(folder: Path) -> int:
    from haein.slurmlab import Lab, LabFailed  # of no use to any other house

    nodes = _nodes()
    shape = {"nodes": nodes, "mig_nodes": -(-nodes // NODES_TO_ONE_CARVED), "shards": SHARDS_OF_A_GPU}
    try:
        lab = Lab(folder / "slurm", accounting=True, **shape)
        lab.hold_possible()
    except LabFailed as failed:
        raise Refusal(str(failed)) from None
    for name in [name for name in os.environ if name.startswith("HAEIN_SLURM_")]:
        del os.environ[name]
    rest = {"HAEIN_SLURM_REST_URL": lab.rest_url, "HAEIN_SLURM_JWT_KEY": str(lab.jwt_key)}
    os.environ |= {"HAEIN_SLURM_CONF": str(lab.conf), "HAEIN_SLURM_EMULATED": "1", **rest}
    if os.geteuid() == 0:
        os.environ["HAEIN_SLURM_USER"] = "nobody"
    _share_environments(folder)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in shape.items()]
    command = python("-m", "haein.slurmlab", str(lab.folder), "--accounting", *options)
    engine = Part(
        name="slurm",
        command=[*command, f"--first-port={lab.ports.first}"],
        account=account.own(),
        environ={**os.environ, "PYTHONUNBUFFERED": "1"},
        ready=lambda _pid: lab.answers(),
        # Ending some hundred daemons takes a while, and what it does not end is left running.
        patience=60,
    )
    return up.run(folder, _settle, engine)


def _nodes() -> int:
    given = os.environ.get("HAEIN_SLURM_NODES", "128")
    if not given.isdecimal() or not 0 < int(given) <= 1024:
        raise Refusal(f"HAEIN_SLURM_NODES is {given!r}: it must be a number from 1 to 1024.")
    return int(given)


def _share_environments(folder: Path) -> None:
    """What jobs run on takes 200 MB and is only read: it is the same as in the usual folder."""
    folder.mkdir(parents=True, exist_ok=True)
    environments = folder / "env"
    if not environments.exists():
        (folder.parent / "env").mkdir(mode=0o755, exist_ok=True)
        environments.symlink_to(Path("..", "env"))


def _settle(crew: Crew) -> None:
    """Its people come in at the first start, say how to sign in, and go to work."""
    layout = crew.layout
    credentials.secret(layout, "demo", digits=PASSWORD_DIGITS)
    command = ["demo", "--base-url", up.address(), "--password-file", str(layout.secrets / "demo")]
    crew.start(
        Part(
            name="demo",
            command=python(str(ROOT / "manage.py"), *command),
            account=layout.service,
            environ=environment(layout, layout.service),
            restarted=os.environ["HAEIN_BACKEND"] == "simulator",
        )
    )
