"""The operations of an update, except matrix products, as loops over elements. The equations are those of engine/.

Each computes one replica. All arrays are in C order: activations, and their gradients, `(n, d)` for n samples of d
features; parameters and statistics `(d,)`. Results are written to arrays that the caller provides.
"""

import numpy as np

from klcli.compiled.jit import compiled, prefetch

# Kinds of operations: products and steps, which may be divided, and the others.
FORWARD, BACKWARD, DESCENT, NESTEROV, ADAM, AVERAGE = range(6)
ADD_BIAS, SUM, NORMALISE, BATCH_NORM, BATCH_NORM_BACKWARD, RELU, SILU, SILU_BACKWARD, DROPOUT, LOSS = range(6, 16)
# Places in the numbers of a step: rate, factor of theta, 2 lambda, decay of the first and the second moment, eps.
RATE, KEEP, L2, FIRST, SECOND, EPS = range(6)


@compiled
def add_bias(b, first, second, is_divided, Y):
    """`Y = first + b`, or `first + second + b`: the summands of a product."""
    n, d = Y.shape
    for s in range(n):
        for j in range(d):
            total = first[s, j] + second[s, j] if is_divided else first[s, j]
            Y[s, j] = total + b[j]


@compiled
def sum_over_samples(G, total):
    """`total (d,)`: the sum of the rows of G."""
    n, d = G.shape
    total[:] = 0
    for s in range(n):
        for j in range(d):
            total[j] += G[s, j]


@compiled
def normalise(X, mean, inverse_std, gamma, beta, Y):
    """`Y = gamma * (X - mean) * inverse_std + beta`: batch normalisation by running averages."""
    n, d = X.shape
    for s in range(n):
        for j in range(d):
            Y[s, j] = gamma[j] * ((X[s, j] - mean[j]) * inverse_std[j]) + beta[j]


@compiled
def batch_norm(X, gamma, beta, numbers, running_mean, running_variance, centred, std, Y):
    """`Y = gamma * (X - mu) / sqrt(v + eps) + beta` with the mean mu and the biased variance v of the samples.

    `numbers` are eps and alpha: each running average becomes `alpha * average + (1 - alpha) * mu`, or v. For the
    backward pass, `centred (n, d)` is X - mu, and `std (d,)` is sqrt(v + eps).
    """
    n, d = X.shape
    eps, past = numbers[0], numbers[1]
    one = X.dtype.type(1)
    share, present = one / X.dtype.type(n), one - past
    mu, v = np.empty(d, X.dtype), np.zeros(d, X.dtype)
    sum_over_samples(X, mu)
    for j in range(d):
        mu[j] *= share
    for s in range(n):
        for j in range(d):
            c = X[s, j] - mu[j]
            centred[s, j] = c
            v[j] += c * c
    for j in range(d):
        v[j] *= share
        running_mean[j] = past * running_mean[j] + present * mu[j]
        running_variance[j] = past * running_variance[j] + present * v[j]
        std[j] = np.sqrt(v[j] + eps)
        v[j] = gamma[j] / std[j]
    for s in range(n):
        for j in range(d):
            Y[s, j] = centred[s, j] * v[j] + beta[j]


@compiled
def batch_norm_backward(G, centred, gamma, std, dgamma, dbeta, dX):
    """`dX = gamma / std * (G - mean(G) - X_hat * mean(G * X_hat))` with `X_hat = centred / std`."""
    n, d = G.shape
    share = G.dtype.type(1) / G.dtype.type(n)
    slope = np.empty(d, G.dtype)
    dgamma[:] = 0
    dbeta[:] = 0
    for s in range(n):
        for j in range(d):
            dbeta[j] += G[s, j]
            dgamma[j] += G[s, j] * centred[s, j]
    for j in range(d):
        dgamma[j] /= std[j]
        slope[j] = dgamma[j] / std[j] * share
    for s in range(n):
        for j in range(d):
            g = G[s, j] - dbeta[j] * share - centred[s, j] * slope[j]
            dX[s, j] = g * (gamma[j] / std[j])


@compiled
def relu(G, X, Y):
    """`Y = G where X > 0, else 0` of flat arrays: with G = X, the forward pass. The product keeps NaN, so that
    divergence is detected.
    """
    for i in range(G.size):
        Y[i] = G[i] * (X[i] > 0)


@compiled
def silu(X, slope, sigmoid, Y):
    """`Y = X * sigmoid(slope * X)` of flat arrays, for a slope (1,); the backward pass needs `sigmoid` and Y."""
    number = X.dtype.type
    for i in range(X.size):
        z = -slope[0] * X[i]
        power = np.exp(z) if X.itemsize == 8 else exponential(np.float32(z))
        sigmoid[i] = number(1) / (number(1) + number(power))
        Y[i] = X[i] * sigmoid[i]


@compiled
def silu_backward(G, slope, sigmoid, Y, dX):
    """`dX = G * (sigmoid + slope * Y * (1 - sigmoid))` of flat arrays."""
    one = G.dtype.type(1)
    for i in range(G.size):
        dX[i] = G[i] * (sigmoid[i] + slope[0] * Y[i] * (one - sigmoid[i]))


@compiled
def exponential(z):
    """Return `exp(z)` of a float32 within 2 roundings, of -87 below it and of 88 above it, in vector instructions.

    It is `2^k exp(r)` with an integer k, and Taylor's polynomial for r from -log(2) / 2 to log(2) / 2, whose error is
    below r^8 / 8! = 5e-9.
    """
    number = np.float32
    z = number(-87) if z < number(-87) else z
    z = number(88) if z > number(88) else z
    k = np.floor(z * number(1.4426950408889634) + number(0.5))
    r = (z - k * number(0.693359375)) + k * number(2.12194440e-4)  # log(2) in two parts: the first product is exact
    p = (number(1 / 5040) * r + number(1 / 720)) * r + number(1 / 120)
    p = ((p * r + number(1 / 24)) * r + number(1 / 6)) * r + number(0.5)
    bits = np.int32((np.int32(k) + 127) << 23)  # of 2^k
    return ((p * r + number(1)) * r + number(1)) * bits.view(np.float32)


@compiled
def dropout(X, bits, dropped, Y):
    """`Y = X * mask`: 0 where `bits (n, d)` are below `dropped`, otherwise 65536 / (65536 - dropped).

    `bits` are 16 random bits for each unit of each sample, the same for all replicas.
    """
    n, d = X.shape
    scale = X.dtype.type(65536 / (65536 - dropped))
    for s in range(n):
        for j in range(d):
            Y[s, j] = X[s, j] * ((bits[s, j] >= dropped) * scale)


@compiled
def cross_entropy(S, y, other, numbers, P):
    """Return the mean of `-sum_k q_k log p_k` for the scores `S (n, K)`; P becomes `dJ/dS = (P - q) / n`.

    `q = (1 - smoothing) * (share * Y + (1 - share) * Y') + smoothing / K`, where Y and Y' are the one-hot forms of the
    labels `y (n,)` and `other (n,)`. `numbers` are share and smoothing.
    """
    n, K = S.shape
    share, smoothing, number = numbers[0], numbers[1], S.dtype.type
    first, second = (1 - smoothing) * share, (1 - smoothing) * (1 - share)
    loss = number(0)
    for s in range(n):
        top, total, likelihood = S[s, 0], number(0), number(0)
        for k in range(1, K):
            if S[s, k] > top or S[s, k] != S[s, k]:
                top = S[s, k]
        for k in range(K):
            P[s, k] = np.exp(S[s, k] - top)
            total += P[s, k]
            likelihood += S[s, k] - top
        likelihood *= smoothing / K
        likelihood += first * (S[s, y[s]] - top) + second * (S[s, other[s]] - top)
        loss = number(loss + (np.log(total) - likelihood))
        for k in range(K):
            q = smoothing / K + first * (k == y[s]) + second * (k == other[s])
            P[s, k] = (P[s, k] / total - q) / n
    return loss / n


@compiled
def write_images(images, rows, moves, background, by_image, mean, inverse_std, factors, X, first, last):
    """Write the images `rows[first:last]` to the same rows of X (n, 3072): `X = factor * (pixel - mean) * inverse_std`.

    `images (., 3072)` has one byte per pixel, `mean` and `inverse_std` one number per pixel; with `by_image`, the mean
    and the standard deviation of each image itself replace them. `factors (n,)` has one per image. `moves (n, 3)`:
    whether an image is mirrored, and by how many pixels it is then shifted down and to the right. `background (3072,)`
    fills the vacated pixels.
    """
    pixels = np.empty(3072, np.uint8)
    for s in range(first, last):
        if s + 2 < len(rows):  # the images of a minibatch are anywhere in memory
            for at in range(0, 3072, 64):
                prefetch(images[rows[s + 2], at:].ctypes.data)
        mirrored, down, right = moves[s, 0], moves[s, 1], moves[s, 2]
        image = images[rows[s]]
        if mirrored or down or right:
            _move(image, background, mirrored != 0, down, right, pixels)
            image = pixels
        _standardise(image, by_image, mean, inverse_std, factors[s], X[s])


@compiled
def _move(image, background, mirrored, down, right, pixels):
    for at in range(3072):  # at = 1024 channel + 32 row + column
        i, j = (at >> 5) & 31, (at & 31) - right
        source = at - 32 * down - right
        if mirrored:
            source += 31 - 2 * j
        pixels[at] = image[source] if 0 <= i - down < 32 and 0 <= j < 32 else background[at]


@compiled
def _standardise(pixels, by_image, mean, inverse_std, factor, x):
    number = x.dtype.type
    if by_image:
        total, squares = 0, 0
        for j in range(3072):
            value = np.int32(pixels[j])
            total += value
            squares += value * value
        spread = 3072 * squares - total * total  # 3072^2 times the variance
        center = number(total / 3072)
        scale = number(1.0 if spread == 0 else 3072 / np.sqrt(np.float64(spread)))
        for j in range(3072):
            x[j] = (number(pixels[j]) - center) * scale * factor
    else:
        for j in range(3072):
            x[j] = (number(pixels[j]) - mean[j]) * inverse_std[j] * factor


@compiled
def step(kind, theta, g, mean, square, numbers):
    """Change flat theta by its gradient g; the formulas are those of engine/optimizers.py.

    `mean` is the velocity of NESTEROV, the first moment of ADAM, and the average of AVERAGE, which does not change
    theta. `square` is the second moment of ADAM. `numbers` are those listed at the top of this file.
    """
    rate, keep, l2 = numbers[RATE], numbers[KEEP], numbers[L2]
    first, second, eps = numbers[FIRST], numbers[SECOND], numbers[EPS]
    if kind == DESCENT:
        for i in range(theta.size):
            theta[i] = keep * theta[i] - rate * g[i]
    elif kind == NESTEROV:
        for i in range(theta.size):
            gradient = g[i] + l2 * theta[i]
            mean[i] = first * mean[i] + gradient
            theta[i] = keep * theta[i] - rate * (gradient + first * mean[i])
    elif kind == ADAM:
        for i in range(theta.size):
            gradient = g[i] + l2 * theta[i]
            mean[i] = first * mean[i] + gradient
            square[i] = second * square[i] + gradient * gradient
            theta[i] = keep * theta[i] - rate * (mean[i] / (np.sqrt(square[i]) + eps))
    else:
        for i in range(theta.size):
            mean[i] += rate * (theta[i] - mean[i])
