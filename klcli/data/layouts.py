"""The two layouts in which CIFAR-10 is published: their file names and checksums.

Source: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from dataclasses import dataclass

ROWS = 10_000  # images in each batch file

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Layout:
    """One published layout: a folder of six batch files, packed in one archive."""

    name: str  # "python" or "binary"
    folder: str
    batch_files: tuple[str, ...]  # training batches 1 to 5, then the test batch
    batch_md5: tuple[str, ...]  # of the batch files, in the same order; empty where none are published
    meta_file: str  # the class names
    archive: str
    archive_md5: str


PYTHON = Layout(
    name="python",
    folder="cifar-10-batches-py",
    batch_files=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"),
    batch_md5=(
        "c99cafc152244af753f735de768cd75f",
        "d4bba439e000b95fd0a9bffe97cbabec",
        "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a",
        "482c414d41f54cd18b22e5b47cb7c3cb",
        "40351d587109b95175f43aff81a1287e",
    ),
    meta_file="batches.meta",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
)

BINARY = Layout(
    name="binary",
    folder="cifar-10-batches-bin",
    batch_files=tuple(f"{name}.bin" for name in PYTHON.batch_files),
    batch_md5=(),
    meta_file="batches.meta.txt",
    archive="cifar-10-binary.tar.gz",
    archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
)

LAYOUTS = (PYTHON, BINARY)  # in order of preference: the checksums of the first can tell an official copy
