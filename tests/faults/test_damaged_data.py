"""Damaged copies of CIFAR-10: refused with exit 3 and one line, and no code in them is ever executed.

Files of 20 images stand for those of 10 000: the same code reads them, a hundred times as fast.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from trials import TIMEOUT, Trials

from klcli.cli.app import main
from klcli.data.cifar10 import layouts
from klcli.data.cifar10.layouts import BINARY, LAYOUTS, MATLAB, PYTHON

LAYOUT = {layout.name: layout for layout in LAYOUTS}
ROWS = 20
Content = dict[str, bytes]  # of the files of a folder

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


def python_files(rng: np.random.Generator) -> Content:
    """A folder of the python layout."""
    files = {}
    for name in PYTHON.batch_files:
        pixels, labels = rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), rng.integers(0, 10, ROWS)
        content = {b"batch_label": b"x", b"labels": labels.tolist(), b"data": pixels, b"filenames": [b"a.png"] * ROWS}
        files[name] = pickle.dumps(content, protocol=2)
    return files


def binary_files(rng: np.random.Generator) -> Content:
    """A folder of the binary layout."""
    files = {}
    for name in BINARY.batch_files:
        records = rng.integers(0, 256, (ROWS, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
    return files


def matlab_files(rng: np.random.Generator) -> Content:
    """A folder of Matlab's layout."""
    files = {}
    for name in MATLAB.batch_files:
        content, file = rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), io.BytesIO()
        labels = rng.integers(0, 10, (ROWS, 1)).astype(np.uint8)
        savemat(file, {"data": content, "labels": labels, "batch_label": "x"}, do_compression=name < "data_batch_4")
        files[name] = file.getvalue()
    return files


class Wish:
    """A pickle that asks for a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def truncated(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    return content[: int(rng.integers(0, len(content)))]


def longer(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 5000)))


def flipped(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def flipped_at_the_ends(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    """Where a pickle has its instructions."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        position = int(rng.integers(600))
        damaged[position if rng.random() < 0.5 else -1 - position] = int(rng.integers(256))
    return bytes(damaged)


def block_lost(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 4096))
    filler = (b"", bytes(length), rng.bytes(length))[int(rng.integers(3))]
    return content[:start] + filler + content[start + length :]


def wrong_label(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    value = int(rng.choice([10, 11, 99, 255, -1, 256, 2**40]))
    if content.startswith(b"MATLAB"):
        batch = loadmat(io.BytesIO(content))
        batch["labels"] = batch["labels"].astype(np.int64)
        batch["labels"][int(rng.integers(ROWS))] = value
        return as_matlab(batch)
    if content.startswith(b"\x80"):
        batch = pickle.loads(content)
        batch[b"labels"][int(rng.integers(ROWS))] = value
        return pickle.dumps(batch, protocol=2)
    damaged = bytearray(content)
    damaged[3073 * int(rng.integers(ROWS))] = value % 246 + 10
    return bytes(damaged)


def as_matlab(batch: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    savemat(file, {key: value for key, value in batch.items() if not key.startswith("_")})
    return file.getvalue()


def wrong_shape(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    if content.startswith(b"MATLAB"):
        batch = loadmat(io.BytesIO(content))
        shapes: list[dict[str, Any]] = [
            {"labels": batch["labels"][1:]}, {"labels": "x"}, {"labels": batch["labels"].T}, {"labels": {"a": [1]}},
            {"data": batch["data"].T}, {"data": batch["data"].astype(float)}, {"data": batch["data"][:, None]},
            {"data": [[1, "x"], []]}, {"fine_labels": [1]},
        ]  # fmt: skip
        return as_matlab(batch | shapes[int(rng.integers(len(shapes)))])
    if not content.startswith(b"\x80"):
        return content[: 3073 * int(rng.integers(ROWS))]
    batch = pickle.loads(content)
    others: list[dict[bytes, Any]] = [
        {b"labels": batch[b"labels"][1:]}, {b"labels": None}, {b"labels": "0" * ROWS}, {b"labels": [[1]] * ROWS},
        {b"data": batch[b"data"][1:]}, {b"data": batch[b"data"].astype(float)}, {b"data": batch[b"data"].tolist()},
        {b"data": batch[b"data"].T}, {b"data": np.array([None] * ROWS)}, {b"fine_labels": [1] * ROWS},
    ]  # fmt: skip
    changed = batch | others[int(rng.integers(len(others)))]
    return pickle.dumps(changed, protocol=2) + (b"" if rng.random() < 0.5 else bytes(ROWS * 3072))


def web_page(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    starts = (b"<!DOCTYPE html>", b"\n <html>", b"\xef\xbb\xbf<?xml version='1.0'?>", b"<HEAD>")
    return starts[int(rng.integers(4))] + content[: int(rng.integers(len(content)))]


def other_file(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    others = (b"", b"\0" * len(content), b"PK\x03\x04" + content, b"PAR1", "ünïcode".encode("utf-16"), b"[1, 2]")
    return others[int(rng.integers(len(others)))]


def wants_to_run_code(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    """Whatever is called, it would leave a file, or end this process."""
    import codecs
    import importlib
    import shutil
    import subprocess

    shell = f"touch {trap}"
    code = f"open({str(trap)!r}, 'w')"
    wishes = [
        Wish(os.system, shell), Wish(subprocess.check_call, shell, None), Wish(eval, code), Wish(exec, code),
        Wish(os.mkdir, str(trap)), Wish(open, str(trap), "w"), Wish(shutil.copy, "/etc/hostname", str(trap)),
        Wish(np.savetxt, str(trap), [1]), Wish(importlib.import_module, "antigravity"), Wish(os._exit, 0),
        Wish(np.load, str(trap), None, True), Wish(codecs.encode, "x", "zip"), Wish(np.frombuffer, b"xx"),
        Wish(map, os.system, [shell]),
    ]  # fmt: skip
    wish = wishes[int(rng.integers(len(wishes)))]
    whole: Any = {b"data": wish, b"labels": [0]} if rng.random() < 0.5 else wish
    return pickle.dumps(whole, protocol=int(rng.integers(2, 6))) + bytes(ROWS * 3072)


def wants_much(rng: np.random.Generator, content: bytes, trap: Path) -> bytes:
    """Instructions that take memory or depth without end: a huge memo, a huge text, lists in lists, tuples as keys."""
    greedy = (
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x02Nr\xff\xff\xff\x3f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"\x80\x02T\xff\xff\xff\x7f.",
        b"\x80\x02}" + b"]" * 20_000 + b"a" * 19_999 + b"K\x01s.",
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
        b"\x80\x02}(" + b")" + b"\x85" * 15_000 + b"K\x01u.",
        b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
    )
    return greedy[int(rng.integers(len(greedy)))] + bytes(ROWS * 3072)


PICKLED: list[Any] = [flipped_at_the_ends, wants_to_run_code, wants_to_run_code, wants_much]
ANY: list[Any] = [
    truncated, longer, flipped, flipped_at_the_ends, block_lost, wrong_label, wrong_shape, web_page, other_file,
]  # fmt: skip


def into_archive(rng: np.random.Generator, files: Content, path: Path, trap: Path) -> str:
    """Pack the files, and damage the archive; returns what was done."""
    kind = str(rng.choice(["bytes", "truncated", "traversal", "links", "headers", "no archive", "half"]))
    if rng.random() < 0.3:
        return into_zip(rng, files, path, trap, kind)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for position, (name, content) in enumerate(files.items()):
            if kind == "half" and position > 2:
                break
            folder = f"../../../../../{trap.parent}" if kind == "traversal" else "cifar"
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            if kind == "links" and position == 1:
                member.size, member.linkname = 0, str(trap) if rng.random() < 0.5 else "/etc/passwd"
                member.type = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE][
                    int(rng.integers(4))
                ]
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
        if kind == "traversal":
            evil = tarfile.TarInfo(str(trap))
            archive.addfile(evil, io.BytesIO())
    raw = bytearray(packed.getvalue())
    if kind == "headers":
        for _ in range(int(rng.integers(1, 20))):
            raw[int(rng.integers(512))] = int(rng.integers(256))
    if kind == "no archive":
        raw = bytearray(rng.bytes(5000))
    packings: list[Any] = [bytes, gzip.compress, bz2.compress, lzma.compress]
    content = packings[int(rng.integers(4))](bytes(raw))
    if kind == "bytes":
        content = flipped(rng, content, trap)
    if kind == "truncated":
        content = truncated(rng, content, trap)
    path.write_bytes(content)
    return f"archive: {kind}"


def into_zip(rng: np.random.Generator, files: Content, path: Path, trap: Path, kind: str) -> str:
    """The same as a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for position, (name, content) in enumerate(files.items()):
            if kind == "half" and position > 2:
                break
            member = zipfile.ZipInfo(f"../../../../../{trap.parent}/{name}" if kind == "traversal" else f"cifar/{name}")
            is_link = kind == "links" and position == 1
            member.external_attr = 0o120777 << 16 if is_link else 0o644 << 16
            archive.writestr(member, str(trap) if is_link else content)
        if kind == "traversal":
            archive.writestr(str(trap), b"")
    content = bytearray(packed.getvalue())
    if kind == "headers":
        list_of_files = content.index(b"PK\1\2")
        for _ in range(int(rng.integers(1, 20))):
            content[int(rng.integers(list_of_files, len(content)))] = int(rng.integers(256))
    changed: Any = {"bytes": flipped, "truncated": truncated}.get(kind)
    whole = rng.bytes(5000) if kind == "no archive" else bytes(content)
    path.write_bytes(changed(rng, whole, trap) if changed else whole)
    return f"archive: {kind}"


def damage(rng: np.random.Generator, folder: Path, trap: Path, samples: dict[str, Content]) -> tuple[Path, str, bool]:
    """Write a damaged copy; returns its path, what was done, and whether a reader can notice."""
    layout = str(rng.choice(["python", "binary", "matlab"]))
    files = dict(samples[layout])
    names = LAYOUT[layout].batch_files
    victim = names[int(rng.integers(len(names)))]
    if rng.random() < 0.25:
        path = folder / LAYOUT[layout].archive
        kind = into_archive(rng, files, path, trap)
        return (
            path,
            kind,
            kind not in ("archive: bytes", "archive: headers", "archive: truncated", "archive: traversal"),
        )
    function: Any = rng.choice(np.array(ANY + PICKLED if layout == "python" else ANY, dtype=object))
    files[victim] = function(rng, files[victim], trap)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    # Pixels have no checksum of their own, and bytes behind the end of a pickle belong to nobody.
    hidden = {
        "python": (longer, flipped, flipped_at_the_ends, block_lost),
        "binary": (flipped, flipped_at_the_ends, block_lost),
        "matlab": (longer, flipped, flipped_at_the_ends, block_lost),  # some files are not compressed
    }
    noticed = files[victim] != samples[layout][victim] and function not in hidden[layout]
    return folder, f"{layout}: {function.__name__.replace('_', ' ')}", noticed


def test_damaged_data(
    row: Callable[[str, str], Trials],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials = row(
        "damaged data files: truncations, flips, wrong labels and sizes, HTML, hostile tars and pickles (`data info`)",
        "exit 3 and one line, or other images with another sha256; no traceback, nothing executed or written",
    ).planned(40, 2000)
    monkeypatch.setattr(layouts, "ROWS", ROWS)
    monkeypatch.setenv("KLCLI_CACHE", "/proc/nowhere")  # no copies are kept
    start = Trials.rng(10**6)
    samples = {"python": python_files(start), "binary": binary_files(start), "matlab": matlab_files(start)}
    originals = {layout: _sha256(samples[layout], tmp_path / layout, capsys) for layout in samples}
    for number, rng in trials:
        random.seed(number)
        folder = tmp_path / f"copy {number}"
        folder.mkdir()
        trap = tmp_path / f"trap {number}".replace(" ", "-")
        path, kind, noticed = damage(rng, folder, trap, samples)
        before = sorted(file.name for file in folder.rglob("*"))
        with pytest.raises(SystemExit) as exit_:
            main(["data", "info", "--json", "--quiet", "--data", str(path)])  # without progress, which a slow read has
        out, err = capsys.readouterr()
        code = int(exit_.value.code or 0)
        name = f"trial {number} ({kind})"
        trials.tried["refused"] += code == 3
        trials.expect(code in (0, 3), f"{name}: exit {code}: {err[-300:]}")
        trials.expect("Traceback" not in err, f"{name}: {err[-300:]}")
        if code:
            trials.expect(
                out == "" and len(err.splitlines()) == 1 and err.startswith("klcli: "), f"{name}: {err[-300:]}"
            )
        else:
            document = json.loads(out)
            trials.expect(not noticed, f"{name}: was read")
            is_same = document["sha256"] in originals.values()
            trials.tried[
                "read, the images being whole" if is_same else "read as other images, which their sha256 tells"
            ] += 1
            trials.expect(document["official"] is not True, f"{name}: called official")
        trials.expect(not trap.exists(), f"{name}: EXECUTED")
        trials.expect(sorted(file.name for file in folder.rglob("*")) == before, f"{name}: something was written")
        for file in folder.rglob("*"):
            file.unlink()
    assert trials.lost == []


def _sha256(files: Content, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(SystemExit):
        main(["data", "info", "--json", "--data", str(folder)])
    return str(json.loads(capsys.readouterr().out)["sha256"])
