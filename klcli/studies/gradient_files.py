"""Files of gradients: what another program needs to compute those of a network, and what it has computed.

An array is stored under a short key, such as `W1`, `dW1` or `scores`, with rows as samples and W (inputs, outputs); a
matrix also as its transpose, under the key with `_T`. The page `klcli help gradients` lists the keys.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from klcli.data.dataset import CLASSES, Split
from klcli.engine.gradient_check import FLOOR_OF_MAXIMA, TensorCheck, compare
from klcli.engine.layers import BatchNorm, Dropout
from klcli.engine.losses import cross_entropy, log_softmax
from klcli.errors import ConfigError
from klcli.files import open_regular
from klcli.settings.procedures import CheckSettings
from klcli.settings.setting import require
from klcli.settings.train_config import TrainConfig
from klcli.studies.gradient_checks import checked_minibatch, require_images
from klcli.studies.gradient_explanations import LEAST, Explanation, explanations
from klcli.studies.gradient_mistakes import Arrays, Problem, kind_of, number_of
from klcli.text import command_text, one_line, path_text
from klcli.training.networks import initialize

SETTINGS = "settings"  # key of a JSON text
GRADIENTS, FORWARD = ("dW", "db", "dgamma", "dbeta"), ("mean", "variance", "scores", "probabilities")
RESULTS = (*FORWARD, "loss", "cost")
ZERO = 1e-10  # with BN, a gradient below this part of the largest one is rounding alone
LARGER = 16  # a program may store the arrays of the reference this many times, compressed or not


@dataclass(frozen=True)
class ComparedArray:
    """One array of a program against that of the reference."""

    key: str
    shape: tuple[int, ...]
    errors: TensorCheck
    passed: bool

    @property
    def kind(self) -> str:
        """The letters of the key: `dW` of `dW1`."""
        return kind_of(self.key)


@dataclass(frozen=True)
class Comparison:
    """All arrays that a program and the reference have in common, and the mistakes that explain the differences."""

    config: TrainConfig
    arrays: tuple[ComparedArray, ...]  # gradients last, those of the output layer at the end
    explanations: tuple[Explanation, ...]
    since: int  # they explain the gradients of this layer and those after it; 1 for all
    ignored: Mapping[str, str | None]  # keys that the reference has not, each with a similar one
    absent: tuple[str, ...]  # gradients that the file of the program has not

    @property
    def failed(self) -> list[ComparedArray]:
        return [one for one in self.arrays if not one.passed]

    @property
    def failed_gradients(self) -> list[ComparedArray]:
        """The wrong gradients, those of the output layer first."""
        return [one for one in reversed(self.failed) if one.kind in GRADIENTS]


def exported(config: TrainConfig, train: Split, settings: CheckSettings, about: Mapping[str, Any]) -> Arrays:
    """Return the arrays of a network and its gradients, and the settings as JSON. Raises ConfigError for no images."""
    require_images(config, len(train), settings.images)
    network, _, X, y = checked_minibatch((config,), train, settings)
    arrays: dict[str, Any] = {"X": X, "y": y, "lambda": config.lam, "eps": config.bn_eps}
    arrays |= {_key(name): array for name, array in network.parameters().items()}
    inputs, scores = network.inputs(X)
    for name, S in inputs.items():
        layer, number = network.layers[name], number_of(name)
        if isinstance(layer, BatchNorm):
            arrays |= {f"mean{number}": S.mean(axis=0), f"variance{number}": S.var(axis=0)}
        if isinstance(layer, Dropout):
            arrays[f"mask{number}"] = layer.mask(len(S), S.shape[1], S.dtype)
    loss, gradients = network.gradients(X, y, config.lam, loss=partial(cross_entropy, smoothing=config.label_smoothing))
    arrays |= {"scores": scores, "probabilities": np.exp(log_softmax(scores)), "loss": loss}
    arrays["cost"] = loss + network.penalty(config.lam)
    arrays |= {f"d{_key(name)}": gradient for name, gradient in gradients.items()}
    found = {key: np.asarray(array) for key, array in arrays.items()}
    found |= {f"{key}_T": array.T.copy() for key, array in found.items() if array.ndim == 2}
    own = {"images": settings.images, "dims": settings.dims, "config": asdict(config)}
    return found | {SETTINGS: np.asarray(json.dumps({**about, **own}))}


def compare_files(
    mine: Path, reference: Path, settings: CheckSettings, say: Callable[[str], None] = lambda message: None
) -> Comparison:
    """Compare the arrays in the file of a program with those of an export. Raises ConfigError for unusable files."""
    wanted = _read(reference, None)
    problem, config = _problem(wanted, reference)
    given = _read(mine, wanted)
    pairs = _oriented(given, wanted, mine)
    arrays = [_compared(key, array, wanted, settings) for key, array in pairs.items()]
    gradients = {one.key: pairs[one.key] for one in arrays if one.kind in GRADIENTS}
    wrong = max((number_of(one.key) for one in arrays if one.kind in GRADIENTS and not one.passed), default=0)
    since, found = 1, list[Explanation]()
    for since in sorted({1, wrong}) if wrong else ():
        own = {key: array for key, array in gradients.items() if number_of(key) >= since}
        if found := explanations(problem, own, say):
            break
    ignored = [key for key in given if key not in wanted and key != SETTINGS]
    small = {key.lower(): key for key in wanted}
    similar = {key: next(map(small.get, get_close_matches(key.lower(), small, 1)), None) for key in ignored}
    absent = [key for key in wanted if kind_of(key) in GRADIENTS and key not in pairs]
    return Comparison(config, tuple(arrays), tuple(found), since, similar, tuple(absent))


def _problem(wanted: Arrays, path: Path) -> tuple[Problem, TrainConfig]:
    """Return what an export is about; its gradients must be those of its parameters."""
    try:
        config = TrainConfig.from_values(json.loads(str(wanted.pop(SETTINGS)))["config"])
        X, y = wanted["X"], wanted["y"].astype(np.intp)
        widths = [*pairwise([X.shape[1], *config.hidden, CLASSES])]
        shapes = [wanted[f"W{number}"].shape for number in range(1, len(widths) + 1)]  # before a network is constructed
        require(shapes == widths, f"W is {shapes}, hidden {config.hidden}")
        require(y.shape == X.shape[:1] and bool(np.isin(y, range(CLASSES)).all()), "y is wrong")
        network = initialize(config, d_in=X.shape[1])
        network.load_state({name: wanted[_key(name)] for name in network.parameters()})
        problem = Problem(network, X, y, config.lam, config.label_smoothing)
        for key, gradient in problem.gradients().items():
            require(_compared(key, gradient, wanted, CheckSettings()).passed, f"{key} is not the gradient of J")
    except Exception as error:  # anything may be in a file
        reason = f"{one_line(error)} is missing" if isinstance(error, KeyError) else one_line(error)
        raise ConfigError(f"{path_text(path)}: this is no export of gradients ({reason}), {_again(path)}") from error
    return problem, config


def _read(path: Path, reference: Arrays | None) -> Arrays:
    """Return the arrays of an `.npz` file in float64, of sizes that the reference allows. Raises ConfigError."""
    name = path_text(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size, own = sum(one.file_size for one in archive.infolist()), path.stat().st_size
        largest = own if reference is None else 1e6 + LARGER * sum(one.nbytes for one in reference.values())
        require(size <= largest, f"it has {size / 1e6:.0f} MB of arrays, more than belong to this network")
        with np.load(path, allow_pickle=False) as arrays:
            found = {key: np.asarray(arrays[key]) for key in arrays.files}
    except FileNotFoundError as error:
        cure = _again(path, "write it") if reference is None else "save it with numpy.savez"
        raise ConfigError(f"{name}: there is no such file, {cure}") from error
    except Exception as error:  # with a damaged archive, zipfile and NumPy can raise almost any
        cure = "save each under its key, as numpy.savez(FILE, dW1=dW1, db1=db1)" if reference else _again(path)
        raise ConfigError(f"{name}: not arrays of numbers of numpy.savez, {cure} ({one_line(error)})") from error
    for key, array in found.items():
        if key != SETTINGS and (reference is None or key in reference):
            require(array.dtype.kind in "fiu", f"{name}: {key} holds {array.dtype}, save an array of real numbers")
            found[key] = array.astype(np.float64)
            bad = array.size - int(np.isfinite(found[key]).sum())
            require(not bad, f"{name}: {key} has {bad} of {array.size} values that are not finite, compute them again")
    return found


def _again(path: Path, words: str = "move it away and write it again") -> str:
    command = command_text(["klcli", "gradcheck", "--export", str(path)])
    return f"{words} with `{command}` and the options of your network"


def _oriented(given: Arrays, wanted: Arrays, path: Path) -> Arrays:
    """Return the given arrays that the reference has, oriented like it, in its order. Raises ConfigError for a shape.

    A gradient of a square W is transposed exactly if those of all other W in the file are; other square arrays are
    oriented as they fit best.
    """
    name, found, turned = path_text(path), Arrays(), dict[str, bool]()
    known = [key for key in given if key in wanted]
    require(bool(known), f"{name}: none of its keys is one of the export, name the gradients dW1, db1, dW2, ...")
    for key in known:
        base, right = key.removesuffix("_T"), wanted[key.removesuffix("_T")]
        require(base not in found, f"{name}: it has {base} and {base}_T, save one of the two")
        array = given[key] if key == base else np.transpose(given[key])
        turned[base] = array.shape != right.shape and array.T.shape == right.shape
        found[base] = array.T if turned[base] else array
        if right.ndim < 2 and array.size == max(array.shape, default=1) == right.size:
            found[base] = array.reshape(right.shape)  # (d, 1) and (1, d)
        shape, meant = given[key].shape, " or ".join(map(str, dict.fromkeys((right.shape, right.shape[::-1]))))
        alike = [other for other in wanted if wanted[other].shape == shape and other.startswith(kind_of(base))]
        hint = f": that is the shape of {alike[0]}, are the layers in reversed order?" if alike else ""
        if (zeroth := f"{kind_of(base)}0") in given:
            hint = f": the file has {zeroth}, number the layers from 1"
        require(found[base].shape == right.shape, f"{name}: {key} has the shape {shape}, not {meant}{hint}")
    ways = {turned[key] for key in found if kind_of(key) == "dW" and len({*found[key].shape}) > 1}
    for key, array in found.items():
        if array.ndim == 2 and len({*array.shape}) == 1:
            both = (array.T, array) if ways == {True} else (array, array.T)
            found[key] = both[0] if kind_of(key) == "dW" else min(both, key=lambda one: np.abs(one - wanted[key]).max())
    return {key: found[key] for key in wanted if key in found}


def _compared(key: str, mine: np.ndarray, reference: Arrays, settings: CheckSettings) -> ComparedArray:
    right, atol = reference[key], settings.atol or 0.0
    has_bn = "dgamma1" in reference
    floor = FLOOR_OF_MAXIMA if has_bn else LEAST
    errors = compare(key, mine, right, np.zeros(mine.shape, dtype=bool), floor=floor)
    passed = errors.passes(atol, settings.rtol or 0.0)
    # BN cancels whole gradients, as that of b before it: what remains is the rounding of the gradients after it.
    others = [one for other, one in reference.items() if kind_of(other) in GRADIENTS]
    largest = max(float(np.abs(one).max(initial=0.0)) for one in others)
    is_zero = has_bn and bool(np.abs(right).max(initial=0.0) < ZERO * largest)
    return ComparedArray(key, right.shape, errors, passed or (is_zero and errors.max_absolute < atol * largest))


def _key(name: str) -> str:
    """`W1` of `linear1.W`, `gamma2` of `batch_norm2.gamma`."""
    return f"{name.partition('.')[2]}{number_of(name)}"
