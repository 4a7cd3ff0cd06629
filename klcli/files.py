"""Files: written atomically, as a whole or not at all; read only if regular. OSError is raised if the disk fails."""

import atexit
import contextlib
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from glob import escape
from pathlib import Path
from typing import IO, BinaryIO

from klcli.errors import ConfigError, DataError, StoreError
from klcli.termination import at_the_end, before_the_end
from klcli.text import path_text

LEFT_BEHIND = 3600  # seconds since the last write after which a temporary file belongs to a process that was killed
IN_USE = "in-use"  # the file in a folder that its process holds
NEW_SECONDS = 60.0  # in which the folder of another process may not be held yet
PAUSES = tuple(0.01 * 2**n for n in range(8))  # seconds between attempts, 2.5 in all


@contextlib.contextmanager
def replacing(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Yield a binary file that replaces `path` if the block ends well.

    A temporary file is written, flushed and renamed, and the folder is flushed: `path` is never incomplete, and still
    there after a power cut. `previous`, where the old file is kept, is given by the only process that writes `path`:
    killed ones have left all other temporary files.
    """
    make_folder(path.parent)
    remove_leftovers(path.parent, path.name, after=LEFT_BEHIND if previous is None else 0)
    with _temporary(path) as temporary:
        with temporary.open("r+b") as file:
            yield file
            flush(file)
        if previous is not None and path.exists():
            replace(path, previous)
            flush_folder(path.parent)  # otherwise the next rename could be on the disk without this one
        replace(temporary, path)
    flush_folder(path.parent)


@contextlib.contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield an empty file for each file of one folder, to be written and flushed in the block; they replace the files
    if it ends well. Raises StoreError, which names the files that are new and those that are old, if one cannot be
    replaced.
    """
    make_folder(paths[0].parent)
    remove_leftovers(paths[0].parent)  # once: a folder of 1000 files is read in 2 ms
    with contextlib.ExitStack() as stack:
        temporaries = [stack.enter_context(_temporary(path)) for path in paths]
        yield temporaries
        done = 0
        try:
            for temporary, path in zip(temporaries, paths, strict=True):
                replace(temporary, path)
                done += 1
        except OSError as error:
            new, old = (", ".join(one.name for one in part) or "none" for part in (paths[:done], paths[done:]))
            cure = "close the program that has it open and run again"
            words = f"{path}: cannot be replaced ({error.strerror}), {cure} (new: {new}; as before: {old})"
            raise StoreError(words) from error
        finally:
            flush_folder(paths[0].parent)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`. The block must not create it: a signal may just have removed it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with at_the_end(lambda: temporary.unlink(missing_ok=True)):
        try:
            with before_the_end:
                temporary.touch()
            yield temporary
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def replace(source: Path, target: Path, pauses: Sequence[float] = PAUSES) -> Path:
    """Rename a file, over another one if that is there.

    On Windows, the system refuses it while a virus scanner, an indexer or a reader has one of them open, mostly for
    milliseconds: it is tried again after pauses.
    """
    for seconds in pauses:
        with contextlib.suppress(PermissionError):
            return source.replace(target)
        time.sleep(seconds)
    return source.replace(target)


def flush(file: IO[bytes]) -> None:
    """Flush what was written to a file to the disk; on macOS, fsync alone leaves it in the buffer of the disk."""
    file.flush()
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # not every file system has it
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they are still there after a power cut."""
    if folder != folder.parent and not folder.is_dir():  # a drive of Windows that is not there is its own parent
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        # Some file systems of networks refuse it, and have written the names already.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor := os.open(folder, os.O_RDONLY))
            os.fsync(descriptor)


def remove_leftovers(folder: Path, name: str | None = None, *, after: float = LEFT_BEHIND) -> None:
    """Remove the temporary files of `name`, by default of any file, that were written `after` seconds ago or longer."""
    for temporary in folder.glob(f".{'*' if name is None else escape(name)}.{'[0-9a-f]' * 16}"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime >= after:
                temporary.unlink(missing_ok=True)


def hold(file: IO[bytes] | int) -> None:
    """Let `unheld` find the open file in use, until it and all memory maps of it are closed.

    Windows needs no lock: it refuses to remove or rename a file that is open.
    """
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):  # no locks in this file system: then `unheld` tells nothing there
            fcntl.flock(file, fcntl.LOCK_SH)  # waits for the milliseconds of `unheld`


@contextlib.contextmanager
def unheld(path: Path | None) -> Iterator[bool | None]:
    """Yield whether no process holds a file, and none can begin to inside the block. None where that is unknown.

    A file that is not there is held by none. On Windows, where nothing is locked, one that is open is held.
    """
    if path is None or not path.exists():
        yield True
        return
    with contextlib.ExitStack() as stack:
        is_free: bool | None = True
        try:
            if sys.platform == "win32":
                replace(path, path, PAUSES[:4])  # refused for an open file
            else:
                import fcntl

                fcntl.flock(stack.enter_context(path.open("r+b")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            is_free = False
        except OSError:
            is_free = None
        yield is_free


def system_temporary() -> Path:
    """Return the system's folder for temporary files. Raises StoreError if there is none that can be written."""
    from tempfile import gettempdir  # takes 5 ms

    try:
        return Path(gettempdir())
    except FileNotFoundError as error:
        cure = "free some space, or name a folder that can be written in the environment variable TMPDIR"
        raise StoreError(f"{error.strerror}, {cure}") from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder, which is removed after the block, at the latest when the process ends, also by a signal.

    Those of processes that were killed are removed first.
    """
    _remove_abandoned(system_temporary())
    folder = system_temporary() / f"klcli-{secrets.token_hex(8)}"

    def remove() -> None:
        ended = Path(f"{folder}-ended")
        # A worker that still writes does not find it by another name. Windows refuses both while a file in it is open.
        with contextlib.suppress(OSError):  # also where a second signal ends a process that is here already
            folder.rename(ended)
        for one in (ended, folder):
            shutil.rmtree(one, ignore_errors=True)

    atexit.register(remove)  # whatever holds the block open
    with at_the_end(remove):
        try:
            with before_the_end:
                folder.mkdir(mode=0o700)
            with (folder / IN_USE).open("wb") as file:
                hold(file)
                yield folder
        finally:
            remove()
            atexit.unregister(remove)


def _remove_abandoned(parent: Path) -> None:
    for file in parent.glob(f"klcli-*/{IN_USE}"):
        with contextlib.suppress(OSError), unheld(file) as is_free:
            is_new = time.time() - file.stat().st_mtime < NEW_SECONDS
            if is_free and not is_new and not file.parent.is_symlink():
                shutil.rmtree(file.parent, ignore_errors=True)


def exists(path: Path) -> bool:
    """Return whether there is a file or folder that this user may see."""
    return os.path.exists(path)  # noqa: PTH110  # Path.exists raises in another user's folder


def irregular(path: Path) -> str | None:
    """Return what a path is if it is there and not a regular file: a folder, a pipe, a socket or a device."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def followed(path: Path) -> Path:
    """Return the file that a link names, as `/dev/stdout` can: what replaces a file would replace the link itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def require_file_name(path: Path, option: str) -> Path:
    """Return what to write for a file named by a user, `followed`. Raises ConfigError unless it is there or, as far as
    its name tells, can be written.

    Raises StoreError for a folder that cannot be written, before a command computes for hours what would go there.
    """
    try:
        kind = irregular(path)
    except OSError as error:
        raise ConfigError(f"{option} {path_text(path)}: {error.strerror}, choose another name".lstrip()) from None
    if kind:
        raise ConfigError(f"{option} {path_text(path)}: this is {kind}, name a file".lstrip())
    file = followed(path)
    folder = next((one for one in file.absolute().parents if one.exists()), None)
    if folder is None or not os.access(folder, os.W_OK):  # None: of a drive of Windows that is not there
        why = f"{folder} is read-only" if folder else f"{file.anchor} is not there"
        raise StoreError(f"{path_text(path)}: cannot be written ({why}), choose another folder")
    return file


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises DataError if it is irregular: a pipe may block, and a device may never end."""
    if kind := irregular(path):
        raise DataError(f"{path_text(path)}: this is {kind}, give a regular file")
    return path.open("rb")


def has_member(path: Path, name: str) -> bool:
    """Whether a file is an archive, such as `.npz`, that has a member of this name."""
    import zipfile

    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return name in archive.namelist()
    return False


def is_text(path: Path) -> bool:
    """Whether a file can be an earlier page: no database, network or picture, which have zero bytes at the start."""
    with path.open("rb") as file:
        return b"\0" not in file.read(512)


def require_export(path: Path, is_export: Callable[[Path], bool], option: str = "") -> Path:
    """Return the file that an export may replace. Raises ConfigError unless it is an earlier one, or there is none."""
    file = require_file_name(path, option)
    if file.is_file() and not is_export(file):
        words = "this file is no export, choose another name"
        raise ConfigError(f"{option} {path_text(path)}: {words}".lstrip())
    return file


_KINDS = {
    stat.S_IFREG: None, stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
