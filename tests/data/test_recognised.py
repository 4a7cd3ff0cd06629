"""What people have instead of CIFAR-10 is named, with the cure, in a folder, in an archive and alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lookalike import Cifar, python_batch, refusal, tar_gz, zipped


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("write", [folder, tar_gz, zipped])
@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"], "CIFAR-100"),
        (["cifar-100-python.tar.gz"], "CIFAR-100"),
        (["train.bin", "test.bin", "coarse_label_names.txt"], "CIFAR-100"),
        (["cifar-100-matlab/train.mat", "cifar-100-matlab/test.mat"], "CIFAR-100"),
        (["plain_text/train-00000-of-00001.parquet", "README.md"], "Hugging Face"),
        (["3.0.2/cifar10-train.tfrecord-00000-of-00001", "3.0.2/features.json"], "TFRecords"),
        (["train.7z", "test.7z", "trainLabels.csv", "sampleSubmission.csv"], "Kaggle"),
        (["train/airplane/0001.png", "test/cat/0002.png"], "separate pictures"),
        (["cifar10.npz"], "NumPy arrays"),
        (["cifar-10-python.tar.gz.part"], "unfinished download"),
        (["deep/er/photos.zip"], "another archive"),
        (["notes.txt"], "holds no CIFAR-10"),
        ([], "holds no CIFAR-10"),
    ],
)
def test_the_content_of_a_folder_or_archive(
    cifar: Cifar, tmp_path: Path, write: Callable[..., Path], names: list[str], named: str
) -> None:
    (tmp_path / "given").mkdir()
    place = tmp_path / "given" if write is folder else tmp_path / "given.archive"
    message = refusal(write(place, dict.fromkeys(names, b"x")))
    assert named in message
    assert ": " in message


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("cifar-10-python.tar.gz", b"<!DOCTYPE html>\n<html>", "web page"),
        ("cifar-10-python.tar.gz", b"\xef\xbb\xbf\n  <HTML>", "web page"),
        ("cifar-10-python.tar.gz", b"", "empty"),
        ("cifar-10-python.tar.gz", bytes(2000), "not an archive that klcli can read"),
        ("cifar-10-python.tar.gz.part", b"", "empty"),
        ("cifar-10-python.tar.part", b"some", "unfinished download"),
        ("cifar.7z", b"7z\xbc\xaf\x27\x1c\0\4", "7z archive: unpack it"),
        ("cifar.rar", b"Rar!\x1a\x07\x01\0", "RAR archive: unpack it"),
        ("cifar.tar.zst", b"\x28\xb5\x2f\xfd", "Zstandard archive: unpack it"),
        ("train.parquet", b"PAR1\x15", "Parquet"),
        ("cifar.h5", b"\x89HDF\r\n", "HDF5"),
        ("images.npy", b"\x93NUMPY\1\0", "NumPy array"),
        ("cat.png", b"\x89PNG\r\n\x1a\n", "klcli predict"),
        ("cat.jpg", b"\xff\xd8\xff\xe0", "klcli predict"),
        ("data_batch_1.bin", b"version https://git-lfs.github.com/spec/v1", "one batch file"),
        ("cifar.zip", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("train.bin", b"\1\2\3", "file of CIFAR-100"),
        ("test_batch.mat", b"MATLAB 5.0", "one batch file: give the folder that holds all 6"),
    ],
)
def test_a_single_file(cifar: Cifar, tmp_path: Path, name: str, content: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert named in refusal(path)


def test_cifar_100_under_the_names_of_cifar_10(cifar: Cifar) -> None:
    """In the python layout, the batch itself tells."""
    content = python_batch(cifar.pixels[:20], cifar.labels[:20]).replace(b"U\6labels", b"U\x0bfine_labels")
    (cifar.python / "data_batch_1").write_bytes(content)
    assert "CIFAR-100" in refusal(cifar.python)
