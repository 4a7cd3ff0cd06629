"""The built-in substitute for CIFAR-10: images of the same number, shape and classes, the same on every machine.

An image is a sum of smooth patterns on grey: a faint tint of its class, which a linear classifier can learn, one of the
three marks of its class with either sign, which only hidden units can recognise, marks of other classes, backgrounds
and noise. A linear classifier reaches a test accuracy of about 0.33, the default 3-layer network with BN about 0.6.
All is integer arithmetic on the raw stream of PCG64, which NumPy guarantees (NEP 19), unlike its distributions.
"""

from collections.abc import Callable

import numpy as np

from klcli.data.cifar10.layouts import ROWS
from klcli.data.dataset import BUILT_IN, CLASSES, PIXELS, SYNTHETIC, Dataset, content_sha256
from klcli.settings.split_config import FILES

# The hash of the result of make(): the identity of the images in stored runs and of their prepared copy.
SHA256 = "c58c0cbf979fbe81be69b819ca548e927065768c70b5133af3c8bf3ca81fbc7f"
SEED = 10
CLASS_NAMES = tuple(f"class {label}" for label in range(CLASSES))

MARKS = 3  # of each class
FOREIGN_MARKS = 1  # in one image, of any class
BACKGROUNDS = 512  # number of backgrounds: more than a pattern has dimensions, so that they span every direction
BACKGROUNDS_SHOWN = 4  # in one image

LEVELS = 8  # of strength
TINT, MARK, BACKGROUND = 4, 9, 7  # strengths in 64ths; of a mark and a background per level
NOISE = 3  # grey levels per unit of the noise, which runs from -15 to 15
GREY = 128

CHUNK = 250  # images made at a time: 1.5 MB of int16


def make(advance: Callable[[int], None] = lambda done: None) -> Dataset:
    """Return the built-in data set, made in memory in about 2 s; `advance` by the images of each chunk."""
    stream = np.random.PCG64(SEED)
    labels = np.concatenate([_shuffled_labels(stream, ROWS * (FILES - 1)), _shuffled_labels(stream, ROWS)])
    # Tables of every strength and sign, so that an image is a few look-ups. The class is the last index of a mark.
    tints = (GREY + _patterns(stream, CLASSES) * TINT // 64).astype(np.int16)
    marks = _in_all_strengths(_patterns(stream, MARKS * CLASSES), np.arange(LEVELS) * MARK)
    backgrounds = _in_all_strengths(_patterns(stream, BACKGROUNDS), np.arange(1, LEVELS + 1) * BACKGROUND)

    images = np.empty((len(labels), PIXELS), np.uint8)
    for start in range(0, len(images), CHUNK):
        label = labels[start : start + CHUNK].astype(np.int64)
        choices = _integers(stream, (1 + FOREIGN_MARKS + BACKGROUNDS_SHOWN, len(label)))
        image = tints[label]
        image += marks[choices[0] % (len(marks) // CLASSES) * CLASSES + label]
        for choice in choices[1 : 1 + FOREIGN_MARKS]:
            image += marks[choice % len(marks)]
        for choice in choices[1 + FOREIGN_MARKS :]:
            image += backgrounds[choice % len(backgrounds)]
        image += _noise(stream, len(label))
        images[start : start + CHUNK] = np.clip(image, 0, 255)
        advance(len(image))
    return Dataset(SYNTHETIC, images, labels, CLASS_NAMES, content_sha256(labels, images), BUILT_IN, BUILT_IN)


def _integers(stream: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """Return random integers 0 to 2^31 - 1, int64: the high bits of the stream, which are the most random."""
    raw = np.asarray(stream.random_raw(int(np.prod(shape))), np.uint64)
    return (raw >> np.uint64(33)).astype(np.int64).reshape(shape)


def _shuffled_labels(stream: np.random.PCG64, count: int) -> np.ndarray:
    return (np.argsort(_integers(stream, (count,)), kind="stable") % CLASSES).astype(np.uint8)


def _patterns(stream: np.random.PCG64, count: int) -> np.ndarray:
    """Return smooth colour patterns (count, 3072) int64 around 0, within -128 to 128, standard deviation about 37.

    Two grids of random values, one node every 8 pixels and, at half the strength, one every 4, interpolated linearly.
    """
    total = np.zeros((count, 3, 32, 32), np.int64)
    for spacing, weight in ((8, 2), (4, 1)):
        nodes = 32 // spacing + 1
        grid = _integers(stream, (count, 3, nodes, nodes)) // 2**15 - 2**15  # -32768 to 32767
        node, behind = np.divmod(np.arange(32), spacing)
        rows = grid[:, :, node] * (spacing - behind)[:, None] + grid[:, :, node + 1] * behind[:, None]
        total += weight * (rows[..., node] * (spacing - behind) + rows[..., node + 1] * behind) // spacing**2
    return total.reshape(count, PIXELS) // 768


def _in_all_strengths(patterns: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Return patterns (n, 3072) with either sign in each of s strengths, given in 64ths: (s * 2 * n, 3072) int16."""
    table = strengths[:, None, None] * np.concatenate([patterns, -patterns]) // 64
    return table.reshape(-1, PIXELS).astype(np.int16)


def _noise(stream: np.random.PCG64, count: int) -> np.ndarray:
    """Return noise of single pixels (count, 3072) int16: the sum of two uniform values, a triangular distribution."""
    raw = np.asarray(stream.random_raw(count * PIXELS // 8), np.uint64)
    pixels = raw.astype("<u8").view(np.uint8).reshape(count, PIXELS)  # little-endian on every machine
    return ((pixels & 15).astype(np.int16) + (pixels >> 4) - 15) * np.int16(NOISE)
