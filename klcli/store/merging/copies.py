"""Copies of checkpoints and pictures, renamed into place together."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from klcli.errors import StoreError
from klcli.files import flush, replacing_all
from klcli.store import checkpoints
from klcli.termination import at_the_end

PORTION = 500  # temporary files at the same time
Copy = tuple[Path, Path]  # a file, and its place in this database
THREADS = 8  # flushing 1000 small files one after the other takes 5 s on a usual disk, in threads 1 s


def copy_files(files: Sequence[Copy]) -> None:
    """Copy files. If one cannot be read or written, raises StoreError; no file is then incomplete, and none is new."""
    new = [target for _, target in files if not target.exists()]

    def remove_new() -> None:
        for target in new:
            with suppress(OSError):
                target.unlink(missing_ok=True)

    with at_the_end(remove_new):
        try:
            for folder in dict.fromkeys(target.parent for _, target in files):
                own = [one for one in files if one[1].parent == folder]
                for start in range(0, len(own), PORTION):
                    sources, targets = zip(*own[start : start + PORTION], strict=True)
                    with (
                        checkpoints.writing(targets[0]), replacing_all(targets) as temporaries,
                        ThreadPoolExecutor(THREADS) as pool,
                    ):  # fmt: skip
                        list(pool.map(_copy, sources, temporaries))
        except BaseException:
            remove_new()
            raise


def _copy(source: Path, temporary: Path) -> None:
    try:
        content = source.open("rb")
    except OSError as error:
        raise StoreError(f"{source}: cannot be read ({error.strerror}), make it readable or remove it") from error
    with content, temporary.open("r+b") as file:
        shutil.copyfileobj(content, file)
        flush(file)
