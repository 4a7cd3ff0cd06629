"""Networks for other programs: the page of checkpoints, read by NumPy, safetensors and, where installed, PyTorch."""

import json
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused, succeeded
from PIL import Image

from klcli.data.dataset import Inputs
from klcli.data.sources import open_dataset
from klcli.engine.layers import BatchNorm
from klcli.evaluation.reevaluation import TrainedNetwork
from klcli.procedures.evaluating import StoredNetwork
from klcli.procedures.interchange import exported
from klcli.settings.train_config import TrainConfig
from klcli.store.checkpoints import Checkpoint
from klcli.training.networks import initialize

PAGE = files("klcli").joinpath("docs", "checkpoints.md").read_text(encoding="utf-8")
COMMANDS, (BY_NUMPY, BY_TORCH, FROM_NPZ, SLOPED) = (
    re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL) for language in ("sh", "python")
)
SHOWN = 50_100  # one of the test images

NETWORKS: dict[str, dict[str, Any]] = {
    "one hidden layer": {"hidden": (7,), "dtype": "float64"},
    "BN": {"hidden": (7, 5, 6), "batch_norm": True, "bn_eps": 0.3, "dtype": "float64"},
    "BN after": {"hidden": (7, 5), "batch_norm": True, "bn_position": "after", "bn_eps": 0.3, "dtype": "float64"},
    "all": {
        "hidden": (7, 5), "batch_norm": True, "activation": "silu", "silu_slope": 1.7, "whitening": 9, "dropout": 0.2,
        "standardise": "image", "dtype": "float64",
    },
    "float32": {"hidden": (7, 5), "batch_norm": True, "activation": "silu", "dtype": "float32"},
}  # fmt: skip


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def found(request: pytest.FixtureRequest) -> StoredNetwork:
    """A network with random numbers in every array."""
    config, rng = TrainConfig(**request.param), np.random.default_rng(1)
    V = rng.normal(0, 0.02, (3072, config.whitening)) if config.whitening else None
    network = initialize(config, whitening=V)
    for array in network.parameters().values():
        array += rng.normal(0, 0.1, array.shape)
    for layer in network.layers.values():
        if isinstance(layer, BatchNorm):
            layer.running_mean = rng.normal(0, 1, layer.gamma.shape).astype(config.dtype)
            layer.running_variance = rng.uniform(0.5, 2, layer.gamma.shape).astype(config.dtype)
    inputs = Inputs(rng.uniform(99, 140, 3072), rng.uniform(50, 70, 3072), tuple(f"class {i}" for i in range(10)))
    checkpoint = Checkpoint(network.state(), config.to_json(), 450, "")
    return StoredNetwork("it", None, config, checkpoint, [TrainedNetwork("it", config, network)], inputs, "synthetic")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (5, 3072)).astype(np.uint8)


def assert_same_scores(scores: np.ndarray, found: StoredNetwork, pixels: np.ndarray) -> None:
    """They are klcli's, up to the rounding of sums in its precision."""
    X, _ = found.inputs.split([*pixels], found.config.standardise).batch(slice(None), found.config.dtype)
    expected = found.networks[0].network.scores(X)
    error = (1e-12 if found.config.dtype == "float64" else 1e-6) * np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=error)


def by_formulas(arrays: dict[str, np.ndarray], about: dict[str, Any], pixels: np.ndarray) -> np.ndarray:
    """The scores of an exported network, in float64."""
    X, settings = pixels.astype(np.float64), about["settings"]
    if about["standardise"] == "image":
        X = (X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True)
    else:
        X = (X - arrays["pixels.mean"]) / arrays["pixels.std"]
    if settings["whitening"]:
        X = X @ arrays["whitening.weight"].T

    def activation(X: np.ndarray) -> np.ndarray:
        return np.maximum(X, 0) if settings["activation"] == "relu" else X / (1 + np.exp(-settings["silu_slope"] * X))

    def batch_norm(k: int, X: np.ndarray) -> np.ndarray:
        weight, bias, mean, variance, updates = (
            arrays[f"batch_norm{k}.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        )
        assert (updates.shape, updates.dtype, int(updates)) == ((), np.int64, about["step"])
        return weight * (X - mean) / np.sqrt(variance + settings["bn_eps"]) + bias

    for k in range(1, len(settings["hidden"]) + 1):
        X = X @ arrays[f"linear{k}.weight"].T + arrays[f"linear{k}.bias"]
        if settings["batch_norm"] and settings["bn_position"] == "before":
            X = batch_norm(k, X)
        X = activation(X)
        if settings["batch_norm"] and settings["bn_position"] == "after":
            X = batch_norm(k, X)
    k = len(settings["hidden"]) + 1
    return np.asarray(X @ arrays[f"linear{k}.weight"].T + arrays[f"linear{k}.bias"])


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of an exported file, and what describes them."""
    if path.suffix == ".npz":
        arrays = dict(np.load(path, allow_pickle=False))
        return arrays, json.loads(str(arrays.pop("klcli")))
    library = pytest.importorskip("safetensors")
    with library.safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["klcli"])  # noqa: SIM118


@pytest.mark.parametrize("to", ["npz", "safetensors"])
def test_formulas_of_the_exported_arrays_give_the_scores(
    found: StoredNetwork, pixels: np.ndarray, tmp_path: Path, to: str
) -> None:
    if to == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"network.{to}"
    path.write_bytes(exported(found, to))
    arrays, about = read(path)
    assert {array.dtype for array in arrays.values()} <= {np.dtype(found.config.dtype), np.dtype(np.int64)}
    assert tuple(about["class_names"]) == found.inputs.class_names
    assert_same_scores(by_formulas(arrays, about, pixels), found, pixels)


@pytest.mark.parametrize("to", ["npz", "safetensors"])
def test_the_lines_of_pytorch_give_the_scores(
    found: StoredNetwork, pixels: np.ndarray, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if to == "safetensors":
        pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    Path(f"network.{to}").write_bytes(exported(found, to))
    code, seen = BY_TORCH, torch.from_numpy(pixels)
    if to == "npz":
        first, last = code.index("from safetensors"), code.index("mean, std")
        code = code[:first] + FROM_NPZ + code[last:]
    if found.config.standardise == "image":  # as the page says, without the numbers of the training images
        code = re.sub(r"^mean, std = .*$", "", code, flags=re.MULTILINE).replace("mean.dtype", "torch.float64")
        seen = seen.double()
        standard = "(pixels - pixels.mean(1, keepdim=True)) / pixels.std(1, correction=0, keepdim=True)"
        code = code.replace("(pixels - mean) / std", standard)
    names: dict[str, Any] = {"pixels": seen}
    exec(f"import torch\n{SLOPED}\n{code}", names)
    assert_same_scores(names["scores"].detach().numpy(), found, pixels)


def test_the_commands_and_the_lines_of_numpy(here: Klcli, refused: Refused, trained: Path) -> None:
    pytest.importorskip("safetensors")
    pixels = open_dataset("synthetic").images[SHOWN][None]
    Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0).copy()).save(trained / "cat.png")
    documents = []
    for command in COMMANDS[0].splitlines():
        done = succeeded(here(*shlex.split(command)[1:], "--json"))
        documents.append(json.loads(done.stdout))
    assert documents[0]["pictures"] == documents[1]["pictures"]
    names: dict[str, Any] = {"pixels": pixels}
    code = BY_NUMPY.replace("run-000002.npz", "results/checkpoints/run-000002.npz")
    exec(code, names)
    for name in ("network.npz", "network.safetensors"):
        np.testing.assert_allclose(by_formulas(*read(trained / name), pixels), names["scores"], rtol=1e-6, atol=1e-6)
    P = np.exp(names["scores"][0]) / np.exp(names["scores"][0]).sum()
    assert list(documents[0]["pictures"][0]["probabilities"].values()) == pytest.approx(list(P), abs=1e-6)
    assert here("runs", "export", "last", "--to", "npz").stdout.startswith("network-000003.npz ")
    assert json.loads(here("runs", "export", "last", "--to", "npz", "--json").stdout)["run"] == 3
    checkpoint = "results/checkpoints/run-000002.npz"
    refused(here("runs", "export", "2", checkpoint, "--to", "npz"), 2, checkpoint, "name of a checkpoint")
    refused(here("runs", "export", "2", "network.pt", "--to", "npz"), 2, "network.pt", ".npz")
    refused(here("runs", "export", "2"), 2, "--to npz", "--tables FOLDER")
    refused(here("runs", "export", "2", "--to", "onnx"), 2, "onnx", "npz, safetensors")


def test_without_the_library_one_line_names_the_cure(
    here: Klcli, refused: Refused, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)  # as Python has it for a package that is missing
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    refused(here("runs", "export", "2", "--to", "safetensors"), 2, "pip install 'klcli[safetensors]'", "--to npz")


def first(key: str) -> str:
    """The key of the first layer of its kind."""
    return re.sub(r"^(linear|batch_norm)\d", r"\g<1>1", key)


def keys(heading: str) -> set[str]:
    """The keys in the first column of the table below a heading of the page; k is 1."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name.replace("<k>", "1") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("found", [NETWORKS["all"] | {"standardise": "pixel"}], indirect=True)
def test_the_page_names_every_key(here: Klcli, trained: Path, found: StoredNetwork, tmp_path: Path) -> None:
    with np.load(trained / "results/checkpoints/run-000002.npz") as file:
        stored = set(map(first, file.files))
    assert stored | {"whitening.V", "cycle1.*", "training.*", "optimizer.*"} == keys("The layout of a checkpoint")
    path = tmp_path / "network.npz"
    path.write_bytes(exported(found, "npz"))
    arrays, about = read(path)
    assert {*map(first, arrays), "klcli"} == keys("An exported network")
    assert all(f"`{name}`" in PAGE for name in about)
