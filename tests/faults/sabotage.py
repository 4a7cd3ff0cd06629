"""Sabotage inside a process: at its n-th write, flush, rename or commit it crashes, or the disk is full."""

import errno
import os
import pathlib
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import light

CRASHED = 99  # the exit code


@dataclass(frozen=True)
class Plan:
    """Where it happens."""

    folder: str  # only files below it count
    at: int = 0  # counted from 1; 0 is never
    disk_is_full: bool = False  # instead of a crash, once
    journal: str = ""  # a file that gets the name of every operation


def sabotage(plan: Plan) -> None:
    """Count the operations of this process from now on, and let the chosen one fail."""
    names: list[str] = []

    def happens(name: str) -> bool:
        """Count an operation; whether the disk is full for it."""
        names.append(name)
        if plan.journal:
            Path(plan.journal).write_text("\n".join(names), encoding="utf-8")
        if len(names) != plan.at:
            return False
        if not plan.disk_is_full:
            os._exit(CRASHED)
        return True

    _files(Path(plan.folder), happens)
    _commits(happens)


def _files(folder: Path, happens: Any) -> None:
    real_open, real_touch = pathlib.Path.open, pathlib.Path.touch
    real_replace, real_fsync = pathlib.Path.replace, os.fsync

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Writer:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "Writer":
            return self

        def __exit__(self, *exception: object) -> None:
            self.file.close()

        def fileno(self) -> int:
            return int(self.file.fileno())

        def write(self, content: bytes) -> int:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            if happens("in the middle of a write"):
                fail()
            return int(self.file.write(content[len(content) // 2 :]))

        def flush(self) -> None:
            if happens("before a flush"):
                fail()
            self.file.flush()

    def open_(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if mode != "r+b" or folder not in path.absolute().parents:
            return real_open(path, mode, *more, **named)
        if happens("before a file is written"):
            fail()
        return Writer(real_open(path, mode, *more, **named))

    def touch(path: Path) -> None:
        if folder in path.absolute().parents and happens("before a file is made"):
            fail()
        real_touch(path)

    def replace(path: Path, target: Path) -> Path:
        if folder not in path.absolute().parents:
            return real_replace(path, target)
        if happens("before a rename"):
            fail()
        renamed = real_replace(path, target)
        if happens("after a rename"):
            fail()
        return renamed

    def fsync(number: int) -> None:
        of_a_folder = stat.S_ISDIR(os.fstat(number).st_mode)
        if happens("before a sync of a folder" if of_a_folder else "before a sync"):
            fail()
        real_fsync(number)

    pathlib.Path.open = open_  # type: ignore[assignment,method-assign]
    pathlib.Path.touch = touch  # type: ignore[assignment,method-assign]
    pathlib.Path.replace = replace  # type: ignore[assignment,method-assign]
    os.fsync = fsync


def _commits(happens: Any) -> None:
    real_connect = sqlite3.connect

    class Connection(light.Unsynced):
        def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
            word = sql.partition(" ")[0]
            counts = word in ("BEGIN", "COMMIT")
            if counts and happens(f"before a {word}"):
                raise sqlite3.OperationalError("database or disk is full")
            cursor = super().execute(sql, *more)
            if word == "COMMIT":
                happens("after a COMMIT")
            return cursor

    def connect(*args: Any, **named: Any) -> Any:
        return real_connect(*args, factory=Connection, **named)

    sqlite3.connect = connect  # type: ignore[assignment]
