"""The `klcli` command: its subcommands, and the conversion of failures to one line and an exit code."""

import errno
import os
import shutil
import sys
import traceback
from typing import Annotated, NoReturn

import typer

import klcli
from klcli.cli import streams
from klcli.cli.commands import data, runs
from klcli.cli.commands.assignment import assignment
from klcli.cli.commands.evaluate import evaluate
from klcli.cli.commands.gradcheck import gradcheck
from klcli.cli.commands.help import help_on
from klcli.cli.commands.predict import predict
from klcli.cli.commands.report import report
from klcli.cli.commands.reproduce import reproduce
from klcli.cli.commands.search_lambda import search_lambda
from klcli.cli.commands.sigma_sweep import sigma_sweep
from klcli.cli.commands.train import train
from klcli.cli.help_screen import ALL, HelpfulGroup, options_behind
from klcli.cli.options import KlcliCommand, RecordingCommand, UsageError
from klcli.errors import ExitCode, KlcliError
from klcli.report.tables.terminal import wrapped
from klcli.text import joined_lines, visible

app = typer.Typer(
    name="klcli", cls=HelpfulGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    help="A laboratory for fully connected networks with batch normalisation, on CIFAR-10.",
    context_settings={"help_option_names": ["--help", "-h", ALL]},
)  # fmt: skip


for _command in (gradcheck, train, search_lambda, sigma_sweep, assignment, reproduce, evaluate):
    app.command(cls=RecordingCommand)(_command)
for _command in (predict, report):
    app.command(cls=KlcliCommand)(_command)
app.add_typer(runs.app, name="runs", cls=HelpfulGroup)
app.add_typer(data.app, name="data", cls=HelpfulGroup)
app.command(name="help", cls=KlcliCommand)(help_on)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"klcli {klcli.__version__}")
        raise typer.Exit


_Version = typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)


@app.callback()
def _klcli(version: Annotated[bool, _Version] = False) -> None:
    pass


def main(args: list[str] | None = None) -> NoReturn:
    """Run klcli on these arguments and exit with a code of the table in errors.py."""
    arguments = sys.argv[1:] if args is None else args
    for size in ("COLUMNS", "LINES"):  # 0 is an unknown size, as of a serial line; rich would show nothing in it
        if not os.environ.get(size, "0").strip("0"):
            os.environ.pop(size, None)
    try:  # without `args`, Click expands `*.png` on Windows, whose shells do not
        code = app(args, prog_name="klcli", standalone_mode=False)
        loss = streams.loss()
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        sys.exit(_explain(error))
    # The reader of a pipe, for example `head`, may have enough; Windows calls that EINVAL.
    if loss is not None and loss.errno not in (errno.EPIPE, errno.EINVAL):
        code = _fail(f"the output could not be written to stdout ({loss.strerror})", ExitCode.STORE)
    sys.exit(code)


def _explain(error: Exception) -> int:
    if limit := _reached_limit(error):
        return _fail(limit, error.exit_code if isinstance(error, KlcliError) else ExitCode.UNEXPECTED)
    if isinstance(error, KlcliError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, typer.Abort):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    if isinstance(error, UsageError):
        command, message = error.ctx.command_path if error.ctx else "klcli", error.format_message()
        if nearest := getattr(error, "possibilities", None):  # the most similar first, which the message sorts
            message = f"{error.message} (nearest: {', '.join(nearest)})"
        if error.ctx and (option := getattr(error, "option_name", None)) in options_behind(error.ctx.command):
            message = f"No such option here: {option} comes behind the command, as `{command} COMMAND {option}`"
        return _fail(f"{message or 'a command is missing'} (`{command} --help` shows all)", ExitCode.USAGE)
    if isinstance(error, OSError) and (message := _refused_by_the_system(error)):
        return _fail(message, ExitCode.STORE)
    connection = sys.modules.get("klcli.store.connection")  # a damaged database may be the cause of the failure
    damage = connection and connection.damage_behind_a_failure()
    unexpected = f"unexpected failure, {type(error).__name__}: {error} (run again with --debug for the traceback)"
    if isinstance(error, MemoryError):
        cure = "give fewer units, a smaller --batch-size or fewer --jobs, or close other programs"
        unexpected = f"the memory is too small, {cure} ({str(error) or 'out of memory'})"
    return _fail(str(damage), damage.exit_code) if damage else _fail(unexpected, ExitCode.UNEXPECTED)


# What is said where a process reaches a limit, mostly with a cure that is none, and the option of `ulimit`.
_LIMITS = {
    os.strerror(errno.EMFILE): "-n", os.strerror(errno.EFBIG): "-f", "can't start new thread": "-u",
    "failed to map segment from shared object": "-v",
}  # fmt: skip


def _reached_limit(error: BaseException) -> str:
    """Return the failure with the limit of this process that caused it, "" if none did."""
    while not isinstance(error, KlcliError) and (cause := error.__cause__ or error.__context__):
        error = cause
    text = str(error).removeprefix(f"[Errno {getattr(error, 'errno', None)}] ")
    for words, option in _LIMITS.items():
        before, found, _ = text.partition(words)
        if found:
            closed = ")" * (before.count("(") - before.count(")"))
            return f"{before}{words}{closed}: this process has reached a limit, raise it with `ulimit {option}`"
    return ""


def _refused_by_the_system(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the disk'} cannot be written ({error.strerror})"
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of os.getcwd, which relative paths need
        return "the working folder has been removed: change to another one, or give whole paths"
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}): make it accessible or choose another"
    return ""


def _fail(message: str, code: ExitCode) -> int:
    line = f"klcli: {visible(joined_lines(message))}"
    if sys.stderr.isatty():  # a terminal would break it inside a word or a number
        line = wrapped(line, shutil.get_terminal_size().columns)
    print(line, file=sys.stderr)
    return code
