"""The `klcli` command: its subcommands, and the conversion of failures to one line and an exit code."""

import errno
import io
import sys
from typing import Annotated, Any, NoReturn

import typer

import klcli
from klcli.cli.commands import data
from klcli.cli.commands.evaluate import evaluate
from klcli.cli.commands.gradcheck import gradcheck
from klcli.cli.commands.predict import predict
from klcli.cli.commands.report import report
from klcli.cli.commands.reproduce import reproduce
from klcli.cli.commands.search_lambda import search_lambda
from klcli.cli.commands.sigma_sweep import sigma_sweep
from klcli.cli.commands.train import train
from klcli.cli.options import KlcliCommand
from klcli.errors import ExitCode, KlcliError
from klcli.procedures.signals import Interrupted, end_at_the_next_signal

app = typer.Typer(
    name="klcli",
    help="A laboratory for fully connected networks with batch normalisation, on CIFAR-10.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode="markdown",
)
for _command in (gradcheck, train, search_lambda, sigma_sweep, reproduce, evaluate, predict, report):
    app.command(cls=KlcliCommand)(_command)
app.add_typer(data.app, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"klcli {klcli.__version__}")
        raise typer.Exit


@app.callback()
def _klcli(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main(args: list[str] | None = None) -> NoReturn:
    """Run klcli on these arguments and exit with a code of the table in errors.py."""
    arguments = sys.argv[1:] if args is None else args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may contain characters that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="klcli", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as leaving:  # Typer's reaction to a closed pipe
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        sys.exit(_explain(leaving.__context__))
    except Exception as error:
        if "--debug" in arguments:
            raise
        sys.exit(_explain(error))
    sys.exit(_fail("interrupted", ExitCode.INTERRUPTED) if code == ExitCode.INTERRUPTED else code)


def _explain(error: Exception) -> int:
    """Print the failure as one line on stderr and return its exit code."""
    if isinstance(error, Interrupted):
        end_at_the_next_signal()
    if isinstance(error, KlcliError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, typer.Abort):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    if isinstance(error, _UsageError):
        context = error.ctx.command_path if error.ctx else "klcli"
        message = error.format_message() or "a command is missing"
        return _fail(f"{message} (`{context} --help` shows all)", ExitCode.USAGE)
    if isinstance(error, BrokenPipeError):
        # The reader, for example `head`, has closed the pipe. Without this, Python reports it again at exit.
        sys.stdout = None
        return ExitCode.DONE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        sys.stdout = None  # the buffered output cannot be written either
        return _fail(f"the output cannot be written ({error.strerror}): free some space", ExitCode.STORE)
    damage = None
    if "klcli.store.connection" in sys.modules:  # a damaged database may be the cause of the failure
        from klcli.store.connection import damage_behind_a_failure

        damage = damage_behind_a_failure()
    unexpected = f"unexpected failure, {type(error).__name__}: {error} (run again with --debug for the traceback)"
    return _fail(str(damage), damage.exit_code) if damage else _fail(unexpected, ExitCode.UNEXPECTED)


def _fail(message: str, code: ExitCode) -> int:
    print(f"klcli: {' '.join(message.split())}", file=sys.stderr)
    return code


# Typer bundles its own copy of Click, not the package `click`; its UsageError is the base class of BadParameter.
_UsageError: Any = typer.BadParameter.__mro__[1]
