"""A comparison of compiled operations with NumPy before the first training of a process; it compiles most of them."""

import numpy as np

from klcli.compiled import kernels
from klcli.compiled.team import Team


def check() -> None:
    """Raise ArithmeticError if a product, a step or an image is wrong, as with a BLAS whose integers differ in size."""
    rng = np.random.default_rng(0)
    X, G, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 7, 35), (1, 7, 11), (1, 35, 11)))
    step, numbers, image = W.copy(), np.array([[0.5, 0.9, 0, 0, 0, 0]], np.float32), np.empty((1, 3072), np.float32)
    pixels, zeros = np.arange(3072).astype(np.uint8), np.zeros((1, 3), np.int64)
    with Team(np.float32, helper=True) as team:
        team.step(kernels.DESCENT, X, G, step, numbers)
        found = team.forward(X, W)[0], team.backward(G, W), step, image
        scale = np.full(3072, 7, np.float32), np.full(3072, 0.5, np.float32)
        team.offer_images(pixels[None], zeros[0, :1], zeros, pixels, False, *scale, image)
        team.finish_images()
    expected = X @ W, G @ W.mT, np.float32(0.9) * W - np.float32(0.5) * (X.mT @ G), (pixels[None] - scale[0]) * scale[1]
    if not all(np.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True)):
        raise ArithmeticError("the products of NumPy's BLAS in compiled code are wrong")
