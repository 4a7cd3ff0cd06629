"""What the process has done from which the warm ones are forked: all imports, compiled code, and options."""

import gc
import importlib
import os
import pkgutil
from typing import Any

import machine

import klcli
from klcli import compiled
from klcli.cli.app import app

del os.environ["PYTHONPATH"]  # which found this file
for lazy in ("filelock", "typer._click.decorators"):
    importlib.import_module(lazy)
for module in pkgutil.walk_packages(klcli.__path__, "klcli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
compiled.why_not()


def build(command: Any) -> None:
    """Build how each option reads its text, which Typer does at the first use."""
    for one in command.params:
        one.get_runtime_param()
    for below in getattr(command, "commands", {}).values():
        build(below)


build(machine.get_command(app))
gc.freeze()  # a collection in a child would copy the pages of all of these objects
