"""Termination: SIGINT, SIGTERM and SIGHUP, on Windows SIGBREAK, end a command at once, or after the current update.

A thread obeys them, because Python runs a signal handler only between two instructions of the main thread, which may
wait a minute to open a locked database. No handler of klcli raises an exception: inside a finalizer or the import of a
C extension it would be lost, or printed as a traceback. Imports of `typing`, `dataclasses` or `enum` would double the
time until `obey`.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up", "SIGBREAK": "interrupted"}
SIGNALS = {int(getattr(signal, name)): word for name, word in WORDS.items() if hasattr(signal, name)}
# A terminal sends these to all of its processes, the workers included. Only the command decides.
TERMINAL_SIGNALS = {signum for signum, word in SIGNALS.items() if word != "terminated"}
BREAK = getattr(signal, "SIGBREAK", None)  # Ctrl-Break, on Windows alone
PATIENCE_SECONDS = 10  # for the current update, evaluation or write: then the process ends without its result

_obeying = threading.Event()  # set once the thread of `obey` runs
_deferring = threading.Event()  # set inside `deferred`
# The handlers of a program that imports klcli, inside `deferred`.
_replaced: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
_received: list[int] = []  # signals that were deferred
_actions: list[Callable[[], str | None]] = []  # of `at_the_end`
# Held in a short block, which thus runs before the actions of `at_the_end` or never; taken by whoever ends the process.
before_the_end = threading.RLock()  # a handler may end the process inside the block


def obey() -> None:
    """End this process with one line at the next signal; for the command, not for a program that imports klcli.

    A SIGHUP that was ignored when the process started stays ignored: `nohup klcli train`.
    """
    _obeying.set()
    reader, writer = os.pipe()
    if hasattr(os, "set_blocking"):
        os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    obeyed = _obeyed()
    for signum in obeyed:
        signal.signal(signum, lambda signum, frame: None)  # the thread obeys it
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    # The process in which multiprocessing removes lost semaphores inherits this option, and prints no warning.
    sys.warnoptions.append("ignore:resource_tracker")
    atexit.register(_ignore, obeyed)  # the first to be registered is the last to be called


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Defer the first signal inside the block, and yield a function that raises Interrupted after it.

    Writes are thus complete before a run is marked. A second signal ends a command at once; the next opening of the
    database marks the run. In a program that imports klcli, handlers are installed for the time of the block, in the
    main thread alone, as Python delivers no signals to others, and a second signal calls the program's own handler. One
    without a handler ends by the signal behind the block: a worker of multiprocessing.Pool takes Interrupted for its
    result, and the pool waits for its end.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or _deferring.is_set():  # a callback of a training can begin another one
        yield raise_deferred if is_main else lambda: None
        return

    _received.clear()
    _deferring.set()
    try:
        for signum in () if _obeying.is_set() else _obeyed():
            _replaced[signum] = signal.signal(signum, _receive)
        yield raise_deferred
        raise_deferred()  # a signal after the last update: a study must not go on to its next stage
    finally:
        replaced = {**_replaced}
        _defer_no_more()
        for signum in _received:
            if replaced.get(signum) == signal.SIG_DFL:
                signal.raise_signal(signum)


def _defer_no_more() -> None:
    """End the deferral, also in a process that a callback forks: a pool would wait without end for its workers."""
    while _replaced:
        signal.signal(*_replaced.popitem())
    _deferring.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_defer_no_more)


def raise_deferred() -> None:
    """Raise Interrupted if a signal has been received inside `deferred`."""
    if _deferring.is_set() and _received:
        from klcli.errors import Interrupted

        raise Interrupted(SIGNALS[_received[0]], _received[0])


@contextmanager
def at_the_end(action: Callable[[], str | None]) -> Iterator[None]:
    """Call `action` if a signal ends the process inside the block; a text that it returns is added to the message."""
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Block the signals of the terminal in the processes that are started inside the block."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obeyed() -> list[int]:
    """Return the signals to obey; a shell lets a job in the background ignore SIGINT, which is obeyed all the same.

    Python could not put back a handler that is None: a program that embeds Python has set it in C.
    """
    now = {signum: signal.getsignal(signum) for signum in SIGNALS}
    return [one for one, how in now.items() if how is not None and (how != signal.SIG_IGN or SIGNALS[one] != "hung up")]


def _ignore(signums: list[int]) -> None:
    """Ignore signals while the process exits by itself. Does not return if a signal has begun to end it."""
    before_the_end.acquire()
    for signum in signums:
        signal.signal(signum, signal.SIG_IGN)


def _watch(reader: int) -> None:
    while True:
        for signum in os.read(reader, 1):
            if signum in SIGNALS:
                _receive(signum, None)


def _receive(signum: int, frame: FrameType | None) -> None:
    signum = signal.SIGINT if signum == BREAK else signum  # which has an exit code
    if not _deferring.is_set() or _received:
        if callable(before := _replaced.get(signum)):
            before(signum, frame)  # that of Python raises KeyboardInterrupt
        elif before != signal.SIG_IGN:  # a notebook ignores SIGINT between two cells
            _end(signum)
        return
    _received.append(signum)
    if _obeying.is_set():
        impatience = threading.Timer(PATIENCE_SECONDS, _end, (signum,))
        impatience.daemon = True
        impatience.start()


def _end(signum: int) -> None:
    """End the process without its own clean-up, which may wait for what the main thread waits for."""
    before_the_end.acquire()
    words = [SIGNALS[signum]]
    for action in _actions[::-1]:  # a copy: the main thread can still remove some
        with suppress(Exception):
            words += filter(None, [action()])
    with suppress(OSError):
        # Over the progress bar.
        bar = "\r\x1b[K" if os.isatty(2) and os.environ.get("TERM") != "dumb" else ""
        os.write(2, f"{bar}klcli: {': '.join(words)}\n".encode())
    os._exit(128 + signum)
