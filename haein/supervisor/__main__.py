"""`up` runs the whole house, `demo` a populated one; `services [--var DIR] -- COMMAND` one command on its ground."""

import sys
from pathlib import Path

from haein.supervisor.refusal import Refusal

USAGE = "use: python -m haein.supervisor up | demo [simulator | slurm] | services [--var DIR] -- COMMAND ..."


def main(arguments: list[str]) -> int:
    # Imported by need: what serves tests is no burden on the process that rests beside the house.
    match arguments:
        case ["up"]:
            from haein.supervisor import up

            return up.run()
        case ["demo"] | ["demo", "simulator" | "slurm"]:
            from haein.supervisor import demo

            return demo.run(arguments[-1] if arguments[1:] else "simulator")
        case ["services", "--", *command] if command:
            from haein.supervisor import services

            return services.run(command, None)
        case ["services", "--var", folder, "--", *command] if command:
            from haein.supervisor import services

            return services.run(command, Path(folder))
    raise Refusal(USAGE)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refusal as refusal:
        sys.exit(f"haein: {refusal}")
    except KeyboardInterrupt:
        sys.exit(130)
