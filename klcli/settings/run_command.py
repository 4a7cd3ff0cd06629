"""Run command: the command line that trains one run of a study alone, and the one that completes a study."""

from pathlib import Path

from klcli.settings.sameness import SETTINGS, not_default
from klcli.settings.train_config import TrainConfig
from klcli.text import command_text

DEFAULT_DATABASE = Path("results/klcli.db")  # in the working directory, unless --db or KLCLI_DB names another


def run_command(config: TrainConfig, *, data: str, threads: int, db: Path) -> str:
    """Return the `klcli train` that gives the bits of `config`; those of a replica of a stack, to rounding."""
    parts = [part for key, value in not_default(config).items() for part in SETTINGS[key].arguments(value)]
    parts += ["--data", data]
    parts += [] if threads == 1 else ["--threads", str(threads)]
    parts += [] if db == DEFAULT_DATABASE else ["--db", str(db)]
    return command_text(["klcli", "train", *parts])


def resuming_command(command: str, kind: str) -> str:
    """Return the command that completes a study of this kind, which `command` began."""
    if " --resume" in command or "resume=True" in command:
        return command
    if command.startswith("Lab("):
        return f"{command[:-1]}, resume=True)"
    return f"{command} --resume{' last' if kind == 'repeats' else ''}"
