"""What a file or folder is that klcli recognises and cannot read as CIFAR-10, and what to do about it."""

from collections.abc import Iterable
from pathlib import PurePath

from klcli.data.cifar10.layouts import LAYOUTS

DOWNLOAD = "download CIFAR-10 with `klcli data fetch`"
UNPACK = "unpack it and give the folder"
PUBLISHED = f"{DOWNLOAD}, or give the folder or archive of its python, binary or Matlab version"
UNFINISHED = (".part", ".crdownload", ".download", ".partial", ".tmp")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

STARTS = {  # the first bytes of a format, what it is, and the cure
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", UNPACK),
    b"Rar!\x1a\x07": ("is a RAR archive", UNPACK),
    b"\x28\xb5\x2f\xfd": ("is a Zstandard archive", UNPACK),
    b"\x1f\x9d": ("is a .Z archive", UNPACK),
    b"PAR1": ("is a Parquet table, as of Hugging Face", PUBLISHED),
    b"ARROW1": ("is an Arrow table, as of Hugging Face", PUBLISHED),
    b"\x89HDF": ("is an HDF5 file", PUBLISHED),
    b"\x93NUMPY": ("is a NumPy array", PUBLISHED),
    b"\x89PNG": ("is a picture", "classify it with `klcli predict`"),
    b"\xff\xd8\xff": ("is a picture", "classify it with `klcli predict`"),
    b"version https://git-lfs": ("is a pointer of Git LFS", "fetch its content with `git lfs pull`"),
}
ENDINGS = {  # of the files in a folder or archive
    (".parquet", ".arrow"): ("holds tables of Hugging Face", PUBLISHED),
    (".npz", ".npy"): ("holds NumPy arrays", PUBLISHED),
    (".h5", ".hdf5"): ("holds HDF5 files", PUBLISHED),
    (".tfrecord",): ("holds TFRecords of TensorFlow", PUBLISHED),
    UNFINISHED: ("holds an unfinished download", PUBLISHED),
    (".7z", ".rar", ".zst", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zip"): (
        "holds another archive", "unpack that one, or give it alone"),
    PICTURES: ("holds the images as separate pictures", PUBLISHED),
}  # fmt: skip
CIFAR100 = ({"train", "test", "meta"}, {"train.bin", "test.bin"}, {"train.mat", "test.mat"})


def cure_for_file(name: str, start: bytes) -> str:
    """Return what a file is that is no archive, from its name and first bytes, and the cure."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_page = text.startswith((b"<!doctype", b"<html", b"<?xml"))
    cases = [  # the first that is true
        (not start, "is empty", DOWNLOAD),
        (is_page, "is not a .tar.gz archive but a web page", DOWNLOAD),
        *((start.startswith(magic), what, cure) for magic, (what, cure) in STARTS.items()),
        (name.lower().endswith(UNFINISHED), "is an unfinished download", DOWNLOAD),
        (name in set.union(*CIFAR100), "is a file of CIFAR-100", PUBLISHED),
        (True, "is not an archive that klcli can read, or a damaged one", PUBLISHED),
    ]
    return next(f"{what}: {cure}" for is_true, what, cure in cases if is_true)


def cure_for_names(names: Iterable[PurePath]) -> str:
    """Return what a folder or archive with these files is instead of CIFAR-10, and the cure."""
    there = {*names}
    groups = [(name.parent, group) for name in there for group in CIFAR100 if name.name in group]
    complete = any(all(folder / file in there for file in group) for folder, group in groups)
    if complete or any("cifar-100" in str(name).lower() for name in there):
        return f"holds CIFAR-100: {PUBLISHED}"
    if any(name.name == "trainLabels.csv" for name in there):
        return f"holds the pictures of Kaggle's competition, whose test labels are not public: {PUBLISHED}"
    endings = {name.suffix.lower().partition("-")[0] for name in there}  # without a number, as .tfrecord-00000-of-00001
    for known, (what, cure) in ENDINGS.items():
        if endings.intersection(known):
            return f"{what}: {cure}"
    return f"holds no CIFAR-10: give the folder {' or '.join(layout.folder for layout in LAYOUTS)}, or the archive"
