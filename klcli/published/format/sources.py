"""Sources of reports: those of klcli by their names, and anybody's TOML file."""

import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from klcli.errors import ConfigError
from klcli.files import irregular
from klcli.published import report as published
from klcli.published.format.validation import mistakes
from klcli.published.report import Report, parse
from klcli.settings.setting import require
from klcli.text import command_text, path_text, user_path

MAX_BYTES = 256 * 1024  # of a file, whose text is stored with every study; the longest report in klcli has 16 kB
NAME_LENGTH = 40


def open_report(argument: str) -> Report:
    """Return a report by its name in klcli, or of a file. Raises ConfigError, with the line of the first mistake."""
    if not is_file(argument):
        return published.report(argument)
    text, shown = read(argument), path_text(argument)
    if found := mistakes(text):
        more = f"; {len(found)} mistakes, " if len(found) > 1 else "; "
        raise ConfigError(f"{shown}:{found[0]}{more}see `{command_text(['klcli', 'reproduce', '--check', argument])}`")
    return parse(database_name(argument, text), text)


def is_file(argument: str) -> bool:
    """Whether a name means a file, not a report in klcli."""
    with suppress(OSError):  # of a name too long for the system
        is_path = argument.endswith(".toml") or user_path(argument).is_file()
        return is_path and argument not in published.report_names()
    return False


def read(argument: str) -> str:
    """Return the text of a report in klcli or of a file. Raises ConfigError if it cannot be one."""
    if not is_file(argument):
        return published.report(argument).text
    path, shown = user_path(argument), path_text(argument)
    try:
        if kind := irregular(path):
            raise ConfigError(f"{shown}: this is {kind}, give the TOML file of a report")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        known = ", ".join(published.report_names())
        raise ConfigError(f"{shown}: there is no such file, name another or one of {known}") from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read ({error.strerror}), make it readable or name another") from None
    require(len(content) <= MAX_BYTES, f"{shown}: longer than {MAX_BYTES // 1024} KiB, too long for a report")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}:{line}: this is not UTF-8, save the file in that encoding") from None


def database_name(path: str, text: str) -> str:
    """Return the name of a report for the database: `my-report-1a2b3c4d`, the file with a hash of its text."""
    stem = re.sub(r"[^\w.-]+", "-", path_text(Path(path).stem))[:NAME_LENGTH]
    return f"{stem}-{sha256(text.encode()).hexdigest()[:8]}"
