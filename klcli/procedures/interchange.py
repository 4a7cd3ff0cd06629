"""Interchange: write a stored network with the names and the orientation of a PyTorch state_dict.

`klcli help checkpoints` has the lines of PyTorch that read the file.
"""

import json
import re
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from klcli.engine.layers import BatchNorm, Dropout, Linear, ReLU, SiLU, Whitening
from klcli.engine.network import Network
from klcli.files import has_member, require_export
from klcli.procedures.evaluating import StoredNetwork, stored_network
from klcli.procedures.setup import Setup
from klcli.settings.procedures import EXPORT_FORMATS
from klcli.settings.setting import require
from klcli.store.checkpoints import npz, write_atomically
from klcli.text import path_text

LARGEST_HEADER = 1_000_000  # bytes of a file of safetensors before its arrays
ABOUT = "klcli"  # in both formats, the key of a JSON object: the layers in order, and where the network comes from
ACCURACIES = ("validation_accuracy", "test_accuracy")

Module = dict[str, Any]  # the name of a layer, its class in torch.nn, and the arguments of that


def export_network(setup: Setup, which: str, to: str, file: Path | None) -> Path:
    """Write the network of a run in one of the EXPORT_FORMATS and return the file, `network-000003.npz` if omitted.

    Raises ConfigError if the format is unknown, its library is missing, or the file is named as another format or as a
    checkpoint or is not an earlier export, and StoreError for the run or if the file cannot be written.
    """
    require(to in EXPORT_FORMATS, f"--to {to}: choose one of {', '.join(EXPORT_FORMATS)}")
    if file is not None:
        named = f"{path_text(file)}: --to {to} writes a file whose name ends in .{to}, name it so"
        require(file.suffix == f".{to}", named)
        taken = f"{path_text(file)}: this is the name of a checkpoint, choose another, for example network.{to}"
        require(not re.fullmatch(r"run-\d+(\.previous)?\.npz", file.name), taken)
    cure = "get it with `pip install 'klcli[safetensors]'`, or choose --to npz"
    missing = f"--to safetensors: the package safetensors is not installed, {cure}"
    require(to != "safetensors" or find_spec("safetensors") is not None, missing)
    found = stored_network(setup, which)
    path = require_export(file or Path(f"network-{found.run.id if found.run else 0:06d}.{to}"), _is_export)
    if found.has_batch_statistics:
        setup.observer.warn(f"{found.name} was evaluated with batch statistics, the file has its running averages")
    if found.run and found.run.state != "complete":
        update = f"the file has its network of update {found.checkpoint.step}"
        setup.observer.warn(f"{found.name} is {found.run.state}, {update}")
    write_atomically(path, exported(found, to))
    return path


def exported(found: StoredNetwork, to: str) -> bytes:
    """Return the content of a file in one of the EXPORT_FORMATS: the arrays, and a JSON text under the key ABOUT."""
    [one] = found.networks
    arrays, modules = torch_modules(one.network, found.checkpoint.step)
    if found.config.standardise == "pixel":  # by image, no number of the training images is needed
        pixels = {"pixels.mean": found.inputs.mean, "pixels.std": found.inputs.std}
        arrays |= {name: array.astype(found.config.dtype) for name, array in pixels.items()}
    described = json.dumps(_about(found, modules))
    if to == "safetensors":
        from safetensors.numpy import save

        return bytes(save(arrays, {"format": "pt", ABOUT: described}))
    return npz({**arrays, ABOUT: described})


def torch_modules(network: Network, step: int) -> tuple[dict[str, np.ndarray], list[Module]]:
    """Return the arrays of a state_dict, and the layers in order with their classes in torch.nn and its arguments.

    `Linear.weight` is (d_out, d_in), the transpose of W; BN's weight is gamma, its bias beta; `step` updates are done.
    PyTorch's momentum is the weight of the present, `1 - alpha`. V becomes a Linear without bias.
    """
    arrays, modules = dict[str, np.ndarray](), list[Module]()
    for name, layer in network.layers.items():
        own: dict[str, np.ndarray] = {}
        match layer:
            case Whitening(V):
                own = {"weight": V.T}
                module, arguments = "Linear", {"in_features": len(V), "out_features": V.shape[1], "bias": False}
            case Linear(W, b):
                own = {"weight": W.T, "bias": b}
                module, arguments = "Linear", {"in_features": len(W), "out_features": len(b), "bias": True}
            case BatchNorm(gamma, beta, alpha, eps, mean, variance):
                own = {
                    "weight": gamma,
                    "bias": beta,
                    "running_mean": np.zeros_like(gamma) if mean is None else mean,  # without any update
                    "running_var": np.ones_like(gamma) if variance is None else variance,
                    "num_batches_tracked": np.array(step, np.int64),
                }
                numbers = {"eps": eps, "momentum": round(1 - alpha, 15)}
                module, arguments = "BatchNorm1d", {"num_features": len(gamma), **numbers}
            case ReLU():
                module, arguments = "ReLU", {}
            case SiLU(slope):  # PyTorch's has the slope 1
                module, arguments = ("SiLU", {}) if slope == 1 else ("SlopedSiLU", {"slope": slope})
            case Dropout(p):
                module, arguments = "Dropout", {"p": p}
        arrays |= {f"{name}.{key}": np.asarray(array, order="C") for key, array in own.items()}
        modules.append({"name": name, "module": module, "arguments": arguments})
    return arrays, modules


def _about(found: StoredNetwork, modules: list[Module]) -> dict[str, Any]:
    """Return what a reader of the file needs besides the arrays, for JSON."""
    run, origin = found.run, found.checkpoint.origin
    return {
        "layers": modules, "standardise": found.config.standardise, "class_names": found.inputs.class_names,
        "dataset": found.dataset, "dataset_sha256": run.dataset_sha256 if run else origin.get("dataset_sha256"),
        "step": found.checkpoint.step, "run": run.id if run else None,
        **{name: getattr(run, name, None) for name in ACCURACIES},
        "settings": asdict(found.config),
        "versions": run.versions if run else json.loads(origin.get("versions", "{}")),
    }  # fmt: skip


def _is_export(path: Path) -> bool:
    """Whether a file is an export in the format of its name."""
    if path.suffix == ".npz":
        return has_member(path, f"{ABOUT}.npy")
    with path.open("rb") as file:  # the length of the JSON text, and the text
        return f'"{ABOUT}":' in file.read(8 + LARGEST_HEADER).decode(errors="replace")
