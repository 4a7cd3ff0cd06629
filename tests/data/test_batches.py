"""One batch file: what is read, and what every kind of damage is called."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klcli.data.batches import parse_batch, parse_class_names
from klcli.data.layouts import BINARY, PYTHON
from klcli.errors import DataError


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (10_000, 3072), dtype=np.uint8), rng.integers(0, 10, 10_000).astype(np.uint8)


def refusal(layout: object, content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        parse_batch(layout, content, "/data/data_batch_1")  # type: ignore[arg-type]
    message = str(caught.value)
    assert "/data/data_batch_1" in message
    assert "\n" not in message
    return message


def test_both_layouts_give_the_written_images(
    batch: tuple[np.ndarray, np.ndarray], writers: tuple[Callable[..., bytes], ...]
) -> None:
    pixels, labels = batch
    python_batch, binary_batch, _ = writers
    dictionary = {"data": pixels, "labels": labels.tolist(), "batch_label": "training batch 1 of 5"}
    forms = [
        (PYTHON, python_batch(pixels, labels)),
        (BINARY, binary_batch(pixels, labels)),
        (PYTHON, pickle.dumps(dictionary, protocol=2)),  # as a program of today writes it again
        (PYTHON, pickle.dumps({key.encode(): value for key, value in dictionary.items()}, protocol=4)),
    ]
    for layout, content in forms:
        read_pixels, read_labels = parse_batch(layout, content, "x")
        assert np.array_equal(read_pixels, pixels)
        assert np.array_equal(read_labels, labels)
        assert read_pixels.dtype == read_labels.dtype == np.uint8


def test_a_bad_label_is_named_with_its_row(
    batch: tuple[np.ndarray, np.ndarray], writers: tuple[Callable[..., bytes], ...]
) -> None:
    pixels, labels = batch
    python_batch, binary_batch, _ = writers
    wrong = labels.astype(np.int64)
    wrong[1234] = 17
    assert "label 17 in row 1234" in refusal(PYTHON, python_batch(pixels, wrong))
    assert "label 17 in row 1234" in refusal(BINARY, binary_batch(pixels, wrong))
    for label in (-1, 256 + 3, 10):  # 259 would be a 3 in eight bits
        wrong[1234] = label
        assert f"label {label} in row 1234" in refusal(PYTHON, python_batch(pixels, wrong))
    for thing in ("cat", 2.0, None, 10**30):
        content = pickle.dumps({"data": pixels, "labels": [0] * 77 + [thing] + [0] * 9922})
        assert "row 77" in refusal(PYTHON, content)


def test_a_short_or_long_file_is_named_with_both_sizes(
    batch: tuple[np.ndarray, np.ndarray], writers: tuple[Callable[..., bytes], ...]
) -> None:
    python_batch, binary_batch, _ = writers
    binary = binary_batch(*batch)
    assert "30729999 bytes where 30730000" in refusal(BINARY, binary[:-1])
    assert "30730001 bytes where 30730000" in refusal(BINARY, binary + b"\0")
    assert "0 bytes where 30730000" in refusal(BINARY, b"")
    python = python_batch(*batch)
    assert "1000 bytes where at least 30720000" in refusal(PYTHON, python[:1000])
    assert "no readable pickle" in refusal(PYTHON, python[:-5])


def test_reserved_and_never_written_bytes_are_no_batch() -> None:
    assert "all 10000 labels are 0" in refusal(BINARY, bytes(10_000 * 3073))


def test_a_web_page_is_called_one() -> None:
    for page in (b"<!DOCTYPE html><html>", b"\n <HTML><body>Please log in", b"\xef\xbb\xbf<html>"):
        assert "is a web page" in refusal(BINARY, page)


def test_other_contents_are_refused(batch: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, labels = batch
    listed = labels.tolist()
    pad = bytes(30_720_000)  # the size of a real file, so that the contents are what is refused

    def message(content: object) -> str:
        return refusal(PYTHON, pickle.dumps(content))

    assert "float64 of shape (10000, 384)" in message({"data": pixels.view(np.float64), "labels": listed})
    assert "uint8 of shape (9999, 3072)" in message({"data": pixels[:9999], "labels": listed, "pad": pad})
    assert "9999 labels where 10000" in message({"data": pixels, "labels": listed[:9999]})
    assert "no entry 'labels'" in message({"data": pixels})
    assert "no entry 'data'" in message({"labels": listed, "pad": pad})
    assert "CIFAR-100" in message({"data": pixels, "fine_labels": listed})
    assert "a list instead of a dictionary" in message([pixels])
    assert "a list instead of an array" in message({"data": [1], "labels": listed, "pad": pad})


class Exploit:
    """A pickle that makes a file when it is loaded, in one of the usual ways."""

    def __init__(self, marker: Path, function: Callable[..., object]) -> None:
        self.call = (function, (f"touch {marker}",) if function is os.system else (str(marker), os.O_CREAT))

    def __reduce__(self) -> tuple[Callable[..., object], tuple]:
        return self.call


@pytest.mark.parametrize("function", [os.system, os.open])
def test_a_pickle_cannot_run_code(function: Callable[..., object], tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    content = pickle.dumps({"data": Exploit(marker, function), "pad": bytes(30_720_000)}, protocol=2)
    assert f"asks for posix.{function.__name__}" in refusal(PYTHON, content)
    assert not marker.exists()
    # The pickle is a real exploit: the standard loader obeys it.
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize(
    "global_name",
    ["builtins eval", "numpy.core.multiarray fromfile", "numpy load", "_codecs decode", "numpy.core numeric.ndarray"],
)
def test_only_what_rebuilds_an_array_is_allowed(global_name: str) -> None:
    module, name = global_name.split()
    content = f"c{module}\n{name}\n.".encode() + bytes(30_720_000)
    assert f"asks for {module}.{name}" in refusal(PYTHON, content)


def test_a_codec_is_no_way_to_an_import() -> None:
    content = b"c_codecs\nencode\n(X\x01\0\0\0aX\x03\0\0\0hextR." + bytes(30_720_000)
    assert "asks for the codec hex" in refusal(PYTHON, content)


@pytest.mark.parametrize("seed", range(30))
def test_garbage_never_escapes_as_another_exception(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = [b"", b"\x80\x02", b"\x80\x04\x95", b"(", b"}("][seed % 5]
    refusal(PYTHON, start + rng.bytes(200) + bytes(30_720_000))


def test_a_pickle_that_asks_for_all_memory_is_refused() -> None:
    content = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + b"I999999999999\n" * 3 + b"\x87U\x01b\x87R."
    refusal(PYTHON, content + bytes(30_720_000))


def test_class_names_of_both_layouts() -> None:
    names = tuple(f"name {i}" for i in range(10))
    assert parse_class_names(BINARY, "\n".join(names).encode() + b"\n\n", "x") == names
    assert parse_class_names(PYTHON, pickle.dumps({"label_names": list(names)}, protocol=2), "x") == names
    encoded = pickle.dumps({b"label_names": [name.encode() for name in names]}, protocol=2)
    assert parse_class_names(PYTHON, encoded, "x") == names
    for layout, content in (
        (BINARY, b"one\ntwo\n"),
        (BINARY, b"\xff\xfe" * 20),
        (PYTHON, pickle.dumps({"label_names": 3})),
        (PYTHON, pickle.dumps({})),
    ):
        with pytest.raises(DataError, match="does not name 10 classes"):
            parse_class_names(layout, content, "x")


@pytest.mark.parametrize(
    "greedy",
    [
        pytest.param(b"\x80\x02Nr\xff\xff\xff\x3f.", id="a memo of 16 GB"),
        pytest.param(b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.", id="a stack of tuples as a key"),
        pytest.param(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", id="a text of 280 TB"),
    ],
)
def test_a_pickle_that_would_crash_the_unpickler_is_refused(greedy: bytes) -> None:
    """In a process of its own, because it would take this one with it."""
    code = (
        "import sys; from klcli.data.pickles import load_pickle; from klcli.errors import DataError\n"
        "try: load_pickle(sys.stdin.buffer.read(), 'x')\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=greedy, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 1
    assert b"no readable pickle" in done.stdout
