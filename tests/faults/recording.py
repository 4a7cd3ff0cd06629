"""Recordings of what a command does to the files below a folder, operation by operation, and of what it told when."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,fsync,fdatasync,rename,renameat,"
    "renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,fallocate,copy_file_range,sendfile"
)
STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<(.*)>(?:\(deleted\))?)?(?: .*)?$", re.DOTALL)
FILE = re.compile(r"(\d+)<(.*)>$", re.DOTALL)
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Operation:
    """One operation that succeeded."""

    kind: str  # create, write, truncate, sync, rename, unlink, mkdir, rmdir; told: text on stdout or stderr
    path: str = ""  # relative to the folder
    target: str = ""  # the new name of a rename
    offset: int = 0  # of a write; the new length for truncate
    content: bytes = b""
    began: int = 0  # the number of operations that had ended when a sync began: it covers no others


def record(folder: Path, *command: str, cache: Path) -> list[Operation]:
    """Run `klcli` with these arguments and return its operations on the files below `folder`."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    trace, told = folder.with_name(f"{folder.name} trace"), folder.with_name(f"{folder.name} told")
    klcli = [sys.executable, "-m", "klcli"]
    environment = os.environ | {"KLCLI_CACHE": str(cache), "OPENBLAS_NUM_THREADS": "1"}
    # Once prepared, the images are no part of the recording.
    subprocess.run([*klcli, "data", "info", "--data", "synthetic"], env=environment, capture_output=True, check=True)
    present = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    arguments = [*STRACE, "-o", str(trace), *klcli, *command]
    with told.open("w") as out:
        done = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
    text = told.read_text(encoding="utf-8")
    if "ptrace" in text or "seccomp" in text:
        pytest.skip(f"no process can be traced here: {text[:200]}")
    assert done.returncode == 0, text
    with trace.open(encoding="ascii") as lines:
        operations = list(_Recorder(folder, told, present).operations(lines))
    trace.unlink()
    said = b"".join(one.content for one in operations if one.kind == "told")
    assert said.decode() == text, "the recording lacks a part of what was told"
    return operations


class _Recorder:
    """Reads the lines of strace."""

    def __init__(self, folder: Path, told: Path, present: set[str]) -> None:
        self.folder, self.told = f"{folder}/", str(told)
        self.done = 0
        self.present = present
        self.positions: dict[str, int] = {}

    def operations(self, lines: Iterator[str]) -> Iterator[Operation]:
        begun: dict[str, tuple[str, int]] = {}  # calls of a thread that another one has overtaken
        for line in lines:
            thread, _, call = line.rstrip("\n").partition(" ")
            call = call.strip()
            if call.endswith("<unfinished ...>"):
                begun[thread] = call.removesuffix("<unfinished ...>").rstrip(" "), self.done
                continue
            start = self.done
            if call.startswith("<... "):
                first, start = begun.pop(thread)
                call = first + call.partition(" resumed>")[2]
            if call.startswith(("+++", "---")) or call.endswith("= ?"):  # a signal, or the end of a thread in a call
                continue
            found = CALL.match(call)
            assert found, f"not understood: {call[:200]} ... {call[-90:]}"
            if int(found[3]) >= 0:
                for one in self._meaning(found[1], found[2], int(found[3]), _decoded(found[4] or ""), start):
                    self.done += 1
                    yield one

    def _meaning(self, name: str, arguments: str, result: int, opened: str, start: int) -> Iterator[Operation]:
        first, *rest = arguments.split(", ")
        if name in ("openat", "open"):
            yield from self._of_opening(self._inside(opened), arguments)
        elif name in ("write", "pwrite64"):
            content = bytes.fromhex(_string(rest[0]).replace("\\x", ""))[:result]
            yield from self._of_writing(_file(first), content, int(rest[2]) if name == "pwrite64" else None)
        elif name == "lseek":
            self.positions[self._inside(_file(first))] = result
        elif name == "ftruncate":
            if path := self._inside(_file(first)):
                yield Operation("truncate", path, offset=int(rest[0]))
        elif name in ("fsync", "fdatasync"):
            if f"{_file(first)}/".startswith(self.folder):
                yield Operation("sync", self._inside(_file(first)), began=start)
        else:
            yield from self._of_names(name, [self._inside(_decoded(text)) for text in STRING.findall(arguments)])

    def _of_opening(self, path: str, flags: str) -> Iterator[Operation]:
        if path and ("O_CREAT" in flags or "O_TRUNC" in flags) and "O_DIRECTORY" not in flags:
            if path not in self.present:
                self.present.add(path)
                yield Operation("create", path)
            elif "O_TRUNC" in flags:
                yield Operation("truncate", path)
            self.positions[path] = 0

    def _of_writing(self, file: str, content: bytes, offset: int | None) -> Iterator[Operation]:
        if file == self.told:
            yield Operation("told", content=content)
        elif path := self._inside(file):
            if offset is None:
                offset = self.positions[path]
                self.positions[path] = offset + len(content)
            yield Operation("write", path, offset=offset, content=content)

    def _of_names(self, name: str, paths: Sequence[str]) -> Iterator[Operation]:
        if not any(paths):
            return
        kinds = {"rename": "rename", "renameat": "rename", "renameat2": "rename", "unlink": "unlink"}
        kinds |= {"unlinkat": "unlink", "mkdir": "mkdir", "mkdirat": "mkdir", "rmdir": "rmdir"}
        assert name in kinds, f"{name} of {paths}: no recording of this call"
        if kinds[name] == "rename":
            assert Path(paths[0]).parent == Path(paths[1]).parent, f"{paths}: a rename from folder to folder"
            self.present = self.present - {paths[0]} | {paths[1]}
        self.present.discard(paths[0] if kinds[name] == "unlink" else "")
        yield Operation(kinds[name], paths[0], paths[1] if len(paths) > 1 else "")

    def _inside(self, path: str) -> str:
        """The path relative to the folder, or nothing."""
        return path.removeprefix(self.folder) if path.startswith(self.folder) else ""


def _file(argument: str) -> str:
    """The path behind an open file; nothing where it has been removed."""
    found = FILE.match(argument)
    assert found or argument.endswith("(deleted)"), f"no open file: {argument[:200]}"
    return _decoded(found[2]) if found else ""


def _string(argument: str) -> str:
    found = STRING.match(argument)
    assert found, f"not a whole string: {argument[:100]}"
    return found[1]


def _decoded(text: str) -> str:
    """A path of strace, in which every byte or none may be in hexadecimal."""
    if text.startswith("\\x"):
        return os.fsdecode(bytes.fromhex(text.replace("\\x", "")))
    return text
