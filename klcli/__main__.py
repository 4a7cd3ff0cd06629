"""The command `klcli`, also as `python -m klcli`."""

from klcli import termination
from klcli.cli import streams


def main() -> None:
    """Run the command; signals are obeyed from before the slow imports on."""
    streams.protect()
    termination.obey()
    from klcli.cli.app import main

    main()


if __name__ == "__main__":
    main()
