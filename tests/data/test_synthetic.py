"""The built-in set: the same bytes everywhere, balanced, and neither trivial nor hopeless."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from klcli.data import synthetic
from klcli.data.dataset import Dataset
from klcli.data.sources import open_dataset

pytestmark = pytest.mark.slow  # 60 000 images are made
SHA256 = "c58c0cbf979fbe81be69b819ca548e927065768c70b5133af3c8bf3ca81fbc7f"


@pytest.fixture(scope="module")
def made() -> Dataset:
    return synthetic.make()


def test_the_bytes_never_change(made: Dataset) -> None:
    """Stored runs name this hash: a change of it makes them incomparable with new ones."""
    assert hashlib.sha256(made.labels.tobytes() + made.images.tobytes()).hexdigest() == SHA256
    assert made.sha256 == synthetic.SHA256 == SHA256


def test_shape_and_balance(made: Dataset) -> None:
    assert (made.images.shape, made.images.dtype) == ((60_000, 3072), np.uint8)
    assert (made.labels.shape, made.labels.dtype) == ((60_000,), np.uint8)
    assert np.bincount(made.labels[:50_000]).tolist() == [5000] * 10
    assert np.bincount(made.labels[50_000:]).tolist() == [1000] * 10
    assert np.bincount(made.labels[:1000], minlength=10).min() > 50  # shuffled
    assert (made.name, made.source, made.layout) == ("synthetic", "built in", "built in")
    assert len(set(made.class_names)) == 10


def test_no_two_images_are_equal(made: Dataset) -> None:
    """A test image among the training images would be a test of memory."""
    assert len({image.tobytes() for image in made.images[:, :64]}) == 60_000


def test_a_linear_classifier_learns_something_and_not_too_much(made: Dataset) -> None:
    """Least squares on the means of 4 x 4 pixels, which keep all that is smooth, solved exactly."""
    used = slice(20_000, 60_000)
    blocks = made.images[used].reshape(-1, 3, 8, 4, 8, 4).sum(axis=3, dtype=np.uint16).sum(axis=4, dtype=np.uint16)
    X = np.hstack([blocks.reshape(-1, 192) / 2040 - 1, np.ones((40_000, 1))])
    train, test, labels = X[:30_000], X[30_000:], made.labels[used]
    W = np.linalg.solve(train.T @ train, train.T @ np.eye(10)[labels[:30_000]])
    accuracy = ((test @ W).argmax(axis=1) == labels[30_000:]).mean()
    assert 0.2 < accuracy < 0.45


def test_it_is_made_once(empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_dataset("synthetic")
    monkeypatch.setattr(synthetic, "make", None)
    second = open_dataset(None)
    assert second.sha256 == first.sha256 == SHA256
    assert isinstance(second.images, np.memmap)
    assert second.images_file is not None
    assert second.images_file.is_relative_to(empty_machine)
