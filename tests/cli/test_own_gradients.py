"""`klcli gradcheck --export` and `--against`: a program of its own, with columns as images, makes every mistake."""

# ruff: noqa: E741  l is the number of a layer

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused
from machine import set_machine
from thinning import mostly_slow

from klcli import Lab, TrainConfig
from klcli.report.tables.compared_gradients import compared_notes
from klcli.settings.procedures import CheckSettings
from klcli.studies.gradient_mistakes import CATALOGUE

Arrays = dict[str, np.ndarray]
PAGE = files("klcli").joinpath("docs", "gradients.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with exports of networks whose W are all square, with n = 8 images: no shape betrays a mistake."""
    folder = tmp_path_factory.mktemp("own")
    settings = CheckSettings(images=8, dims=10)
    with pytest.MonkeyPatch.context() as patch:
        set_machine(patch, shared_cache)
        lab = Lab(folder / "klcli.db", data="synthetic")
        for name, more in NETWORKS.items():
            config = TrainConfig(**{"hidden": (10, 10), "lam": 0.1} | more)
            lab.export_gradients(folder / f"{name}.npz", config, settings)
    return folder


NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small lambda": {"lam": 1e-6},
    "bn": {"batch_norm": True},
    "after": {"batch_norm": True, "bn_position": "after"},
    "one": {"batch_norm": True, "hidden": (10,)},
    "three": {"batch_norm": True, "hidden": (10, 10, 10)},
    "three after": {"batch_norm": True, "hidden": (10, 10, 10), "bn_position": "after"},
    "large eps": {"batch_norm": True, "bn_eps": 0.01},
    "dropout": {"batch_norm": True, "dropout": 0.4, "label_smoothing": 0.2},
    "silu": {"activation": "silu", "silu_slope": 1.702},
}


def bn_back(G: np.ndarray, S: np.ndarray, v: np.ndarray, eps: float, wrong: str) -> np.ndarray:
    """BatchNormBackPass of the course, G already times gamma."""
    n, D = S.shape[1], S - S.mean(axis=1, keepdims=True)
    powers = {"no std": (0, -1), "power": (-0.5, -0.5), "powers of std": (-0.25, -0.75), "powers of v": (-1, -3)}
    sigma1, sigma2 = ((v + eps * (wrong != "no eps")) ** power for power in powers.get(wrong, (-0.5, -1.5)))
    G1, G2 = G * sigma1, G * sigma2
    D = {"D of S": S, "D of hat": D / np.sqrt(v + eps)}.get(wrong, D)
    factors = {
        "constant": (0, 0), "no mean": (0, 1), "no variance": (1, 0), "mean sign": (-1, 1), "variance sign": (1, -1),
        "both signs": (-1, -1), "mean sum": (n, 1), "variance sum": (1, n), "bn sum": (n, n),
        "variance half": (1, 0.5), "variance double": (1, 2), "unbiased": (1, n / (n - 1)),
    }  # fmt: skip
    of_mean, of_variance = factors.get(wrong, (1, 1))
    G1_sum = (G if wrong == "mean of G" else G1).sum(axis=1, keepdims=True)
    G = G1 - of_mean * G1_sum / n - of_variance * D * (G2 * D).sum(axis=1, keepdims=True) / n
    return np.asarray(G * np.sqrt((v + eps) / (v * n / (n - 1) + eps)) if wrong == "unbiased factor" else G)


def student(file: Path, wrong: str = "") -> Arrays:  # noqa: PLR0912, PLR0915
    """A student's program in the notation of the course: images are columns, W is (outputs, inputs), b a column."""
    f = dict(np.load(file))
    if wrong == "float32":
        f |= {key: array.astype(np.float32) for key, array in f.items() if array.dtype == np.float64}
    c = json.loads(str(f["settings"]))["config"]
    X, y, lam, eps, n = f["X_T"], f["y"], float(f["lambda"]), float(f["eps"]), len(f["y"])
    k, has_bn, after, eta = len(c["hidden"]) + 1, c["batch_norm"], c["bn_position"] == "after", 0.05
    ddof = 1 if wrong in ("unbiased", "unbiased forward") else 0
    if wrong.startswith("eps "):
        eps = float(wrong.split()[1])

    def act(S: np.ndarray) -> np.ndarray:
        return S / (1 + np.exp(-1.702 * S)) if c["activation"] == "silu" else S * (S > 0)

    def act_back(S: np.ndarray, l: int) -> np.ndarray:
        if c["activation"] == "silu":
            s = 1 / (1 + np.exp(-1.702 * S))
            return s + 1.702 * S * s * (1 - s)
        masks = {"mask before": A_in[l - 1], "mask after": A_in[l + 1] if l + 1 < k else S_out, "no mask": S * 0 + 1,
                 "inverted": -S, "mask of input": linear[l]}  # fmt: skip
        return masks.get(wrong, S) > 0

    H, A_in, linear, norm = X, {0: X}, {}, {}
    inputs = {}
    for l in range(1, k):
        inputs[l] = H
        S = linear[l] = f[f"W{l}_T"] @ H + f[f"b{l}"][:, None]
        for step in ("act", "bn") if after else ("bn", "act"):
            if step == "act":
                A_in[l] = S
                S = act(S)
            elif has_bn:
                m, v = S.mean(axis=1, keepdims=True), S.var(axis=1, keepdims=True, ddof=ddof)
                v = (np.sqrt(v) + eps) ** 2 - eps if wrong == "outside eps" else v
                norm[l] = (S, m, v, (S - m) / np.sqrt(v + eps))
                S = f[f"gamma{l}"][:, None] * norm[l][3] + f[f"beta{l}"][:, None]
        H = S * f[f"mask{l}"].T if f"mask{l}" in f else S
    inputs[k] = H
    S_out = f[f"W{k}_T"] @ H + f[f"b{k}"][:, None]
    E = np.exp(S_out - S_out.max())
    P = E / E.sum(axis=1, keepdims=True) if wrong == "softmax axis" else E / E.sum(axis=0)
    Y = np.eye(10)[:, y]
    Q = Y if wrong == "smoothing" else Y * (1 - c["label_smoothing"]) + c["label_smoothing"] / 10
    twice = np.exp(P) / np.exp(P).sum(axis=0) - Q  # of a loss that takes P for the scores
    twice = P * (twice - (twice * P).sum(axis=0))
    G = {"no one-hot": P, "sign": Q - P, "softmax twice": twice}.get(wrong, P - Q)
    G = G / {"sum": 1, "twice": n * n, "classes": n * 10, "half loss": 2 * n}.get(wrong, n)
    out: Arrays = {"scores": S_out, "probabilities": P}
    factor = {"l2 1": 1, "l2 4": 4, "no l2": 0, "l2 -2": -2, "l2 / n": 2 / n, "l2 0.5": 0.5}.get(wrong, 2)
    for l in range(k, 0, -1):
        W = f[f"W{l}_T"]
        if l < k:
            for step in ("bn", "act") if after else ("act", "bn"):
                if step == "act":
                    G = G if wrong == "no dropout" or f"mask{l}" not in f or after else G * f[f"mask{l}"].T
                    G = G * act_back(A_in[l], l)
                elif has_bn:
                    S, m, v, hat = norm[l]
                    back = {"unbiased back": v * n / (n - 1)}.get(wrong, v)
                    gamma, beta = f[f"gamma{l}"][:, None], f[f"beta{l}"][:, None]
                    seen = {"dgamma input": S, "dgamma centred": S - m, "dgamma none": 1,
                            "dgamma output": gamma * hat + beta}.get(wrong, hat)  # fmt: skip
                    own = G * {"no dgamma": 0, "dgamma late": gamma, "dgamma n": n}.get(wrong, 1)
                    out[f"dgamma{l}"], out[f"dbeta{l}"] = (own * seen).sum(axis=1), own.sum(axis=1)
                    if wrong in ("l2 bn", "l2 all"):
                        out[f"dgamma{l}"] = out[f"dgamma{l}"] + 2 * lam * f[f"gamma{l}"]
                        out[f"dbeta{l}"] = out[f"dbeta{l}"] + 2 * lam * f[f"beta{l}"]
                    if wrong == "swapped":
                        out[f"dgamma{l}"], out[f"dbeta{l}"] = out[f"dbeta{l}"], out[f"dgamma{l}"]
                    G = bn_back(G * gamma ** {"no gamma": 0, "gamma twice": 2}.get(wrong, 1), S, back, eps, wrong)
        dW, db = G @ inputs[l].T, G.sum(axis=1, keepdims=True)
        dW, db = {"dW n": (n * dW, db), "db mean": (dW, db / n), "no db": (dW, 0 * db)}.get(wrong, (dW, db))
        l2 = (2 if l < k else 1) if wrong == "l2 in layer 3" else factor
        dW = dW + l2 * lam * W
        if wrong in ("l2 b", "l2 all"):
            db = db + 2 * lam * f[f"b{l}"][:, None]
        out |= {f"dW{l}_T": dW, f"db{l}": db}
        G = {"W": W, "updated": (W - eta * dW).T}.get(wrong, W.T) @ G
    if wrong == "half":
        out |= {key: out[key] / 2 for key in out if key.startswith("d")}
    if wrong == "all signs":
        out |= {key: -out[key] for key in out if key.startswith("d")}
    if wrong == "transposed":
        out |= {key: out[key].T for key in out if key.startswith("dW")}
    if wrong == "reversed":
        pairs = [(f"dW{l}_T", f"dW{4 - l}_T") for l in (1, 2, 3)] + [(f"db{l}", f"db{4 - l}") for l in (1, 2, 3)]
        pairs += [(f"d{name}{l}", f"d{name}{3 - l}") for name in ("gamma", "beta") for l in (1, 2) if has_bn]
        out |= {a: out[b] for a, b in pairs}
    return out


def verdict(folder: Path, network: str, arrays: Arrays, mine: Path) -> tuple[set[str], list[str], list[str]]:
    """Return what is named, which arrays fail, and the layers of mistakes that are in one alone."""
    np.savez(mine, **arrays)
    found = Lab().compare_gradients(mine, folder / f"{network}.npz")
    named = {" + ".join(one.name for one in explained.mistakes) for explained in found.explanations}
    layers = [str(one.layer) for one in found.explanations if one.layer]
    return named, [one.key for one in found.failed], layers


@pytest.mark.parametrize("network", NETWORKS)
def test_right_gradients_pass_in_either_orientation(network: str, folder: Path, tmp_path: Path) -> None:
    arrays = student(folder / f"{network}.npz")
    assert verdict(folder, network, arrays, tmp_path / "mine.npz") == (set(), [], [])
    turned = {key.removesuffix("_T"): array.T if key.endswith("_T") else array for key, array in arrays.items()}
    assert verdict(folder, network, turned, tmp_path / "mine.npz") == (set(), [], [])


PLANTED = {
    "sum": "1/n missing, sum for mean", "twice": "1/n twice", "classes": "mean over images and classes",
    "sign": "wrong sign of the loss", "all signs": "wrong sign of every gradient",
    "no one-hot": "one-hot labels not subtracted", "softmax axis": "softmax over the images",
    "softmax twice": "softmax twice",
    "l2 1": "factor 2 of L2 missing", "l2 4": "factor 2 of L2 twice", "no l2": "L2 missing",
    "l2 -2": "L2 with the wrong sign", "l2 / n": "L2 divided by n", "l2 b": "lambda on b",
    "l2 bn": "lambda on gamma and beta", "l2 all": "lambda on b, gamma and beta",
    "transposed": "transposed W", "reversed": "layers in reversed order", "W": "W not transposed in dX",
    "updated": "dX with the updated W", "dW n": "dW without 1/n", "db mean": "db as a mean",
    "no db": "no gradient of b",
    "no mask": "no ReLU mask", "inverted": "ReLU mask inverted", "mask before": "ReLU mask of the layer before",
    "mask after": "ReLU mask of the layer after", "mask of input": "ReLU mask on the wrong side of BN",
    "float32": "float32 rounding", "half": "a factor", "half loss": "a factor", "eps 1e-5": "BN with eps 1e-5",
}  # fmt: skip


OF_BN = {
    "constant": "BN treated as constant", "no mean": "no gradient through the mean of BN",
    "no variance": "no gradient through the variance of BN", "mean sign": "wrong sign of the mean term of BN",
    "variance sign": "wrong sign of the variance term of BN", "both signs": "wrong sign of both terms of BN",
    "mean sum": "1/n missing in the mean term of BN", "variance sum": "1/n missing in the variance term of BN",
    "bn sum": "sum for mean in BN", "mean of G": "1/std missing in the mean term of BN",
    "power": "(v + eps)^-0.5 for (v + eps)^-1.5 in the variance term of BN",
    "powers of std": "powers of std for those of v + eps in dX of BN",
    "powers of v": "powers of v + eps for those of std in dX of BN",
    "D of S": "X for X - mu in the variance term of BN", "D of hat": "X_hat for X - mu in the variance term of BN",
    "variance half": "variance term of BN halved", "variance double": "variance term of BN doubled",
    "no gamma": "gamma missing in dX of BN", "gamma twice": "gamma twice in dX of BN",
    "no std": "1/std missing in dX of BN", "unbiased": "unbiased variance, with its own derivative",
    "unbiased forward": "unbiased variance",
    "unbiased back": "unbiased variance in both powers of the backward pass",
    "unbiased factor": "unbiased variance in the backward pass",
    "swapped": "dgamma and dbeta swapped", "dgamma input": "dgamma of the input that is not normalised",
    "dgamma centred": "dgamma without 1/std", "dgamma none": "dgamma without X_hat",
    "dgamma output": "dgamma of the output of BN",
    "dgamma late": "dgamma and dbeta of G that is already times gamma", "no dgamma": "no gradient of gamma and beta",
    "dgamma n": "dgamma and dbeta without 1/n",
}  # fmt: skip
OF_OTHER_NETWORKS = [
    ("dropout", "smoothing", "label smoothing missing"), ("dropout", "no dropout", "no dropout mask"),
    ("plain", "no mask", "no ReLU mask"), ("after", "constant", "BN treated as constant"),
    ("silu", "no l2", "L2 missing"),
    ("large eps", "no eps", "eps missing in dX of BN"),
    ("large eps", "outside eps", "eps outside the square root of BN"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "wrong", "name"),
    mostly_slow([*(("bn", *one) for one in (PLANTED | OF_BN).items()), *OF_OTHER_NETWORKS], 3),
)
def test_a_planted_mistake_is_named(network: str, wrong: str, name: str, folder: Path, tmp_path: Path) -> None:
    named, failed, layers = verdict(folder, network, student(folder / f"{network}.npz", wrong), tmp_path / "mine.npz")
    assert failed
    assert named == {name}
    assert layers == []


@pytest.mark.slow
def test_a_small_mistake_in_float64_is_no_rounding_of_float32(folder: Path, tmp_path: Path) -> None:
    """With a small lambda, a wrong L2 term is as near as float32, but the gradients of b are right in float64."""
    arrays, mine = student(folder / "small lambda.npz", "l2 0.5"), tmp_path / "mine.npz"
    assert verdict(folder, "small lambda", arrays, mine) == (set(), ["dW1", "dW2", "dW3"], [])
    named, _, _ = verdict(folder, "small lambda", {key: -array for key, array in arrays.items()}, mine)
    assert named == set()  # nor is it the wrong sign of every gradient to the precision of float32
    assert verdict(folder, "small lambda", student(folder / "small lambda.npz", "l2 1"), mine)[0] == {
        "factor 2 of L2 missing"
    }


@pytest.mark.parametrize("network", mostly_slow(NETWORKS, 2))
@pytest.mark.parametrize("part", ["X", ""])
def test_images_or_a_program_in_float32_are_named(part: str, network: str, folder: Path, tmp_path: Path) -> None:
    f, file = dict(np.load(folder / f"{network}.npz")), tmp_path / "rounded.npz"
    rounded = {key: f[key].astype(np.float32) for key in f if key.startswith(part) and f[key].dtype == np.float64}
    # With a part alone, float64 formulas.
    kept = {key: array.astype(np.float64) for key, array in rounded.items()} if part else rounded
    np.savez(file, **f | kept)
    found = verdict(folder, network, student(file), tmp_path / "mine.npz")
    assert found[0] == ({"float32 rounding"} if [key for key in found[1] if key.startswith("d")] else set())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["one", "after", "three", "three after", "large eps"])
def test_a_mistake_of_bn_is_named_in_networks_of_any_depth(network: str, folder: Path, tmp_path: Path) -> None:
    for wrong, name in OF_BN.items():
        arrays = student(folder / f"{network}.npz", wrong)
        assert verdict(folder, network, arrays, tmp_path / "mine.npz")[0] == {name}


def test_a_mistake_in_one_layer_and_arrays_that_leave_two_open(folder: Path, tmp_path: Path) -> None:
    file, mine = folder / "bn.npz", tmp_path / "mine.npz"
    assert verdict(folder, "bn", student(file, "l2 in layer 3"), mine) == ({"factor 2 of L2 missing"}, ["dW3"], ["3"])
    f = np.load(file)
    assert verdict(folder, "bn", {"dW3": -f["dW3"]}, mine)[0] == {"wrong sign of every gradient"}
    # From db of the output layer alone, a sum over the images cannot be told from 1/n missing.
    several = {"1/n missing, sum for mean", "db without 1/n"}
    assert verdict(folder, "bn", {"db3": 8 * f["db3"]}, mine)[0] == several


@pytest.mark.parametrize(
    ("halved", "words"),
    [
        (["dW1", "db1", "dW2", "db2", "dW3", "db3", "dgamma1", "dbeta1", "dgamma2", "dbeta2"], "every gradient"),
        (["dW1", "dW2", "dW3"], "every dW"),
        (["dW3", "db3"], "layer 3 alone"),
        (["dgamma2"], "dgamma2 alone"),
    ],
)
def test_a_factor_is_named_with_what_has_it(halved: list[str], words: str, folder: Path, tmp_path: Path) -> None:
    f = np.load(folder / "bn.npz")
    arrays = {key: f[key] for key in f.files if key.startswith("d") and not key.endswith("_T")}
    np.savez(tmp_path / "mine.npz", **arrays | {key: 0.3 * f[key] for key in halved})
    found = Lab().compare_gradients(tmp_path / "mine.npz", folder / "bn.npz")
    assert [str(one) for one in found.explanations] == [f"a factor, 0.3, of {words}"]


@pytest.mark.parametrize("eps", ["0.1", "1e-4", "1e-6", "1e-7", "1e-10", "0"])
def test_another_eps_is_named_and_not_taken_for_float32(eps: str, folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **student(folder / "bn.npz", f"eps {eps}"))
    found = Lab().compare_gradients(tmp_path / "mine.npz", folder / "bn.npz", CheckSettings(rtol=1e-12, atol=1e-12))
    assert found.failed
    assert [str(one) for one in found.explanations] == [f"BN with another eps {float(eps):g}"]


def test_float32_can_be_allowed(folder: Path, tmp_path: Path) -> None:
    [atol, rtol] = re.findall(r"`--rtol (\S+) --atol (\S+)`", PAGE)[0][::-1]
    np.savez(tmp_path / "mine.npz", **student(folder / "bn.npz", "float32"))
    settings = CheckSettings(atol=float(atol), rtol=float(rtol))
    assert not Lab().compare_gradients(tmp_path / "mine.npz", folder / "bn.npz", settings).failed


def test_two_mistakes_at_once_and_one_that_is_not_known(folder: Path, tmp_path: Path) -> None:
    file, mine = folder / "bn.npz", tmp_path / "mine.npz"
    f, arrays = np.load(file), student(file, "constant")
    arrays |= {f"dW{l}_T": arrays[f"dW{l}_T"] - 0.1 * f[f"W{l}_T"] for l in (1, 2, 3)}
    named, _, _ = verdict(folder, "bn", arrays, mine)
    assert named == {"factor 2 of L2 missing + BN treated as constant"}
    arrays = student(file)
    arrays["dW2_T"] = arrays["dW2_T"] ** 3
    assert verdict(folder, "bn", arrays, mine) == (set(), ["dW2"], [])


@pytest.mark.slow
def test_of_three_mistakes_those_of_the_output_layer_come_first(folder: Path, tmp_path: Path) -> None:
    f, arrays = np.load(folder / "bn.npz"), student(folder / "bn.npz", "constant")
    arrays |= {f"dW{l}_T": arrays[f"dW{l}_T"] - 0.1 * f[f"W{l}_T"] for l in (1, 2, 3)}
    arrays |= {f"db{l}": arrays[f"db{l}"] / 8 for l in (1, 2, 3)}
    assert verdict(folder, "bn", arrays, tmp_path / "mine.npz")[0] == {"factor 2 of L2 missing + db as a mean"}


def test_the_command_shows_what_to_correct_first(here: Klcli, folder: Path, tmp_path: Path) -> None:
    arrays = student(folder / "bn.npz", "unbiased")
    np.savez(tmp_path / "mine.npz", dGamma1=arrays["dgamma1"], W1=np.load(folder / "bn.npz")["W1"] + 1, **arrays)
    ended = here("gradcheck", "--against", "mine.npz", "--reference", str(folder / "bn.npz"))
    assert ended.returncode == 5
    assert ended.stderr.startswith("klcli: mine.npz: not equal to the reference: W1, scores, probabilities, dW1")
    for line in (
        "FAIL: 2 of 13 arrays equal the reference",
        "W1: read from the export, changed before it was saved",
        "scores, probabilities: correct the forward pass first, every gradient depends on it",
        "the first wrong gradient, counted from the output: db3",
        "likely mistake: unbiased variance, with its own derivative",
        "ignored: dGamma1, no key of the export, did you mean dgamma1?",
    ):
        assert line in ended.stdout.splitlines()
    assert max(map(len, ended.stdout.splitlines())) < 120
    np.savez(tmp_path / "one.npz", dW1_T=arrays["dW1_T"])
    assert (
        "FAIL: 0 of 1 array equals the reference"
        in here("gradcheck", "--against", "one.npz", "--reference", str(folder / "bn.npz")).stdout.splitlines()
    )
    ended = here("gradcheck", "--against", "mine.npz", "--reference", str(folder / "bn.npz"), "--json")
    assert ended.returncode == 5
    document = json.loads(ended.stdout)
    assert document["mistakes"][0]["names"] == ["unbiased variance, with its own derivative"]
    assert (document["first_wrong"], document["ignored"]) == ("db3", ["dGamma1"])


def notes(arrays: Arrays, folder: Path, mine: Path) -> list[str]:
    """Return the sentences about the gradients of a program for the network `bn`."""
    np.savez(mine, **arrays)
    return [*compared_notes(Lab().compare_gradients(mine, folder / "bn.npz"))]


def test_a_wrong_cost_alone_is_no_wrong_forward_pass(folder: Path, tmp_path: Path) -> None:
    f, mine = np.load(folder / "bn.npz"), tmp_path / "mine.npz"
    halved = {"scores": f["scores"], "loss": f["loss"], "cost": (f["loss"] + f["cost"]) / 2}
    found = notes(student(folder / "bn.npz", "l2 1") | halved, folder, mine)
    assert "cost: J is the mean cross-entropy plus lambda times the sum of W squared" in found
    assert not any("forward pass" in note for note in found)
    found = notes(student(folder / "bn.npz") | {"scores": f["scores"] + 1, "loss": f["loss"] + 1}, folder, mine)
    assert "scores, loss: correct the forward pass first, every gradient depends on it" in found


def test_scores_in_float32_are_no_wrong_forward_pass(folder: Path, tmp_path: Path) -> None:
    arrays = student(folder / "bn.npz", "float32")
    found = notes(arrays, folder, tmp_path / "mine.npz")
    assert "likely mistake: float32 rounding" in found
    assert not any("forward pass" in note for note in found)
    found = notes(arrays | {"scores": arrays["scores"] + 1}, folder, tmp_path / "mine.npz")
    assert "scores: correct the forward pass first, every gradient depends on it" in found
    rounded = {key: arrays[key] for key in ("scores", "probabilities")}
    cure = "right to the precision of float32: use float64, or allow it by --atol and --rtol"
    [verdict, none, said] = notes(rounded, folder, tmp_path / "mine.npz")
    assert (verdict.partition(":")[0], none.partition(",")[0]) == ("FAIL", "no gradient is among them")
    assert re.fullmatch(rf"scores(, probabilities)?: {cure}", said)
    f = np.load(folder / "bn.npz")
    l2 = {f"dW{l}_T": arrays[f"dW{l}_T"] - np.float32(0.2) * f[f"W{l}_T"].astype(np.float32) for l in (1, 2, 3)}
    found = notes(arrays | l2, folder, tmp_path / "mine.npz")
    assert "likely mistake: L2 missing (to the precision of float32)" in found
    assert not any("forward pass" in note or cure in note for note in found)
    right = {key: f[key] for key in f.files if key.startswith("d") and not key.endswith("_T")}
    assert notes(rounded | right, folder, tmp_path / "mine.npz")[1:] == [said]


@pytest.mark.parametrize("eps", ["1e-3", "1e-5"])
def test_a_wrong_forward_pass_in_float32_is_no_rounding(eps: str, folder: Path, tmp_path: Path) -> None:
    """With eps 1e-5 for 1e-8, the error of the scores is only some ten times that of float32."""
    arrays = {key: array.astype(np.float32) for key, array in student(folder / "bn.npz", f"eps {eps}").items()}
    wrong, mine = {key: arrays[key] for key in ("scores", "probabilities")}, tmp_path / "mine.npz"
    said = "scores, probabilities: correct the forward pass first, every gradient depends on it"
    assert said in notes(wrong, folder, mine)
    assert eps == "1e-5" or said in notes(arrays, folder, mine)


@pytest.mark.parametrize("sigma", [0.01, 0.001])
def test_a_wrong_gradient_of_a_deep_network_with_small_weights_fails(
    folder: Path, tmp_path: Path, sigma: float
) -> None:
    """Without BN, no gradient is rounding alone, however small it is beside the largest."""
    config = TrainConfig(hidden=(50, 30, 20, 20, 10, 10, 10, 10, 10), initializer="normal", sigma=sigma)
    Lab(folder / "klcli.db", data="synthetic").export_gradients(folder / "deep.npz", config, CheckSettings())
    right, mine, small = student(folder / "deep.npz"), tmp_path / "mine.npz", ["db1", "db2", "db3", "db4"]
    assert np.abs(right["db1"]).max() < 1e-12 * np.abs(right["db10"]).max()
    assert verdict(folder, "deep", right, mine) == (set(), [], [])
    for factor, name in ((-1, "wrong sign of every gradient"), (0, "no gradient of b"), (1000, "a factor")):
        wrong = {key: factor * right[key] for key in small}
        named, failed, _ = verdict(folder, "deep", wrong, mine)
        assert name in named
        assert failed == small
    np.savez(mine, **right | {"db1": 0.5 * right["db1"]})
    found = Lab().compare_gradients(mine, folder / "deep.npz")
    assert [str(one) for one in found.explanations] == ["a factor, 0.5, of db1 alone"]
    np.savez(mine, **student(folder / "deep.npz", "float32"))
    assert not Lab().compare_gradients(mine, folder / "deep.npz", CheckSettings(rtol=1e-2, atol=1e-6)).failed


def test_gradients_that_a_file_lacks_are_named(folder: Path, tmp_path: Path) -> None:
    arrays = student(folder / "bn.npz") | {"DW1": np.ones(1)}
    assert "ignored: DW1, no key of the export, did you mean dW1?" in notes(arrays, folder, tmp_path / "mine.npz")
    del arrays["DW1"]
    assert not any("not compared" in note for note in notes(arrays, folder, tmp_path / "mine.npz"))
    del arrays["dW2_T"], arrays["dgamma1"]
    found = notes(arrays, folder, tmp_path / "mine.npz")
    assert found == ["PASS: 10 of 10 arrays equal the reference", "not compared, the file lacks them: dgamma1, dW2"]


def test_the_program_of_the_page_is_right(here: Klcli, tmp_path: Path) -> None:
    [commands] = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    export, _, against = (line.split()[1:] for line in commands.splitlines())
    assert here(*export, "--data", "synthetic").returncode == 0
    exec(program, {})
    ended = here(*against)
    assert ended.returncode == 0, ended.stdout
    assert "PASS: 8 of 8 arrays equal the reference" in ended.stdout
    right = program.replace("2 * lam", "lam")
    assert right != program
    exec(right, {})
    ended = here(*against)
    assert ended.returncode == 5
    assert "likely mistake: factor 2 of L2 missing" in ended.stdout
    assert len(program.splitlines()) <= 18


def test_the_page_lists_every_mistake_and_every_key(folder: Path) -> None:
    for one in CATALOGUE:
        assert f"| {one.name} | {one.cure} |" in PAGE.splitlines()
    for key in np.load(folder / "dropout.npz").files:
        assert re.search(rf"`{re.sub('[12]', '1', key.removesuffix('_T')).replace('3', '1')}`", PAGE), key


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"PK\x03\x04 and no archive", "not arrays of numbers of numpy.savez"),
        ({"dW1": np.ones((10, 9))}, "dW1 has the shape (10, 9), not (10, 10)"),
        ({"dW1": np.ones((10, 10, 1))}, "dW1 has the shape (10, 10, 1)"),
        ({"dgamma1": np.ones(9)}, "dgamma1 has the shape (9,), not (10,)"),
        ({"dw1": np.ones((10, 10))}, "none of its keys is one of the export"),
        ({"db1": np.full(10, np.nan)}, "db1 has 10 of 10 values that are not finite"),
        ({"db1": np.array([{}] * 10)}, "allow_pickle=False"),
        ({"db1": np.array(["1"] * 10)}, "db1 holds <U1"),
        ({"db1": np.ones(10, complex)}, "db1 holds complex128"),
        ({"dW1": np.ones((10, 10)), "dW1_T": np.ones((10, 10))}, "it has dW1 and dW1_T"),
        ({"dW1": np.zeros((3000, 3000))}, "more than belong to this network"),
    ],
)
def test_a_hostile_file_is_refused(
    content: bytes | Arrays | None, said: str, here: Klcli, refused: Refused, folder: Path, tmp_path: Path
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "mine.npz").write_bytes(content)
    elif content is not None:
        np.savez_compressed(tmp_path / "mine.npz", **content)  # type: ignore[arg-type]
    ended = here("gradcheck", "--against", "mine.npz", "--reference", str(folder / "bn.npz"))
    refused(ended, 2, "mine.npz", said)


def test_an_export_that_is_none_and_options_that_are_not_used(
    here: Klcli, refused: Refused, folder: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", dW1=np.ones((10, 10)))
    whole = dict(np.load(folder / "bn.npz"))
    settings = json.loads(str(whole["settings"]))
    settings["config"]["hidden"] = [60000, 60000]
    for change, said in (
        ({"dW1": whole["dW1"] + 1}, "dW1 is not the gradient of J"), ({"y": whole["y"] + 99}, "y is wrong"),
        ({"settings": np.asarray(json.dumps(settings))}, "hidden (60000, 60000)"),
    ):  # fmt: skip
        np.savez(tmp_path / "klcli.npz", **whole | change)
        refused(here("gradcheck", "--against", "mine.npz"), 2, "klcli.npz: this is no export of gradients", said)
    (tmp_path / "klcli.npz").unlink()
    refused(here("gradcheck", "--against", "mine.npz"), 2, "klcli.npz: there is no such file")
    for args, said in (
        (["--export", "mine.npz"], "this file is no export, choose another name"),
        (["--export", "a.npz", "--h", "1e-3"], "--h: --export does not use it"),
        (["--against", "mine.npz", "--lambda", "0"], "--lambda: --against does not use it"),
        (["--against", "mine.npz", "--export", "a.npz"], "--against: --export does not use it"),
        (["--reference", "a.npz"], "belongs to --against"),
        (["--export", "a.npz", "--images", "1", "--bn", "--quiet"], "give --images 2 or more"),
    ):
        refused(here("gradcheck", *args), 2, said)
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize("content", [None, b"no archive", 1000, "other keys"])
def test_the_command_that_writes_the_export_again_works(
    content: Any, here: Klcli, refused: Refused, folder: Path, tmp_path: Path
) -> None:
    """It lacked the name of the file, and a damaged file was in its way."""
    np.savez("mine.npz", dW1=np.ones((50, 30)))
    file = tmp_path / "my export.npz"
    if content == "other keys":
        np.savez(file, dW1=np.ones((50, 30)))
    elif content is not None:
        file.write_bytes(content if isinstance(content, bytes) else (folder / "bn.npz").read_bytes()[:content])
    line = refused(here("gradcheck", "--against", "mine.npz", "--reference", file.name), 2, "my export.npz: ")
    assert ("move it away and write it again" in line) == (content is not None)
    assert "and the options of your network" in line
    file.unlink(missing_ok=True)
    [command] = re.findall(r"`klcli (.*?)`", line)
    assert here(*shlex.split(command), "--data", "synthetic").returncode == 0
    assert here("gradcheck", "--against", "mine.npz", "--reference", file.name).returncode == 5


def test_an_export_has_no_shape_twice_unless_it_is_asked_for(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    """With as many images as classes, a sum over the wrong axis looked like another layer, and n like K."""
    assert here("gradcheck", "--export", "klcli.npz", "--data", "synthetic").returncode == 0
    exported = Lab(data="synthetic").export_gradients("lab.npz")
    assert exported["X"].shape == np.load("klcli.npz")["X"].shape == (12, 30)
    for wrong, name in (("twice", "1/n twice"), ("classes", "mean over images and classes")):
        assert verdict(tmp_path, "klcli", student(Path("klcli.npz"), wrong), tmp_path / "mine.npz")[0] == {name}
    np.savez("mine.npz", db1=np.ones(12))
    line = refused(here("gradcheck", "--against", "mine.npz"), 2, "db1 has the shape (12,), not (50,)")
    assert "reversed" not in line
    assert here("gradcheck", "--export", "ten.npz", "--images", "10", "--data", "synthetic").returncode == 0
    np.savez("mine.npz", **student(Path("ten.npz")))
    assert here("gradcheck", "--against", "mine.npz", "--reference", "ten.npz").returncode == 0


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"dW1": "dW2", "dW2": "dW1"}, "that is the shape of dW2, are the layers in reversed"),
        ({"dW0": "dW1", "dW1": "dW2"}, "the file has dW0, number the layers from 1"),
    ],
)
def test_another_order_of_the_layers_is_suspected_from_the_shapes(
    here: Klcli, refused: Refused, tmp_path: Path, saved: dict[str, str], said: str
) -> None:
    assert here("gradcheck", "--export", "klcli.npz", "--hidden", "7", "--data", "synthetic").returncode == 0
    f = np.load(tmp_path / "klcli.npz")
    np.savez(tmp_path / "mine.npz", **{key: f[of] for key, of in saved.items()})
    said = f"dW1 has the shape (7, 10), not (30, 7) or (7, 30): {said}"
    refused(here("gradcheck", "--against", "mine.npz"), 2, said)
