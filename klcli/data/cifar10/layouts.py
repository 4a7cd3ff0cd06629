"""The layouts in which CIFAR-10 is published, https://www.cs.toronto.edu/~kriz/cifar.html: files and checksums."""

from dataclasses import dataclass
from pathlib import Path

from klcli.files import exists

CIFAR10 = "cifar10"  # the name of the data set
ROWS = 10_000  # images in each batch file
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# `dataset.content_sha256` of the official files, whose MD5 is published. All layouts contain the same images.
OFFICIAL_SHA256 = "4d2b00a5ea5fa914ca904148ae475358281424b8971f61b1513f1547572b75a8"


def is_official(name: str, sha256: str) -> bool | None:
    """Whether a data set has the published images, by its `content_sha256`; None for the built-in set."""
    return sha256 == OFFICIAL_SHA256 if name == CIFAR10 else None


@dataclass(frozen=True)
class Layout:
    """One published layout: a folder of six batch files, packed in one archive."""

    name: str  # "python", "binary" or "matlab"
    folder: str
    batch_files: tuple[str, ...]  # training batches 1 to 5, then the test batch
    archive: str
    archive_md5: str


def _layout(name: str, end: str, suffix: str, archive_md5: str) -> Layout:
    files = *(f"data_batch_{number}{suffix}" for number in range(1, 6)), f"test_batch{suffix}"
    return Layout(name, f"cifar-10-batches-{end}", files, f"cifar-10-{name}.tar.gz", archive_md5)


LAYOUTS = PYTHON, BINARY, MATLAB = (  # in order of preference
    _layout("python", "py", "", "c58f30108f718f92721af3b95e74349a"),
    _layout("binary", "bin", ".bin", "c32a1d4ab5d03f1284b67883e8d87530"),
    _layout("matlab", "mat", ".mat", "70270af85842c9e89bb428ec9976c926"),
)
LAYOUT_OF = {name: layout for layout in LAYOUTS for name in layout.batch_files}


def fetched(cache: Path) -> list[Path]:
    """Return the archives that `klcli data fetch` has put into the cache, the one fetched last first."""
    archives = filter(exists, (cache / layout.archive for layout in LAYOUTS))
    return sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)
