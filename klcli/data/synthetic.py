"""The built-in stand-in for CIFAR-10: as many images of the same shape in as many classes, the same on every machine.

An image is the sum of smooth patterns on medium grey. Its class shows in two ways: a faint tint, which a linear
classifier can learn, and one of the class's three marks, which may be negative, so that their mean is grey and only a
network with hidden units can tell them. Marks of other classes, backgrounds common to all classes and the noise of
single pixels lie over it. The weights of these are chosen so that a linear classifier reaches about a third of the
test images and the 3-layer network of the defaults with batch normalisation about six in ten: like CIFAR-10, worth
the experiments, and no substitute for it.

Everything is integer arithmetic on the raw stream of PCG64, which NumPy keeps for ever (NEP 19); the distributions
of Generator and the rounding of floating point are not part of it.
"""

import numpy as np

from klcli.data import prepared
from klcli.data.dataset import CLASSES, PIXELS, Dataset, content_sha256
from klcli.data.layouts import ROWS
from klcli.data.places import SYNTHETIC
from klcli.settings.split_config import FILES

# Of what make() returns: a test holds them together. Stored runs name it, and so does the prepared copy, so that
# one of other pixels is never opened.
SHA256 = "c58c0cbf979fbe81be69b819ca548e927065768c70b5133af3c8bf3ca81fbc7f"
SEED = 10
CLASS_NAMES = tuple(f"class {label}" for label in range(CLASSES))

MARKS = 3  # of each class
FOREIGN_MARKS = 1  # in one image, of any class
BACKGROUNDS = 512  # to choose from: more than a pattern has dimensions, so that no direction is free of them
BACKGROUNDS_SHOWN = 4  # in one image

LEVELS = 8  # of strength
TINT, MARK, BACKGROUND = 4, 9, 7  # strengths in 64ths; of a mark and a background per level
NOISE = 3  # grey levels per unit of the noise, which runs from -15 to 15
GREY = 128

CHUNK = 250  # images made at a time: 1.5 MB of int16


def open_synthetic() -> Dataset:
    """The built-in data set, mapped from its prepared copy where there is one, else made (in seconds) and kept."""
    key = f"synthetic-{SHA256}"
    return prepared.load(key) or prepared.save(key, make())


def make() -> Dataset:
    """The built-in data set, made in memory."""
    stream = np.random.PCG64(SEED)
    labels = np.concatenate([_shuffled_labels(stream, ROWS * (FILES - 1)), _shuffled_labels(stream, ROWS)])
    tints = GREY + _patterns(stream, CLASSES) * TINT // 64
    marks = _patterns(stream, MARKS * CLASSES)
    backgrounds = _patterns(stream, BACKGROUNDS)

    # Tables of every strength and sign, so that an image is a few look-ups. The class is the last index of a mark.
    tints = tints.astype(np.int16)
    marks = _in_all_strengths(marks, np.arange(LEVELS) * MARK)
    backgrounds = _in_all_strengths(backgrounds, np.arange(1, LEVELS + 1) * BACKGROUND)

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
    return Dataset(
        name=SYNTHETIC,
        images=images,
        labels=labels,
        class_names=CLASS_NAMES,
        sha256=content_sha256(labels, images),
        source="built in",
        layout="built in",
        official=None,
        images_file=None,
    )


def _integers(stream: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """Random integers 0 to 2^31 - 1, int64: the high bits of the stream, which are its best."""
    raw = np.asarray(stream.random_raw(int(np.prod(shape))), np.uint64)
    return (raw >> np.uint64(33)).astype(np.int64).reshape(shape)


def _shuffled_labels(stream: np.random.PCG64, count: int) -> np.ndarray:
    """As many labels of each class, in random order: (count,) uint8."""
    order = np.argsort(_integers(stream, (count,)), kind="stable")
    return (order % CLASSES).astype(np.uint8)


def _patterns(stream: np.random.PCG64, count: int) -> np.ndarray:
    """Smooth random colour patterns (count, 3072) int64 around 0, within -128 to 128, standard deviation about 37.

    Two grids of random values, one node every 8 pixels and, at half the strength, one every 4, with straight
    lines between the nodes.
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
    """Every pattern (n, 3072) with either sign in each of s strengths, given in 64ths: (s * 2 * n, 3072) int16."""
    both = np.concatenate([patterns, -patterns])
    table: np.ndarray = strengths[:, None, None] * both // 64
    return table.reshape(-1, PIXELS).astype(np.int16)


def _noise(stream: np.random.PCG64, count: int) -> np.ndarray:
    """Noise of single pixels (count, 3072) int16: the sum of two even ones, most often small."""
    raw = np.asarray(stream.random_raw(count * PIXELS // 8), np.uint64)
    pixels = raw.astype("<u8").view(np.uint8).reshape(count, PIXELS)  # little-endian on every machine
    return ((pixels & 15).astype(np.int16) + (pixels >> 4) - 15) * np.int16(NOISE)
