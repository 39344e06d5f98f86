"""What every other part stands on: PostgreSQL and Valkey, started together."""

from haein.supervisor import credentials, postgresql, valkey
from haein.supervisor.crew import Crew
from haein.supervisor.layout import Layout
from haein.supervisor.refusal import Refusal

NAMES = ("valkey", "postgres")


def start(crew: Crew, *, durable: bool = True) -> None:
    """Starts both and waits until they answer. Raises Refusal and Stopped."""
    postgresql.make(crew.layout)
    crew.start(valkey.part(crew.layout))
    crew.start(postgresql.part(crew.layout, durable=durable))
    await_ground(crew)


def await_ground(crew: Crew) -> None:
    def done() -> bool:
        for name in NAMES:
            # After a kill the server before may hold its memory for a moment, and recovery takes the time it takes.
            if crew.members[name].deaths >= 8:
                raise Refusal(f"{name} does not start; its last words are above and in {crew.layout.log}.")
        return all(crew.members[name].ready for name in NAMES)

    crew.wait(done)


def values(layout: Layout) -> dict[str, str]:
    """What the server's settings need to know of the ground."""
    known = {
        "HAEIN_DATABASE_URL": postgresql.address(layout),
        "HAEIN_REDIS_URL": valkey.address(layout),
        "HAEIN_SECRET_KEY": credentials.secret(layout, "django"),
    }
    if not layout.service.is_ours:
        known["HAEIN_SERVICE_GID"] = str(layout.service.gid)
    return known
