"""Prepared copies that are damaged, exchanged or outdated: no training ever runs on other images than those named."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stored import SHORT, outcome, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory

ROWS = 10_000
BINARY = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
Row = Callable[[str, str], Trials]
Change = Callable[[np.random.Generator, Path, Path], None]

pytestmark = [pytest.mark.timeout(TIMEOUT), pytest.mark.slow]


def images(folder: Path, seed: int) -> Path:
    """Random images in the binary layout, with a pattern per class."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
    folder.mkdir()
    for name in BINARY:
        labels = rng.integers(0, 10, (ROWS, 1), dtype=np.uint8)
        pixels = patterns[labels[:, 0]] ^ rng.integers(0, 32, (ROWS, 3072), dtype=np.uint8)
        (folder / name).write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())
    return folder


def checksum(folder: Path) -> str:
    """The checksum of the images of a folder, from the files themselves: all labels, then all pixels."""
    batches = [np.frombuffer((folder / name).read_bytes(), np.uint8).reshape(ROWS, -1) for name in BINARY]
    digest = hashlib.sha256(b"".join(batch[:, 0].tobytes() for batch in batches))
    for batch in batches:
        digest.update(np.ascontiguousarray(batch[:, 1:]))
    return digest.hexdigest()


def in_place(file: Path, at: int, content: bytes) -> None:
    """Overwrite bytes, and leave size and time as they were."""
    state = file.stat()
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def flips(rng: np.random.Generator, copy: Path, other: Path) -> None:
    content = np.memmap(copy, np.uint8, "r")
    for at in rng.integers(len(content), size=int(rng.integers(1, 200))):
        in_place(copy, int(at), bytes([content[at] ^ 1 << int(rng.integers(8))]))


def one_bit(rng: np.random.Generator, copy: Path, other: Path) -> None:
    at = int(rng.integers(copy.stat().st_size))
    in_place(copy, at, bytes([np.memmap(copy, np.uint8, "r")[at] ^ 1 << int(rng.integers(8))]))


def other_label(rng: np.random.Generator, copy: Path, other: Path) -> None:
    at = int(rng.integers(6 * ROWS))
    in_place(copy, at, bytes([(np.memmap(copy, np.uint8, "r")[at] + 1) % 10]))


def two_labels_exchanged(rng: np.random.Generator, copy: Path, other: Path) -> None:
    labels = np.memmap(copy, np.uint8, "r")[: 6 * ROWS]
    first = int(rng.integers(len(labels)))
    second = int(rng.choice(np.flatnonzero(labels != labels[first])))
    was = int(labels[first]), int(labels[second])
    in_place(copy, first, bytes([was[1]]))
    in_place(copy, second, bytes([was[0]]))


def truncated(rng: np.random.Generator, copy: Path, other: Path) -> None:
    os.truncate(copy, int(rng.integers(copy.stat().st_size)))


def lengthened(rng: np.random.Generator, copy: Path, other: Path) -> None:
    with copy.open("ab") as file:
        file.write(rng.bytes(int(rng.integers(1, 10_000))))


def block_lost(rng: np.random.Generator, copy: Path, other: Path) -> None:
    in_place(copy, 4096 * int(rng.integers(copy.stat().st_size // 4096)), bytes(4096))


def exchanged(rng: np.random.Generator, copy: Path, other: Path) -> None:
    """With the copy of another data set."""
    aside = copy.with_name("aside")
    copy.rename(aside)
    other.rename(copy)
    aside.rename(other)


def notes_exchanged(rng: np.random.Generator, copy: Path, other: Path) -> None:
    first, second = notes(copy)
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])


def note_damaged(rng: np.random.Generator, copy: Path, other: Path) -> None:
    for note in notes(copy):
        content = bytearray(note.read_bytes())
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        note.write_bytes(content)


def removed(rng: np.random.Generator, copy: Path, other: Path) -> None:
    copy.unlink()


def notes(copy: Path) -> list[Path]:
    return sorted(copy.parent.glob("*.json"))


CHANGES: tuple[Change, ...] = (
    *(flips, one_bit, other_label, two_labels_exchanged, truncated, lengthened, block_lost, exchanged),
    *(notes_exchanged, note_damaged, removed),
)


@pytest.fixture
def sets(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two data sets, which are 370 MB, and 370 MB in the cache."""
    folders = images(tmp_path / "one", 1), images(tmp_path / "other", 2)
    yield folders
    for folder in (*folders, tmp_path / "cache"):
        shutil.rmtree(folder, ignore_errors=True)


def command(folder: Path, db: Path) -> tuple[str, ...]:
    return ("train", "--data", str(folder), *SHORT[2:], "--epochs", "4", "--step-epochs", "2", "--db", str(db))


def test_prepared_copies(lab: Laboratory, row: Row, sets: tuple[Path, Path], tmp_path: Path) -> None:
    trials = row(
        f"a prepared copy damaged in {len(CHANGES)} ways, size and time kept where they can be: `train`, or `--resume`",
        "never trained on: made again from the source, the same bits, the checksum of the images as in the files",
    ).planned(6, 55)
    one, other = sets
    lab.environment["KLCLI_CACHE"] = str(tmp_path / "cache")
    for folder in (other, one):
        done = lab.run(*command(folder, tmp_path / f"whole {folder.name}" / "klcli.db"))
        assert done.code == 0, done.stderr
    expected = outcome(tmp_path / "whole one" / "klcli.db")
    sums = {checksum(folder) for folder in sets}
    assert expected["run"]["dataset_sha256"] == checksum(one)

    for number, rng in trials:
        copies = {file.stem: file for file in (tmp_path / "cache" / "prepared").glob("*.images")}
        if set(copies) != sums:  # the damage before has reached the other set, too
            assert lab.run(*command(other, tmp_path / f"again {number}" / "klcli.db")).code == 0
            copies = {file.stem: file for file in (tmp_path / "cache" / "prepared").glob("*.images")}
        assert set(copies) == sums
        change = CHANGES[number * 7 % len(CHANGES)]  # the small numbers are not all of one kind
        db, resumes = tmp_path / str(number) / "klcli.db", rng.random() < 0.4
        name = f"trial {number} ({change.__name__})"
        if resumes:
            process = lab.start(*command(one, db))
            process.wait_for("epoch 1/")
            process.kill_after(0)
        change(rng, copies[checksum_of(expected)], copies[(sums - {checksum_of(expected)}).pop()])
        found = run_of(db) if resumes else None
        again = resumes and found is not None and found["state"] != "complete"
        done = lab.run(*(("train", "--resume", "1", "--db", str(db)) if again else command(one, db)))
        run = 2 if resumes and not again else 1
        trials.expect(done.code == 0, f"{name}: exit {done.code}: {done.stderr[-300:]}")
        trials.expect(done.code != 0 or outcome(db, run) == expected, f"{name}: other images or other bits")
        trials.tried["resumed" if again else "trained"] += 1
    assert trials.lost == []


def checksum_of(expected: dict[str, dict[str, str]]) -> str:
    return expected["run"]["dataset_sha256"]


def test_sources_that_change(lab: Laboratory, row: Row, sets: tuple[Path, Path], tmp_path: Path) -> None:
    trials = row(
        "the images behind a prepared copy replaced, size and time kept; or the source gone and the copy damaged",
        "trained on what is there now, under its own checksum; without any source exit 3 and no run",
    ).planned(3, 20)
    one, _other = sets
    lab.environment["KLCLI_CACHE"] = str(tmp_path / "cache")
    assert lab.run(*command(one, tmp_path / "first" / "klcli.db")).code == 0
    for number, rng in trials:
        name, db = f"trial {number}", tmp_path / str(number) / "klcli.db"
        if number % 3 == 2:
            [copy] = [file for file in (tmp_path / "cache" / "prepared").glob("*.images") if file.stem == checksum(one)]
            one_bit(rng, copy, copy)
            away = one.rename(tmp_path / "away")
            done = lab.run(*command(one, db))
            trials.expect(done.code == 3, f"{name}: without a source: exit {done.code}: {done.stderr[-300:]}")
            trials.expect(run_of(db) is None, f"{name}: without a source: a run is recorded")
            away.rename(one)
            trials.tried["without a source"] += 1
        else:
            before, file = checksum(one), one / str(rng.choice(BINARY))
            state, at = file.stat(), int(rng.integers(file.stat().st_size))
            in_place(file, at, bytes([np.memmap(file, np.uint8, "r")[at] ^ 1]) if at % 3073 else b"\x05")
            if number % 3 == 1:  # by another file
                shutil.copy2(file, file.with_name("new"))
                file.with_name("new").replace(file)
            assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
            done = lab.run(*command(one, db))
            trials.expect(done.code == 0, f"{name}: exit {done.code}: {done.stderr[-300:]}")
            found = run_of(db)
            now = checksum(one)
            trials.expect(found is not None and found["dataset_sha256"] == now, f"{name}: {found}, there is {now}")
            trials.tried["changed" if now != before else "the same label as before"] += 1
    assert trials.lost == []
