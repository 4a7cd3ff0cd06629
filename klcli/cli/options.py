"""Options that several commands share, each defined once, and how their values are read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from klcli.errors import ConfigError

# The panels of `--help`.
NETWORK = "The network"
LEARNING = "Cost and updates"
HARDER = "Harder training images"
KEPT = "What is evaluated"
IMAGES = "Images"
REPEATABILITY = "Repeatability"
OUTPUT = "Output"

DEFAULT_DATABASE = Path("results/klcli.db")


def option(*names: str, panel: str, help: str, **more: Any) -> Any:
    """Return a Typer option that stands in the named panel of `--help`."""
    return typer.Option(*names, rich_help_panel=panel, help=help, **more)


def number(convert: type[int] | type[float], bounds: tuple[float, float] | None = None) -> Callable[[str], int | float]:
    """Return a parser whose refusal names the value, which Typer's own leaves out for some types."""

    def parse(text: str) -> int | float:
        try:
            value = convert(text)
        except ValueError:
            kind = "a whole number" if convert is int else "a number"
            raise typer.BadParameter(f"{text!r} is not {kind}") from None
        if bounds and not bounds[0] <= value <= bounds[1]:
            raise typer.BadParameter(f"{text!r} must be from {bounds[0]} to {bounds[1]}")
        return value

    parse.__name__ = "integer" if convert is int else "number"
    return parse


def integer_option(*names: str, panel: str, help: str, bounds: tuple[int, int] | None = None) -> Any:
    """Return an option for a whole number; `bounds` are for what no config checks."""
    return option(*names, panel=panel, help=help, parser=number(int, bounds), metavar="N")


def decimal_option(*names: str, panel: str, help: str) -> Any:
    """Return an option for a number."""
    return option(*names, panel=panel, help=help, parser=number(float), metavar="X")


# Options of the session, for every command.
Json = Annotated[bool, option("--json", panel=OUTPUT, help="Print one JSON document to stdout instead of tables.")]
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUTPUT, help="No progress and no talk on stderr.")]
Debug = Annotated[bool, option("--debug", panel=OUTPUT, help="Show the traceback of a failure.")]
DatabasePath = Annotated[
    Path,
    option("--db", panel=OUTPUT, help="The SQLite database; pictures and checkpoints go beside it.", envvar="KLCLI_DB"),
]
DataSource = Annotated[
    str | None,
    option(
        "--data",
        panel=IMAGES,
        metavar="PATH|cifar10|synthetic",
        help="A folder or archive of CIFAR-10; or cifar10, to insist on it; or synthetic, the built-in set. "
        "Without it: CIFAR-10 where it is found, the built-in set elsewhere.",
    ),
]
Threads = Annotated[
    int,
    integer_option(
        "--threads",
        panel=REPEATABILITY,
        help="BLAS threads. Two of them differ from one in the last bits.",
        bounds=(1, 1024),
    ),
]


def integers(texts: list[str], name: str) -> tuple[int, ...]:
    """Read `["50", "30,20"]` as (50, 30, 20). Raises ConfigError, which names the value and the option."""
    return tuple(_values(texts, name, int, "a whole number"))


def numbers(texts: list[str], name: str) -> tuple[float, ...]:
    """Read `["1e-1", "1e-3,1e-4"]` as numbers. Raises ConfigError, which names the value and the option."""
    return tuple(_values(texts, name, float, "a number"))


def _values(texts: list[str], name: str, convert: Callable[[str], Any], kind: str) -> Iterator[Any]:
    for text in (part for item in texts for part in item.split(",")):
        try:
            yield convert(text)
        except ValueError:
            raise ConfigError(f"--{name.replace('_', '-')} {text!r}: not {kind}") from None
