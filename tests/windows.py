"""`klcli` in a process to which Linux looks like Windows, as far as the code of klcli can tell.

Importing this file makes it so, also in the workers of a study, which import the program that has started them.
`python windows.py runs check + report` runs two commands, as `light.py` does.

- The signals, functions and modules that Windows lacks are absent; Ctrl-Break is there, as SIGUSR2.
- The modules of klcli that ask which system this is get Windows as the answer.
- A file that this process has open or mapped cannot be renamed, replaced or removed. Every rename is refused twice
  before it succeeds, as a virus scanner does it.
- numba, which has a branch for this on Windows, may rename at once.
- A lock removes its file when it is released, as filelock's does there.
- There is neither /proc nor /dev.
"""

import contextlib
import os
import shutil
import signal
import sys
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp")
FUNCTIONS = (
    *("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getgid", "getegid", "getpgid"),
    *("killpg", "setsid", "mkfifo", "mknod", "chown", "nice", "sysconf", "getloadavg"),
    *("O_DIRECTORY", "O_NOFOLLOW"),
)
SIGNALS = (
    *("SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGCHLD", "SIGSTOP", "SIGCONT"),
    *("pthread_sigmask", "pthread_kill", "sigwait", "siginterrupt", "alarm", "setitimer", "SIG_BLOCK", "SIG_SETMASK"),
)
REFUSALS = 2
_stat, _refused = os.stat, dict[tuple[str, str], int]()


class Answering(ModuleType):
    """A module that gives some names other values, and is the module otherwise."""

    def __init__(self, module: ModuleType, **values: Any) -> None:
        vars(self).update(values, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)


def stat(path: Any, **how: Any) -> os.stat_result:
    """Stand in for `os.stat`."""
    if str(path).startswith(("/proc/", "/dev/")):
        raise FileNotFoundError(2, "The system cannot find the path specified", path)
    return _stat(path, **how)


def is_open(path: Path) -> bool:
    """Whether this process has the file open or mapped, or one below the folder."""
    numbers = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the list itself
            numbers.add(_stat(descriptor).st_ino)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    numbers |= {int(line.split()[4]) for line in maps.splitlines()}
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return any(_stat(file).st_ino in numbers for file in files if file.is_file())


def refuse(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what Windows would refuse: an audit hook, which Python calls before it renames or removes a file."""
    if event not in ("os.rename", "os.remove") or "numba" in sys._getframe(1).f_code.co_filename:
        return
    named = [os.fsdecode(path) for path in args[: 2 if event == "os.rename" else 1]]
    refused = sum(is_open(Path(name)) for name in named) > 0
    if event == "os.rename":
        pair = named[0], named[1]
        _refused[pair] = _refused.get(pair, 0) + 1
        refused |= _refused[pair] <= REFUSALS
        if not refused:
            del _refused[pair]
    if refused:
        error: Any = PermissionError(13, "Access is denied", named[0])
        error.winerror = 5
        raise error


def emulate() -> None:
    import filelock  # before its module of POSIX is gone
    import platformdirs.unix  # noqa: F401
    import typer.core

    for module, names in ((os, FUNCTIONS), (signal, SIGNALS)):
        if module is signal:
            signal.SIGBREAK = signal.SIGUSR2  # type: ignore[attr-defined]
        for name in names:
            delattr(module, name)
    sys.modules.update(dict.fromkeys(MODULES))  # type: ignore[arg-type]

    class WindowsLock(filelock.FileLock):  # type: ignore[misc]
        def _release(self) -> None:
            super()._release()
            with contextlib.suppress(OSError):
                Path(self.lock_file).unlink()

    filelock.FileLock = WindowsLock
    from klcli import files, termination, text
    from klcli.store import locks

    for asking in (files, termination, text, locks):
        vars(asking)["sys"] = Answering(sys, platform="win32")
    for asking in (files, typer.core):
        vars(asking)["os"] = Answering(os, name="nt")
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    os.stat = stat
    sys.addaudithook(refuse)


emulate()

if __name__ == "__main__":
    import light

    from klcli.cli import app

    sys.path[0] = ""  # as -m has it, not the folder of this file
    commands = [list(words) for is_word, words in groupby(sys.argv[1:], lambda word: word != "+") if is_word]
    main = app.main

    def each() -> None:
        for words in commands:
            sys.argv[1:] = words
            try:
                main()
            except SystemExit as ended:
                if ended.code:
                    raise

    app.main = each  # type: ignore[assignment]
    light.main()
