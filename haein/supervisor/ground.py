"""What every other part stands on: PostgreSQL and Valkey, unless others of them are named by their addresses."""

import os
from collections.abc import Collection

from haein.supervisor import credentials, postgresql, valkey
from haein.supervisor.crew import Crew
from haein.supervisor.layout import Layout
from haein.supervisor.refusal import Refusal

NAMES = ("valkey", "postgres")


def wanted() -> list[str]:
    """The parts that nobody else provides."""
    outside = {"valkey": "HAEIN_REDIS_URL", "postgres": "HAEIN_DATABASE_URL"}
    return [name for name in NAMES if not os.environ.get(outside[name])]


def start(crew: Crew, names: Collection[str] = NAMES, *, durable: bool = True) -> None:
    """Starts them and waits until they answer. Raises Refusal and Stopped."""
    if "valkey" in names:
        crew.start(valkey.part(crew.layout))
    if "postgres" in names:
        postgresql.make(crew.layout)
        crew.start(postgresql.part(crew.layout, durable=durable))

    def ready() -> bool:
        for name in names:
            # After a kill the server before may hold its memory for a moment; and recovery takes the time it takes.
            if crew.members[name].deaths >= 8:
                raise Refusal(f"{name} does not start; its last words are above and in {crew.layout.log}.")
        return all(crew.members[name].ready for name in names)

    crew.wait(ready)


def values(layout: Layout, names: Collection[str] = NAMES) -> dict[str, str]:
    """What the server's settings need to know of them."""
    known = {"HAEIN_SECRET_KEY": credentials.secret(layout, "django")}
    if "postgres" in names:
        known["HAEIN_DATABASE_URL"] = postgresql.address(layout)
    if "valkey" in names:
        known["HAEIN_REDIS_URL"] = valkey.address(layout)
    if not layout.service.is_ours:
        known["HAEIN_SERVICE_GID"] = str(layout.service.gid)
    return known
