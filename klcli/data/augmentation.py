"""Augmentation of images: flips and shifts of bytes, contrast, and mixup."""

from dataclasses import replace

import numpy as np

from klcli.data.dataset import Split

SIDE = 32
SHAPE = (3, SIDE, SIDE)  # channel, row, column


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Return images (k, 3072), channel-major, mirrored left to right."""
    return pixels.reshape(-1, *SHAPE)[..., ::-1].reshape(pixels.shape)


def mirrored(split: Split, which: np.ndarray | None = None) -> Split:
    """Return a copy of the split with all of its images mirrored, or only those with `which (n,)` true."""
    images = np.take(split.images, split.rows, axis=0)
    mask = slice(None) if which is None else which
    images[mask] = mirror(images[mask])
    return replace(split, images=images, rows=np.arange(len(images)))


def background_of(split: Split) -> np.ndarray:
    """Return the mean image (3072,) uint8, the padding of a shift: 0 after standardisation by pixel."""
    return np.rint(split.mean).astype(np.uint8)


def views(split: Split, *, flips: bool, shifts: int) -> list[Split]:
    """Return the views of a split: itself, shifted by `shifts` pixels to each side, and, with `flips`, all mirrored."""
    seen = [split]
    for distance in [(shifts, 0), (-shifts, 0), (0, shifts), (0, -shifts)] if shifts else []:
        images = np.take(split.images, split.rows, axis=0)
        shifted = _shifted(images, np.tile(distance, (len(split), 1)), background_of(split))
        seen.append(replace(split, images=shifted, rows=np.arange(len(split))))
    return seen + [mirrored(view) for view in seen] if flips else seen


def draw_moves(rng: np.random.Generator, n: int, *, flip: bool, shift: int) -> np.ndarray:
    """Draw the moves `(n, 3)` of images: mirrored with probability 1/2 (0 or 1), and shifted down and to the right.

    The two distances are uniform from -shift to shift.
    """
    moves = np.zeros((n, 3), np.int64)
    if flip:
        moves[:, 0] = rng.random(n) < 0.5
    if shift:
        moves[:, 1:] = rng.integers(-shift, shift + 1, (n, 2))
    return moves


def draw_contrast(rng: np.random.Generator, n: int, contrast: float) -> np.ndarray:
    """Draw the factors `(n,)` of standardised images, uniform from 1 - contrast to 1 + contrast."""
    return rng.uniform(1 - contrast, 1 + contrast, n)


def moved(pixels: np.ndarray, moves: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return images (k, 3072) uint8, moved (k, 3); `background` (3072,) fills the vacated pixels."""
    which = moves[:, 0] != 0
    pixels = pixels.copy()
    pixels[which] = mirror(pixels[which])
    return _shifted(pixels, moves[:, 1:], background) if moves[:, 1:].any() else pixels


def _shifted(pixels: np.ndarray, distances: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return each image shifted by its distances (k, 2), down and to the right."""
    shifted = np.empty_like(pixels)
    shifted[...] = background
    sources, targets = pixels.reshape(-1, *SHAPE), shifted.reshape(-1, *SHAPE)
    for source, target, (down, right) in zip(sources, targets, distances.tolist(), strict=True):
        target[:, max(down, 0) : SIDE + min(down, 0), max(right, 0) : SIDE + min(right, 0)] = source[
            :, max(-down, 0) : SIDE - max(down, 0), max(-right, 0) : SIDE - max(right, 0)
        ]
    return shifted


def mixup(X: np.ndarray, share: float) -> None:
    """Mixup of X (n, d) in place: `X_i <- a X_i + (1 - a) X_(n-1-i)` with one share a per minibatch.

    Zhang et al. 2018, arXiv 1710.09412. The images are in random order; the labels of a pair are `y` and `y[::-1]`.
    """
    others = X[::-1] * (1 - share)
    X *= share
    X += others
