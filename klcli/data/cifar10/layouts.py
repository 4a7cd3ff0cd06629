"""The two layouts in which CIFAR-10 is published: their file names and checksums.

Source: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from dataclasses import dataclass
from pathlib import Path

ROWS = 10_000  # images in each batch file
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# `dataset.content_sha256` of the official files, whose MD5 is published. Both layouts contain the same images.
OFFICIAL_SHA256 = "4d2b00a5ea5fa914ca904148ae475358281424b8971f61b1513f1547572b75a8"


@dataclass(frozen=True)
class Layout:
    """One published layout: a folder of six batch files, packed in one archive."""

    name: str  # "python" or "binary"
    folder: str
    batch_files: tuple[str, ...]  # training batches 1 to 5, then the test batch
    archive: str
    archive_md5: str

    def files_in(self, folder: Path) -> list[Path]:
        return [folder / name for name in self.batch_files]


_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_BIN = tuple(f"{name}.bin" for name in _NAMES)
PYTHON = Layout("python", "cifar-10-batches-py", _NAMES, "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")
BINARY = Layout("binary", "cifar-10-batches-bin", _BIN, "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")
LAYOUTS = (PYTHON, BINARY)  # in order of preference
