"""Prepared copies: made once, mapped afterwards, made again when the source changes or the copy is damaged."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lookalike import BINARY, ROWS, Cifar, tar

from klcli.data import sources
from klcli.data.cifar10 import prepared
from klcli.data.sources import open_dataset
from klcli.errors import DataError
from klcli.procedures.cache import CURRENT, kept


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "prepared").glob("*.images"))


def note_of(cache: Path) -> Path:
    [note] = (cache / "prepared").glob("*.json")
    return note


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were read in full, one entry each time."""
    done: list[str] = []
    read = sources.read

    def counted(source: object, advance: Callable[[int], None]) -> object:
        done.append(str(source.path))  # type: ignore[attr-defined]
        return read(source, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "read", counted)
    return done


def test_the_second_load_is_mapped(cifar: Cifar, empty_machine: Path, reads: list[str]) -> None:
    first, second = open_dataset(str(cifar.binary)), open_dataset(str(cifar.binary))
    assert len(reads) == 1
    assert copies(empty_machine) == [second.images_file]
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    for dataset in (first, second):
        assert np.array_equal(dataset.images, cifar.pixels)
        assert np.array_equal(dataset.labels, cifar.labels)
    for field in ("name", "class_names", "sha256", "source", "layout", "official", "images_file"):
        assert getattr(first, field) == getattr(second, field), field
    assert len(list((empty_machine / "prepared").iterdir())) == 2


def test_the_name_of_a_copy_is_the_checksum_of_its_bytes(cifar: Cifar, empty_machine: Path) -> None:
    dataset = open_dataset(str(cifar.binary))
    [copy] = copies(empty_machine)
    assert copy.stem == dataset.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()


def test_the_work_is_announced_once(cifar: Cifar, empty_machine: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        open_dataset(str(cifar.binary), said.append)
    [line] = said
    assert "preparing" in line and str(cifar.binary) in line
    assert "once" in line and "184 MB" in line and str(empty_machine / "prepared") in line


# --- a change of the source


def other_pixel(content: bytes) -> bytes:
    """The same batch with a single bit of a pixel changed, the size unchanged."""
    return content[:1] + bytes([content[1] ^ 1]) + content[2:]


def in_place(file: Path) -> None:
    with file.open("r+b") as opened:
        content = other_pixel(opened.read())
        opened.seek(0)
        opened.write(content)


def in_place_with_its_time(file: Path) -> None:
    state = file.stat()
    in_place(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def replaced_by_a_copy_with_its_time(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(other_pixel(file.read_bytes()))
    shutil.copystat(file, other)
    other.replace(file)


def copied_over_with_its_time(file: Path) -> None:
    """As `cp -p`: the inode stays."""
    other = file.with_name("other")
    other.write_bytes(other_pixel(file.read_bytes()))
    shutil.copystat(file, other)
    shutil.copy2(other, file)


def swapped_with_its_neighbour(file: Path) -> None:
    """Both files have one size and, since they were unpacked from an archive, one time."""
    neighbour, aside = file.with_name("data_batch_1.bin"), file.with_name("aside")
    file.rename(aside)
    neighbour.rename(file)
    aside.rename(neighbour)


def behind_a_link(file: Path) -> None:
    """The folder is the same link as before, to another folder."""
    link, target = file.parent, file.parent.resolve()
    other = target.with_name("other folder")
    shutil.copytree(target, other)
    replaced_by_a_copy_with_its_time(other / file.name)
    link.unlink()
    link.symlink_to(other)


@pytest.mark.parametrize(
    "change",
    [
        in_place,
        in_place_with_its_time,
        replaced_by_a_copy_with_its_time,
        copied_over_with_its_time,
        swapped_with_its_neighbour,
        behind_a_link,
    ],
)
def test_a_change_of_the_source_is_noticed(
    change: Callable[[Path], None], cifar: Cifar, empty_machine: Path, reads: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "link"
    folder.symlink_to(cifar.binary)
    for file in cifar.binary.iterdir():
        os.utime(file, ns=(10**18, 10**18))
    first = open_dataset(str(folder))
    change(folder / "test_batch.bin")
    second = open_dataset(str(folder))
    assert len(reads) == 2
    pixels = np.concatenate(
        [np.frombuffer((folder / name).read_bytes(), np.uint8).reshape(ROWS, -1) for name in BINARY]
    )
    assert np.array_equal(second.images, pixels[:, 1:])
    assert second.sha256 == hashlib.sha256(pixels[:, 0].tobytes() + pixels[:, 1:].tobytes()).hexdigest() != first.sha256
    assert copies(empty_machine) == [second.images_file]  # the outdated copy is gone


def test_an_archive_of_the_same_size_and_time_is_noticed(cifar: Cifar, tmp_path: Path) -> None:
    contents = [(cifar.binary / name).read_bytes() for name in BINARY]
    path = tmp_path / "cifar.tar"
    seen = []
    for own in (contents, [other_pixel(contents[0]), *contents[1:]]):
        made = tar(tmp_path / "made.tar", dict(zip(BINARY, own, strict=True)))
        os.utime(made, ns=(10**18, 10**18))
        made.replace(path)
        seen.append((path.stat().st_size, path.stat().st_mtime_ns, open_dataset(str(path)).sha256))
    assert seen[0][:2] == seen[1][:2]
    assert seen[0][2] != seen[1][2]


def test_the_source_is_the_one_in_use(cifar: Cifar, empty_machine: Path, reads: list[str], tmp_path: Path) -> None:
    """The same images in two folders and behind a link share one copy; a moved folder needs no new one."""
    twin, link, moved = tmp_path / "twin", tmp_path / "link", tmp_path / "moved"
    shutil.copytree(cifar.binary, twin)
    link.symlink_to(twin)
    opened = [open_dataset(str(path)) for path in (cifar.binary, twin, link, cifar.binary)]
    twin.rename(moved)
    opened.append(open_dataset(str(moved)))
    assert [dataset.source for dataset in opened] == list(map(str, (cifar.binary, twin, link, cifar.binary, moved)))
    assert len({dataset.sha256 for dataset in opened}) == len(copies(empty_machine)) == 1
    assert reads == [str(cifar.binary), str(twin)]


def test_copies_that_nothing_needs_are_removed(cifar: Cifar, empty_machine: Path, tmp_path: Path) -> None:
    folder = empty_machine / "prepared"
    folder.mkdir(parents=True)
    for name in (f"{'a' * 64}.npy", f"{'a' * 64}.json"):  # of an earlier klcli
        (folder / name).write_text('{"source": "/x", "labels": "00"}')
    other = tmp_path / "other"
    shutil.copytree(cifar.binary, other)
    in_place(other / "test_batch.bin")
    kept, gone = open_dataset(str(cifar.binary)), open_dataset(str(other))
    assert len(list(folder.iterdir())) == 4
    shutil.rmtree(other)
    in_place(cifar.binary / "test_batch.bin")
    now = open_dataset(str(cifar.binary))
    assert now.sha256 == gone.sha256 != kept.sha256
    assert copies(empty_machine) == [now.images_file]
    assert len(list(folder.iterdir())) == 2


def test_what_is_prepared_while_others_are_looked_through_stays(
    cifar: Cifar, empty_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, after this one has read the notes: its note was removed, or its copy was nobody's."""
    others = [tmp_path / "other", tmp_path / "another"]
    for count, other in enumerate(others):
        shutil.copytree(cifar.binary, other)
        for file in [other / "test_batch.bin", other / "data_batch_1.bin"][: count + 1]:
            in_place(file)
    notes, left, done = prepared.notes, others.copy(), []

    def and_another_is_prepared() -> Iterator[dict[str, str]]:
        yield from notes()
        if left:
            done.append(open_dataset(str(left.pop())).sha256)

    monkeypatch.setattr(prepared, "notes", and_another_is_prepared)
    done.append(open_dataset(str(cifar.binary)).sha256)
    assert left == []
    assert [file.stem for file in copies(empty_machine)] == sorted(done)
    assert len({*done}) == 3
    assert len(list((empty_machine / "prepared").iterdir())) == 6
    shutil.copytree(cifar.binary, tmp_path / "last")
    in_place(tmp_path / "last" / "data_batch_2.bin")
    left.append(tmp_path / "last")
    found = kept()
    assert left == []
    assert {one.state for one in found} == {CURRENT}
    assert len([one for one in kept() if one.path.suffix == prepared.SUFFIX]) == 4


# --- damage of the copy


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def inverted(start: int, count: int) -> Callable[[Path], None]:
    """Invert bytes, and leave size and time as they were."""

    def apply(file: Path) -> None:
        state, content = file.stat(), bytearray(file.read_bytes())
        part = slice(start % len(content), start % len(content) + count)
        content[part] = bytes(255 - byte for byte in content[part])
        file.write_bytes(content)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    return apply


def other_note(**change: object) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        note = note_of(file.parent.parent)
        note.write_text(json.dumps(json.loads(note.read_text()) | change))

    return apply


def note_with(content: bytes) -> Callable[[Path], None]:
    return lambda file: note_of(file.parent.parent).write_bytes(content) and None


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "damage",
    [
        cut,
        inverted(0, 1),  # the first label
        inverted(6 * ROWS, 200 * 3072),
        inverted(-1, 1),
        lambda file: file.write_bytes(file.read_bytes() + b"\0"),
        lambda file: file.write_bytes(bytes(file.stat().st_size)),
        lambda file: file.write_bytes(b""),
        Path.unlink,
        a_pipe,
        lambda file: note_of(file.parent.parent).unlink(),
        note_with(b"{"),
        note_with(b"[]"),
        note_with(b"\xff\xfe\x00"),
        note_with(b"[" * 60_000),
        other_note(sha256="a" * 64),
        other_note(sha256="../../../x"),
        other_note(sha256=7),
        other_note(key="of another source"),
    ],
)
def test_a_damaged_copy_is_made_again(
    damage: Callable[[Path], None], cifar: Cifar, empty_machine: Path, reads: list[str]
) -> None:
    open_dataset(str(cifar.binary))
    (copy,) = copies(empty_machine)
    damage(copy)
    for _ in range(2):
        again = open_dataset(str(cifar.binary))
        assert np.array_equal(again.images, cifar.pixels)
        assert np.array_equal(again.labels, cifar.labels)
        assert len(reads) == 2
    assert copies(empty_machine) == [copy]


def test_notes_that_were_exchanged_are_not_believed(cifar: Cifar, empty_machine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(cifar.binary, other)
    in_place(other / "test_batch.bin")
    expected = [open_dataset(str(path)).sha256 for path in (cifar.binary, other)]
    first, second = (empty_machine / "prepared").glob("*.json")
    swapped = second.read_bytes(), first.read_bytes()
    for note, content in zip((first, second), swapped, strict=True):
        note.write_bytes(content)
    assert [open_dataset(str(path)).sha256 for path in (cifar.binary, other)] == expected


def test_without_its_source_a_damaged_copy_is_useless(cifar: Cifar, empty_machine: Path) -> None:
    open_dataset(str(cifar.binary))
    inverted(6 * ROWS, 3072)(copies(empty_machine)[0])
    (cifar.binary / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_2\.bin"):
        open_dataset(str(cifar.binary))


def test_a_copy_whose_place_is_taken_is_not_used(cifar: Cifar, empty_machine: Path) -> None:
    open_dataset(str(cifar.binary))
    a_folder(copies(empty_machine)[0])
    dataset = open_dataset(str(cifar.binary))
    assert dataset.images_file is None
    assert np.array_equal(dataset.images, cifar.pixels)


def test_without_a_writable_cache_the_images_stay_in_memory(cifar: Cifar, empty_machine: Path) -> None:
    empty_machine.write_text("a file where the folder should be")
    said: list[str] = []
    dataset = open_dataset(str(cifar.binary), said.append)
    assert dataset.images_file is None
    assert np.array_equal(dataset.images, cifar.pixels)
    assert f"{empty_machine / 'prepared'}: cannot be written (" in said[1] and "KLCLI_CACHE" in said[1]


def test_a_full_disk_leaves_nothing_behind(cifar: Cifar, empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert open_dataset(str(cifar.binary)).images_file is None
    assert [file for file in empty_machine.rglob("*") if file.is_file()] == []


def test_what_killed_processes_left_is_removed(cifar: Cifar, empty_machine: Path) -> None:
    folder = empty_machine / "prepared"
    folder.mkdir(parents=True)
    left, written = folder / ".x.npy.0123456789abcdef", folder / ".y.npy.0123456789abcdef"
    left.touch()
    os.utime(left, (0, 0))
    written.touch()
    open_dataset(str(cifar.binary))
    assert not left.exists()
    assert written.exists()  # another process may be writing it
