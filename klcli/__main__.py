"""The command `klcli`, also as `python -m klcli`."""

import sys

from klcli import termination
from klcli.cli import streams


def main() -> None:
    """Run the command; signals are obeyed from before the slow imports on."""
    try:
        streams.protect()
        termination.obey()
        from klcli.cli.app import main
    except Exception as error:  # mostly by a limit of threads, files or memory
        sys.exit(f"klcli: cannot start, {type(error).__name__}: {error} (`ulimit -a` shows the limits of this process)")

    main()


if __name__ == "__main__":
    main()
