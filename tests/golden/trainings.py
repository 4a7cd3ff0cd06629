"""Nine unusual trainings with stored metrics: a change of the code that does not change the mathematics keeps
every digit.

`python -m tests.golden.trainings` writes trainings.json anew, which only a deliberate change of the arithmetic excuses.
The bits depend on NumPy and on the BLAS kernel of the processor, so the file names the versions that made it. It also
contains the same trainings in float64, in which another kernel changes no significant digit.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from klcli.data.dataset import Dataset, split
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.trainer import train

FILE = Path(__file__).with_name("trainings.json")
DIVISION = SplitConfig(validation=200, subset=500)
BASE = TrainConfig(split=DIVISION, hidden=(24, 12), batch_size=20, step_epochs=1, seed=3)
TRAININGS: dict[str, list[TrainConfig]] = {
    "BN": [replace(BASE, batch_norm=True)],
    "a stack of 9 layers, BN after the activation, small sigma": [
        replace(BASE, hidden=(20, 15, 10, 10, 8, 8, 8, 8), batch_norm=True, bn_position="after", initializer="normal",
                sigma=sigma, seed=seed, order_seed=7)
        for seed, sigma in ((0, 1e-1), (1, 1e-3), (2, 1e-4))
    ],
    "Adam, decoupled decay, cosine, dropout, smoothing": [
        replace(BASE, optimizer="adam", weight_decay=0.01, schedule="cosine", eta_max=0.002, dropout=0.2,
                label_smoothing=0.1)
    ],
    "Nesterov, one-cycle, augmented, averaged": [
        replace(BASE, momentum=0.9, schedule="one-cycle", eta_max=0.02, flip=True, shift=3, mixup=0.2,
                weight_average=0.9, batch_norm=True, lam=0.0)
    ],
    "whitened, precise statistics": [
        replace(BASE, whitening=17, whitening_eps=2.0, batch_norm=True, bn_statistics="precise", bn_samples=333)
    ],
    "each image by itself, unshuffled, batch statistics": [
        replace(BASE, standardise="image", shuffle=False, batch_norm=True, bn_statistics="batch", cycles=1)
    ],
    "float64, Xavier, cosine with falling peaks, snapshots": [
        replace(BASE, dtype="float64", initializer="xavier", lam=0.1, schedule="cosine", eta_decay=0.6, snapshots=True,
                evaluations_per_cycle=3)
    ],
    "a stack of lambdas and rates, half an epoch per evaluation, adaptive statistics": [
        replace(BASE, batch_norm=True, lam=lam, eta_max=eta, seed=seed, order_seed=3, bn_statistics="adaptive",
                evaluations_per_cycle=4)
        for seed, lam, eta in ((3, 0.0, 0.1), (4, 1e-3, 0.05), (5, 0.5, 0.1))
    ],
    "SiLU after whitening, contrast, weak augmentation at the end": [
        replace(BASE, activation="silu", silu_slope=1.7, whitening=40, batch_norm=True, optimizer="adam", eta_max=0.005,
                weight_decay=0.05, flip=True, shift=4, contrast=0.3, weak_augmentation=0.3, schedule="one-cycle")
    ],
}  # fmt: skip


def images() -> Dataset:
    """Return 6 files of 400 random images, with a pattern per class that a network can learn."""
    rng = np.random.default_rng(11)
    labels = rng.permutation(np.arange(2400) % 10).astype(np.uint8)
    patterns = rng.integers(0, 256, (10, 3072))
    pixels = (0.35 * patterns[labels] + 0.65 * rng.integers(0, 256, (2400, 3072))).astype(np.uint8)
    return Dataset("odd", pixels, labels, tuple(map(str, range(10))), "0" * 64, "tests", "built in", None, None)


def measured(**other: Any) -> dict[str, Any]:
    """Train all of them, with `other` settings such as the dtype; return every metric but the seconds."""
    splits = split(images(), DIVISION)
    found: dict[str, Any] = {}
    for name, configs in TRAININGS.items():
        results = train([replace(config, **other) for config in configs], splits)
        found[name] = [
            {
                "epochs": [
                    {key: value for key, value in asdict(epoch).items() if key != "seconds"} for epoch in result.epochs
                ],
                "test": None if result.test is None else asdict(result.test),
                "ensemble": None if result.ensemble is None else asdict(result.ensemble),
            }
            for result in results
        ]
    return found


def kernel() -> str:
    """Return what decides the bits beside the code: NumPy's version, and its BLAS with the kernel in use."""
    [blas] = [pool for pool in threadpoolctl.threadpool_info() if "numpy" in pool["filepath"]]
    return f"NumPy {np.__version__}, {blas['internal_api']} {blas['version']} {blas['architecture']}"


def document() -> str:
    """Return the text of the file: a line for every training."""
    parts = [f'"made_with": {json.dumps(kernel())}']
    for name, other in (("trainings", {}), ("in_float64", {"dtype": "float64"})):
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in measured(**other).items())
        parts.append(f'"{name}": {{\n{lines}\n}}')
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
