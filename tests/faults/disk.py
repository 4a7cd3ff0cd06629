"""A disk whose power can be cut: what had been synced is on it; the rest may be, in part and in any order.

Data are durable once their file has been synced, names once their folder has been. Without a sync, each write and each
change of a name may be applied or lost, whatever happened before or after it, a write also in parts that end at the
borders of sectors; where a file would have grown, there may also be bytes that nobody wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from recording import Operation

SECTORS = (512, 4096)
Content = dict[str, bytes | None]  # of each file by its name; None is a folder


@dataclass
class File:
    """A file under whatever names."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Operation]] = field(default_factory=list)  # with their positions in the recording


@dataclass(frozen=True)
class Renaming:
    """A change of the names in one folder that a file system makes as a whole."""

    removed: str = ""
    made: str = ""
    file: File | None = None  # None is a folder

    def apply(self, names: dict[str, File | None]) -> None:
        if self.removed:
            names.pop(self.removed, None)
        if self.made:
            names[self.made] = self.file


class Disk:
    """A disk after the operations of a recording, with what was on it before. `names` are those that processes see."""

    def __init__(self, operations: Sequence[Operation], before: Content | None = None) -> None:
        found = {name: None if one is None else File(bytearray(one)) for name, one in (before or {}).items()}
        self.names: dict[str, File | None] = dict(found)
        self.durable: dict[str, File | None] = dict(found)
        self.pending: list[tuple[int, str, Renaming]] = []  # with the folder
        for position, one in enumerate(operations):
            self._apply(position, one)

    def _apply(self, position: int, one: Operation) -> None:
        if one.kind in ("write", "truncate"):
            file = self.names[one.path]
            assert file is not None
            file.pending.append((position, one))
        elif one.kind == "sync":
            self._sync(one)
        elif one.kind != "told":
            renaming = {
                "create": lambda: Renaming(made=one.path, file=File()),
                "mkdir": lambda: Renaming(made=one.path),
                "rename": lambda: Renaming(one.path, one.target, self.names[one.path]),
                "unlink": lambda: Renaming(removed=one.path),
                "rmdir": lambda: Renaming(removed=one.path),
            }[one.kind]()
            renaming.apply(self.names)
            self.pending.append((position, str(PurePosixPath(one.path).parent), renaming))

    def _sync(self, one: Operation) -> None:
        file = self.names.get(one.path) if one.path else None
        if file is not None:
            for _, operation in (two for two in file.pending if two[0] < one.began):
                change(file.durable, operation)
            file.pending = [two for two in file.pending if two[0] >= one.began]
            return
        folder = one.path or "."
        for position, where, renaming in self.pending:
            if where == folder and position < one.began:
                renaming.apply(self.durable)
        self.pending = [two for two in self.pending if two[1] != folder or two[0] >= one.began]

    def cut(self, rng: np.random.Generator, in_order: bool) -> Content:
        """Cut the power and return what is found afterwards.

        `in_order`: the pending operations up to a random one are applied. Otherwise any of them may be.
        """
        waiting = sorted(
            [position for position, _, _ in self.pending]
            + [position for file in self._files() for position, _ in file.pending]
        )
        last = waiting[int(rng.integers(len(waiting)))] if waiting else -1
        share = float(rng.choice([0.1, 0.5, 0.9]))

        def survives(position: int) -> bool:
            return position < last if in_order else bool(rng.random() < share)

        names = dict(self.durable)
        for position, _, renaming in self.pending:
            if survives(position):
                renaming.apply(names)
        contents: dict[int, bytes] = {}
        for file in self._files():
            fates = [(one, survives(position), position == last) for position, one in file.pending]
            contents[id(file)] = _content(file, fates, rng, in_order)
        folders = {name for name, file in names.items() if file is None} | {"."}
        there = {name for name in names if all(str(above) in folders for above in PurePosixPath(name).parents)}
        return {name: None if (found := names[name]) is None else contents[id(found)] for name in sorted(there)}

    def _files(self) -> list[File]:
        """The files under durable names, and those that names would lead to."""
        found = [*self.durable.values(), *(renaming.file for _, _, renaming in self.pending)]
        return list({id(file): file for file in found if file is not None}.values())


def change(content: bytearray, one: Operation) -> None:
    """Apply a write or a truncation."""
    if one.kind == "truncate":
        del content[one.offset :]
    if len(content) < one.offset:
        content.extend(bytes(one.offset - len(content)))
    content[one.offset : one.offset + len(one.content)] = one.content


def _content(
    file: File, fates: Sequence[tuple[Operation, bool, bool]], rng: np.random.Generator, in_order: bool
) -> bytes:
    """What is in a file: of each pending operation everything, nothing or some sectors."""
    content = bytearray(file.durable)
    applied: list[Operation] = []
    for one, survives, is_torn in fates:
        if survives or one.kind == "truncate":
            applied += [one] if survives else []
            continue
        if not is_torn and (in_order or rng.random() < 0.5):
            continue
        for piece in pieces(one, int(rng.choice(SECTORS))):
            fate = rng.random()
            if fate < 0.5:
                applied.append(piece)
            elif fate < 0.6 and piece.offset >= len(file.durable):
                # Room on the disk that was assigned to the file and never written.
                noise = rng.bytes(len(piece.content))
                change(content, Operation("write", one.path, offset=piece.offset, content=noise))
    for one in applied:
        change(content, one)
    return bytes(content)


def pieces(one: Operation, sector: int) -> list[Operation]:
    """The parts of a write in each sector of the disk."""
    end = one.offset + len(one.content)
    borders = [one.offset, *range((one.offset // sector + 1) * sector, end, sector), end]
    return [
        Operation("write", one.path, offset=start, content=one.content[start - one.offset : stop - one.offset])
        for start, stop in pairwise(borders)
    ]


def write(found: Content, folder: Path) -> None:
    """Make the files that a cut has left."""
    folder.mkdir()
    for name, content in found.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
