"""Reading CIFAR-10: every layout, folder and archive, and a one-line message for every kind of damage."""

import gzip
import hashlib
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lookalike import (
    BINARY,
    MATLAB,
    PYTHON,
    ROWS,
    Cifar,
    binary_batch,
    matlab_batch,
    python_batch,
    refusal,
    tar,
    tar_gz,
    zipped,
)  # fmt: skip
from scipy.io import loadmat, savemat
from thinning import mostly_slow

from klcli.data.sources import open_dataset

Pack = Callable[[Path, dict[str, bytes]], Path]

# https://www.cs.toronto.edu/~kriz/cifar.html, of the six files of the python layout
PUBLISHED_MD5 = (
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",
)


def first_batch(cifar: Cifar) -> tuple[np.ndarray, np.ndarray]:
    return cifar.pixels[:ROWS], cifar.labels[:ROWS].astype(np.int64)


def pickled(cifar: Cifar, protocol: int = 2, **changes: object) -> bytes:
    """The first batch as Python 3 pickles it, with changed entries; None removes one."""
    pixels, labels = first_batch(cifar)
    batch = {"data": pixels, "labels": labels.tolist(), "batch_label": "training batch 1 of 5"} | changes
    return pickle.dumps({key: value for key, value in batch.items() if value is not None}, protocol)


def big_endian_matlab(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A file of format 5 as a machine of the other byte order writes it, spelt out."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    def variable(name: bytes, array: np.ndarray) -> bytes:
        flags = element(6, struct.pack(">II", 9, 0))  # uint8
        shape = element(5, struct.pack(">ii", *array.shape))
        return element(14, flags + shape + element(1, name) + element(2, array.tobytes(order="F")))

    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI"
    return header + variable(b"data", pixels) + variable(b"labels", labels[:, None])


def matlab_bomb() -> bytes:
    """A file of 200 kB with a variable of 200 MB."""
    packed = zlib.compress(struct.pack("<II", 14, 200 * 2**20) + bytes(200 * 2**20), 1)
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed


# --- what is read


@pytest.mark.parametrize(
    ("form", "layout"),
    [
        ("python", "python"),
        ("binary", "binary"),
        ("matlab", "matlab"),
        ("python_archive", "python archive"),
        ("binary_archive", "binary archive"),
        ("matlab_archive", "matlab archive"),
    ],
)
def test_every_form_gives_the_written_images(cifar: Cifar, form: str, layout: str) -> None:
    path = getattr(cifar, form)
    for _ in ("read", "from the prepared copy"):
        dataset = open_dataset(str(path))
        assert np.array_equal(dataset.images, cifar.pixels)
        assert np.array_equal(dataset.labels, cifar.labels)
        assert dataset.images.dtype == dataset.labels.dtype == np.uint8
        assert dataset.sha256 == hashlib.sha256(cifar.labels.tobytes() + cifar.pixels.tobytes()).hexdigest()
        assert (dataset.name, dataset.layout, dataset.official) == ("cifar10", layout, False)
        assert dataset.source == str(path)
        assert dataset.class_names[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_batch_that_python_3_has_written_again_is_the_same(cifar: Cifar, protocol: int) -> None:
    batch = pickle.loads(pickled(cifar))
    for content in (pickled(cifar, protocol), pickle.dumps({k.encode(): v for k, v in batch.items()}, protocol)):
        (cifar.python / PYTHON[0]).write_bytes(content)
        assert np.array_equal(open_dataset(str(cifar.python)).images, cifar.pixels)


@pytest.mark.slow  # 15 s
def test_the_official_images_are_the_same_in_matlabs_layout(cifar10: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Datasets" / "cifar-10-batches-mat"
    folder.mkdir(parents=True)
    for number, name in enumerate(PYTHON, 1):
        records = np.fromfile(cifar10 / "cifar-10-batches-bin" / f"{name}.bin", np.uint8).reshape(10_000, 3073)
        label = f"training batch {number} of 5" if number < 6 else "testing batch 1 of 1"
        content = {"data": records[:, 1:], "labels": records[:, :1], "batch_label": label}
        savemat(folder / f"{name}.mat", content, do_compression=True)
    packed = shutil.make_archive(str(tmp_path / "cifar"), "zip", tmp_path / "Datasets")
    expected = open_dataset(str(cifar10 / "cifar-10-batches-bin")).sha256
    assert {open_dataset(str(path)).sha256 for path in (folder, folder.parent, packed)} == {expected}


@pytest.mark.slow  # 2.5 s for 360 MB
def test_the_official_images_are_told_by_their_hash_in_both_layouts(cifar10: Path) -> None:
    python, binary = (open_dataset(str(cifar10 / f"cifar-10-batches-{name}")) for name in ("py", "bin"))
    files = [cifar10 / "cifar-10-batches-py" / name for name in PYTHON]
    is_published = tuple(hashlib.md5(file.read_bytes()).hexdigest() for file in files) == PUBLISHED_MD5
    assert python.official is binary.official is is_published
    assert python.sha256 == binary.sha256
    assert python.class_names == binary.class_names
    assert np.bincount(python.labels[:50_000]).tolist() == [5000] * 10
    assert np.bincount(python.labels[50_000:]).tolist() == [1000] * 10


def test_a_set_is_found_below_its_parent(cifar: Cifar) -> None:
    assert open_dataset(str(cifar.root)).source == str(cifar.python)
    # A complete folder is better than an incomplete one of the other layout, an archive better than half a folder.
    (cifar.python / "data_batch_3").unlink()
    assert open_dataset(str(cifar.root)).source == str(cifar.binary)
    (cifar.binary / "test_batch.bin").unlink()
    assert open_dataset(str(cifar.root)).source == str(cifar.matlab)
    (cifar.matlab / "data_batch_1.mat").unlink()
    assert open_dataset(str(cifar.root)).source == str(cifar.python_archive)


@pytest.mark.parametrize("form", ["python", "binary", "matlab"])
@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.tar", tar),
        ("a.tgz", tar_gz),
        ("a.tar.xz", lambda path, files: tar(path, files, "xz")),
        ("a.tar.bz2", lambda path, files: tar(path, files, "bz2")),
        ("a.zip", zipped),
        ("cifar-10-batches-py_archive", tar_gz),  # Keras 3's name
    ],
)
@pytest.mark.parametrize("folder", mostly_slow(["./x/y/../z/", "", "cifar-10-batches-bin/"], 3))
def test_every_archive_of_every_layout_is_read(
    cifar: Cifar, tmp_path: Path, form: str, name: str, pack: Pack, folder: str
) -> None:
    """Whatever its name, whatever else is in it."""
    files = {f"{folder}{file.name}": file.read_bytes() for file in sorted(getattr(cifar, form).iterdir())}
    others = {f"{folder}readme.html": b"<html>", f"__MACOSX/{folder}._test_batch": b"fork", "old/data_batch_3": b"half"}
    dataset = open_dataset(str(pack(tmp_path / name, others | files)))
    assert np.array_equal(dataset.images, cifar.pixels)
    assert np.array_equal(dataset.labels, cifar.labels)
    assert (dataset.layout, dataset.source) == (f"{form} archive", str(tmp_path / name))


@pytest.mark.parametrize(
    "below",
    ["cifar-10-batches-py", "cifar-10-batches-py/cifar-10-batches-py", "x/y/cifar-10-batches-bin", "deep/er/est"],
)
def test_nested_folders_are_searched(cifar: Cifar, tmp_path: Path, below: str) -> None:
    place = tmp_path / "given" / below
    shutil.copytree(cifar.binary, place)
    (tmp_path / "given" / "loop").symlink_to(tmp_path / "given")
    (tmp_path / "given" / "self").symlink_to("self")
    dataset = open_dataset(str(tmp_path / "given"))
    assert dataset.source == str(place)
    assert np.array_equal(dataset.images, cifar.pixels)


def test_matlab_files_of_other_writers(cifar: Cifar) -> None:
    """Not compressed, with labels of another integer type, from a machine of the other byte order."""
    pixels, labels = first_batch(cifar)
    file = cifar.matlab / MATLAB[0]
    savemat(file, {"data": pixels, "labels": labels[:, None].astype(np.int32)}, do_compression=False)
    assert np.array_equal(open_dataset(str(cifar.matlab)).images, cifar.pixels)
    file.write_bytes(big_endian_matlab(pixels, labels.astype(np.uint8)))
    assert loadmat(file)["labels"].ravel().tolist() == labels.tolist()
    assert np.array_equal(open_dataset(str(cifar.matlab)).images, cifar.pixels)


def test_names_that_point_elsewhere_have_no_effect(cifar: Cifar, tmp_path: Path) -> None:
    """Only the last part of a name in an archive counts, and nothing is unpacked."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = {f"../../{name}": (cifar.binary / name).read_bytes() for name in BINARY}
    path = tar_gz(tmp_path / "deep" / "er" / "a.tar.gz", files)
    assert np.array_equal(open_dataset(str(path)).labels, cifar.labels)
    unpacked = [file for file in tmp_path.rglob("*.bin") if cifar.binary not in file.parents]
    assert unpacked == []


# --- damaged batch files


def with_label(label: object, write: Callable[[np.ndarray, np.ndarray], bytes]) -> Callable[[Cifar], bytes]:
    def content(cifar: Cifar) -> bytes:
        pixels, labels = first_batch(cifar)
        labels[12] = label
        return write(pixels, labels)

    return content


SIZE = ROWS * 3073
BINARY_DAMAGE: list[tuple[Callable[[Cifar], bytes], str]] = [
    (lambda cifar: binary_batch(*first_batch(cifar))[:-1], f"{SIZE - 1} bytes where {SIZE}"),
    (lambda cifar: binary_batch(*first_batch(cifar)) + b"\0", f"{SIZE + 1} bytes where {SIZE}"),
    (lambda cifar: b"", f"0 bytes where {SIZE}"),
    (lambda cifar: b"<!DOCTYPE html><html>", f"21 bytes where {SIZE}"),
    (lambda cifar: bytes(SIZE), f"all {ROWS} labels are 0"),  # space that was reserved and never written
    (with_label(17, binary_batch), "label 17 in row 12"),
]
MATLAB_DAMAGE: list[tuple[Callable[[Cifar], bytes], str]] = [
    (with_label(17, matlab_batch), "label 17 in row 12"),
    (lambda cifar: matlab_batch(*first_batch(cifar))[:-50], "not a readable file of Matlab"),
    (lambda cifar: b"", "not a readable file of Matlab"),
    (lambda cifar: b"<html>Please log in", "not a readable file of Matlab"),
    (lambda cifar: matlab_batch(*first_batch(cifar), labels=[[1.5]]), "'labels' is float64"),
    (lambda cifar: matlab_batch(*first_batch(cifar), data={"a": {"b": [1]}}), "'data' is"),
    (lambda cifar: matlab_batch(*first_batch(cifar), fine_labels=[[1]]), "CIFAR-100"),
    (lambda cifar: matlab_bomb(), "not a readable file of Matlab (it is incomplete, or larger"),
    (lambda cifar: b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF", "save -v7"),
]
PYTHON_DAMAGE: list[tuple[Callable[[Cifar], bytes], str]] = [
    (with_label(17, python_batch), "label 17 in row 12"),
    (with_label(-1, python_batch), "label -1 in row 12"),
    (with_label(259, python_batch), "label 259 in row 12"),  # a 3 in eight bits
    (lambda cifar: python_batch(*first_batch(cifar))[:-5], "not a readable pickle"),
    (lambda cifar: b"", "not a readable pickle"),
    (lambda cifar: b"<html>Please log in", "not a readable pickle"),
    (lambda cifar: pickled(cifar, labels=["cat"] * ROWS), "'labels' is <U3"),
    (lambda cifar: pickled(cifar, labels=[2.0] * ROWS), "'labels' is float64"),
    (lambda cifar: pickled(cifar, labels=[10**30] * ROWS), "'labels' is object"),
    (lambda cifar: pickled(cifar, labels=[[1], [1, 2]] * 10), "'labels' is not an array"),
    (lambda cifar: pickled(cifar, labels=[1] * (ROWS - 1)), f"shape ({ROWS - 1},) where integer of shape ({ROWS},)"),
    (lambda cifar: pickled(cifar, labels=None), "no entry 'labels'"),
    (lambda cifar: pickled(cifar, data=None), "no entry 'data'"),
    (lambda cifar: pickled(cifar, data=cifar.pixels[:ROWS] * 1.0), f"float64 of shape ({ROWS}, 3072)"),
    (lambda cifar: pickled(cifar, data=cifar.pixels[1:ROWS]), f"uint8 of shape ({ROWS - 1}, 3072)"),
    (lambda cifar: pickled(cifar, data=[1]), "'data' is int64 of shape (1,)"),
    (lambda cifar: pickled(cifar, fine_labels=[1]), "CIFAR-100"),
    (lambda cifar: pickle.dumps([1]), "a list instead of a dictionary"),
]


@pytest.mark.parametrize("packed", mostly_slow([False, True], 2), ids=["folder", "archive"])
@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        *[("data_batch_1.bin", *case) for case in BINARY_DAMAGE],
        *[("data_batch_1", *case) for case in PYTHON_DAMAGE],
        *[("data_batch_1.mat", *case) for case in MATLAB_DAMAGE],
    ],
)
def test_a_damaged_batch_is_named(
    cifar: Cifar, tmp_path: Path, packed: bool, name: str, content: Callable[[Cifar], bytes], named: str
) -> None:
    folder = next(folder for folder in (cifar.python, cifar.binary, cifar.matlab) if (folder / name).exists())
    (folder / name).write_bytes(content(cifar))
    path, where = folder, f"{folder / name}"
    if packed:
        path = tar_gz(tmp_path / "a.tar.gz", {file.name: file.read_bytes() for file in sorted(folder.iterdir())})
        where = f"{name} in {path}"
    message = refusal(path)
    assert message.startswith(where)
    assert named in message


class Exploit:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.skipif(os.name != "posix", reason="touch is a program of POSIX")
@pytest.mark.parametrize("name", ["system", "open"])
def test_a_pickle_cannot_run_code(cifar: Cifar, name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    args = (f"touch {marker}",) if name == "system" else (str(marker), os.O_CREAT)
    content = pickle.dumps({"data": Exploit(getattr(os, name), *args)}, protocol=2)
    (cifar.python / "data_batch_2").write_bytes(content)
    message = refusal(cifar.python)
    assert f"data_batch_2 is not a readable pickle (it asks for posix.{name}" in message
    assert "do not trust this copy" in message
    assert not marker.exists()
    # The pickle is a real exploit: the standard loader obeys it.
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cbuiltins\neval\n.", "asks for builtins.eval"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "asks for numpy.core.multiarray.fromfile"),
        (b"cnumpy\nload\n.", "asks for numpy.load"),
        (b"c_codecs\ndecode\n.", "asks for _codecs.decode"),
        (b"c_codecs\nencode\n(X\x01\0\0\0aX\x03\0\0\0hextR.", "asks for the codec hex"),
        (b"cnumpy.core\nnumeric.ndarray\n.", "asks for numpy.core.numeric.ndarray"),
        (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + b"I999999999999\n" * 3 + b"\x87U\x01b\x87R.", ""),
        pytest.param(b"\x80\x02Nr\xff\xff\xff\x3f.", "a NoneType instead", id="a memo of 16 GB"),
        pytest.param(b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.", "nests tuples", id="a stack of tuples as a key"),
        pytest.param(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", "not a readable pickle", id="a text of 280 TB"),
        *[(start + np.random.default_rng(7).bytes(200), "") for start in (b"", b"\x80\x02", b"\x80\x04\x95", b"}(")],
    ],
)
def test_a_hostile_pickle_is_refused(cifar: Cifar, content: bytes, named: str) -> None:
    (cifar.python / "test_batch").write_bytes(content)
    assert named in refusal(cifar.python)


# --- what is no set


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: content[:5000] + b"garbage" + content[5007:],  # pixels, which have no other checksum
        lambda content: content[:-8] + bytes(4) + content[-4:],  # the checksum of gzip
        lambda content: gzip.compress(b"no tar"),
        lambda content: gzip.compress(b""),
        lambda content: b"<!DOCTYPE html>\n<html><body>404",
        lambda content: b"",
    ],
)
def test_a_broken_archive_is_called_so(cifar: Cifar, damage: Callable[[bytes], bytes]) -> None:
    path = cifar.binary_archive
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(path)
    assert message.startswith(f"{path} ")
    assert "archive" in message


def test_what_lacks_is_named(cifar: Cifar, tmp_path: Path) -> None:
    (cifar.binary / "data_batch_4.bin").unlink()
    assert f"{cifar.binary} lacks data_batch_4.bin:" in refusal(cifar.binary)
    (cifar.binary / "data_batch_4.bin").mkdir()
    assert f"{cifar.binary} lacks data_batch_4.bin (no regular file):" in refusal(cifar.binary)
    path = tar_gz(tmp_path / "a.tar.gz", {f"x/{name}": (cifar.python / name).read_bytes() for name in PYTHON[1:]})
    assert f"{path} lacks data_batch_1:" in refusal(path)
    path = tar_gz(tmp_path / "b.tar.gz", {"readme.txt": b"hello"})
    assert "holds no CIFAR-10" in refusal(path)
    assert "is one batch file: give the folder" in refusal(cifar.python / "data_batch_1")
    assert "does not exist" in refusal(tmp_path / "nowhere")
    shutil.rmtree(cifar.root)
    cifar.root.mkdir()
    assert "holds no CIFAR-10" in refusal(cifar.root)


def test_a_huge_file_is_not_read(cifar: Cifar) -> None:
    with (cifar.binary / "test_batch.bin").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no space
    assert f"{2**40} bytes" in refusal(cifar.binary)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_permission(cifar: Cifar) -> None:
    for path in (cifar.binary_archive, cifar.binary / "data_batch_2.bin"):
        path.chmod(0)
        assert f"{path} cannot be read (Permission denied)" in refusal(path if path.suffix == ".gz" else cifar.binary)
