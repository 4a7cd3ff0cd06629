"""The effect of each ingredient of a preset: `python -m tests.benchmarks.ablation quick [--seeds 2] [--epochs N]`.

The preset at its full length, and then without one ingredient after the other. The seeds of a row are trained as one
stack; only validation images are evaluated. Prints a Markdown table as it goes.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

from klcli.data.augmentation import views
from klcli.data.dataset import Splits, split
from klcli.data.sources import open_dataset
from klcli.evaluation.metrics import log_mean, log_probabilities, score_of
from klcli.settings.presets import preset
from klcli.training.cores import cores
from klcli.training.result import TrainResult
from klcli.training.trainer import train

WITHOUT: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no shifts": {"shift": 0},
    "pixels in place of whitened components": {"whitening": None},
    "no flips": {"flip": False},
    "ReLU in place of SiLU": {"activation": "relu", "silu_slope": 1.0},
    "no contrast": {"contrast": 0.0},
    "no weak augmentation at the end": {"weak_augmentation": 0.0},
    "no dropout": {"dropout": 0.0},
    "no batch normalisation, eta_max 0.001": {"batch_norm": False, "eta_max": 0.001},
    "no weight decay": {"weight_decay": 0.0},
    "no average of the weights": {"weight_average": 0.0},
    "SGD with Nesterov momentum": {"optimizer": "sgd", "momentum": 0.9, "eta_max": 0.1, "weight_decay": 5e-4},
}


def main() -> None:
    """Train every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--epochs", type=int, help="default: those of the preset")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="names of rows, beside the first one; default: all")
    arguments = parser.parse_args()
    own = preset(arguments.preset).config
    base = replace(own, epochs=arguments.epochs or own.epochs, order_seed=0, evaluations_per_cycle=0)
    splits = split(open_dataset(None), base.split)
    titles = ("", "validation", "difference", "over flips and shifts by 2", "difference", "train", "minutes")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    whole: tuple[float, float] | None = None
    narrower = {"half as wide": {"hidden": tuple(width // 2 for width in base.hidden)}}
    for name, changes in (WITHOUT | narrower).items():
        if arguments.only and whole is not None and name not in arguments.only:
            continue
        started = time.perf_counter()
        config = replace(base, **changes)
        stack = [replace(config, seed=seed) for seed in range(arguments.seeds)]
        results = train(stack, splits, evaluate_test=False, cores=cores())
        minutes = (time.perf_counter() - started) / 60
        plain = statistics.mean(result.epochs[-1].validation.accuracy for result in results)
        seen = statistics.mean(over_views(result, splits) for result in results)
        on_train = statistics.mean(result.epochs[-1].train.accuracy for result in results)
        whole = (plain, seen) if whole is None else whole
        differences = (f"{100 * (one - other):+.1f}" for one, other in zip((plain, seen), whole, strict=True))
        measured = f"{plain:.4f}", next(differences), f"{seen:.4f}", next(differences)
        row = (*measured, f"{on_train:.4f}", f"{minutes:.1f}")
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def over_views(result: TrainResult, splits: Splits) -> float:
    """Return the validation accuracy of the mean over mirrored and moved images."""
    seen = views(splits.validation, flips=True, shifts=2)
    log_P = log_mean([log_probabilities(result.network, view, result.config.dtype) for view in seen])
    return score_of(log_P, splits.validation).accuracy


if __name__ == "__main__":
    main()
