"""`klcli gradcheck`: it passes on the engine, and each classic mistake ends in exit 5 with the tensor's name."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused, read

from klcli import compiled
from klcli.compiled.team import Team
from klcli.engine import network
from klcli.engine.layers import BatchNorm, Linear, ReLU
from klcli.report.plots.figure import draw

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture
def check(here: Klcli) -> Klcli:
    """Check gradients on the built-in set."""
    return lambda *args: here("gradcheck", "--data", "synthetic", "--quiet", *args)


def test_the_course_set_passes_and_is_stored(check, tmp_path, monkeypatch):
    monkeypatch.setattr("klcli.report.plots.figure.draw", draw)
    done = check("--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    names = {(one["hidden"], one["batch_norm"], one["bn_position"], one["lambda"]) for one in document["checks"]}
    for widths in ("50", "50 50", "50 50 50"):
        for lam in ("0", "0.01"):
            assert (widths, 0, None, lam) in names
            assert (widths, 1, "before", lam) in names
    assert ("50 50", 1, "after", "0") in names
    assert ("50 50", 1, "before", "0 0.005 0.1") in names
    errors = [error for one in document["checks"] for error in one["errors"]]
    assert all(error["max_absolute"] < 1e-8 or error["relative_to_sum"] < 1e-6 for error in errors)
    for one in document["checks"]:
        hidden = [f"linear{k}.b" for k in range(1, len(one["hidden"].split()) + 1)][:2]
        for error in one["errors"]:
            if error["tensor"] in hidden:
                assert (error["gradient_std"] < 1e-12) == (one["bn_position"] == "before")
    picture = tmp_path / document["picture"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(read(tmp_path, "SELECT * FROM gradient_errors")) == len(errors)


@pytest.mark.slow
def test_the_largest_seed_is_no_seed_too_many_for_the_stack(check):
    assert check("--seed", str(2**63 - 1), "--images", "2", "--dims", "2").returncode == 0


def test_the_images_of_a_check_can_be_standardised_one_by_one(check):
    spreads = []
    for how in ("pixel", "image"):
        found = json.loads(check("--hidden", "6", "--standardise", how, "--json").stdout)["checks"][0]
        spreads.append(next(error["gradient_std"] for error in found["errors"] if error["tensor"] == "linear1.W"))
    assert spreads[0] != pytest.approx(spreads[1], rel=1e-3)


def test_the_table_lists_the_tensors_of_a_named_network_in_order(check):
    out = check("--hidden", "7", "6", "--bn", "--lambda", "0.1").stdout
    tensors = [line.split()[0] for line in out.splitlines() if line.startswith((" linear", " batch_norm"))]
    layers = ["linear1.W", "linear1.b", "batch_norm1.gamma", "batch_norm1.beta"]
    layers += ["linear2.W", "linear2.b", "batch_norm2.gamma", "batch_norm2.beta", "linear3.W", "linear3.b"]
    assert tensors == layers * 2
    assert "3-layer 7-6 with BN, lambda 0.1" in out
    assert "PASS: 20 of 20 tensors" in out


def test_report_shows_the_latest_check_again(check, here):
    first = check("--hidden", "4")
    again = here("report", "--gradchecks")
    assert again.returncode == 0 and first.stdout.startswith(again.stdout)  # the check also names its picture
    assert "PASS: " in again.stdout
    limited = json.loads(here("report", "--gradchecks", "--limit", "1", "--json").stdout)
    assert sum(len(one["errors"]) for one in limited["checks"]) == 1
    assert limited["verdict"].startswith("PASS: ") and limited["verdict"] in first.stdout  # of all tensors


def heads(out: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(" tensor"))


def test_the_measures_of_the_reports_are_shown_on_request(check, here):
    small = ("--hidden", "4", "--lambda", "0")
    table = [line for line in check(*small).stdout.splitlines() if line.startswith((" tensor", " linear"))]
    assert max(map(len, table)) <= 80
    assert "of sums" not in table[0]
    how = ("--method", "forward", "--h", "1e-3", "--decimals", "4")
    out = check(*small, "--measures", "decimals", "ratios", *how).stdout
    titles = ("equal decimals", "mismatches", "of sums", "max abs", "mean gn")
    assert [title for title in titles if title in heads(out)] == [*titles[:3]]
    assert " entries differ at 4 decimals" in out
    assert "of sums, sum |ga - gn| / max(1e-07, sum |ga + gn|): below 1e-05 in " in out
    assert "mean gn" in heads(here("report", "--gradchecks", "--measures", "moments").stdout)
    [head, *_] = here("report", "--gradchecks", "--format", "csv").stdout.splitlines()
    assert {"equal_decimals", "ratio_of_sums", "difference_max"} < set(head.split(","))


def test_the_threshold_and_the_decimals_are_those_given(check):
    shares = []
    for decimals, threshold in (("0", "1"), ("16", "1e-30")):
        limits = ("--decimals", decimals, "--threshold", threshold)
        out = check("--hidden", "4", "--lambda", "0", "--measures", "all", *limits).stdout
        shares.append(out.count("100.0%"))
        assert f"below {threshold} in {4 if threshold == '1' else 0} of 4 tensors" in out
    assert shares == [0, 4]


def test_a_check_of_an_older_klcli_has_no_measures_and_is_shown(check, here, tmp_path):
    check("--hidden", "4")
    with sqlite3.connect(tmp_path / "results/klcli.db") as db:
        db.execute("DELETE FROM _sqlite_migrations WHERE name LIKE 'm012%'")
        for table in ("gradient_checks", "gradient_errors"):
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            for name in names[names.index("configs" if table == "gradient_checks" else "passed") + 1 :]:
                db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
    db.close()
    shown = here("report", "--gradchecks", "--measures", "all").stdout
    [row] = [line for line in shown.splitlines() if line.startswith(" linear1.W")][:1]
    assert row.split().count("-") == 8
    document = json.loads(here("report", "--gradchecks", "--json").stdout)
    assert document["checks"][0]["errors"][0]["ratio_of_sums"] is None


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--bn", "--images", "1"], "images 1"),
        (["--images", "60000"], "images 60000"),
        (["--images", "0"], "images 0"),
        (["--dims", "3073"], "dims 3073"),
        (["--dims", "0"], "dims 0"),
        (["--h", "0"], "h 0"),
        (["--h", "-1e-5"], "h -1e-05"),
        (["--h", "nan"], "h nan"),
        (["--atol", "1"], "atol 1"),
        (["--rtol", "nan"], "rtol nan"),
        (["--method", "backward"], "method 'backward'"),
        (["--decimals", "17"], "decimals 17"),
        (["--threshold", "0"], "threshold 0"),
        (["--measures", "tea"], "measures 'tea'"),
    ],
)
def test_a_void_check_is_refused_with_the_reason(args, named, check, refused):
    refused(check(*args), 2, named)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["--init", "normal", "--sigma", "1e200"], "try a smaller --sigma than 1e+200"),
        (["--lambda", "1.7e308"], "try a smaller lambda than 1.7e+308"),
    ],
)
def test_gradients_that_are_not_finite_are_no_check_and_no_damage(options, cure, check, refused):
    refused(check("--hidden", "5", *options), 2, f"the gradients are not finite, {cure}")


# The mistakes that students make, each as a replacement of one piece of the engine.


def without_factor_two(monkeypatch, change_forward):
    right = network.with_l2

    def halved(name, theta, gradient, lam):
        return right(name, theta, gradient, lam / 2 if theta.shape[-1] == 5 else lam)

    monkeypatch.setattr(network, "with_l2", halved)


def with_gradients(change: Callable) -> Callable:
    def changed(right):
        def forward(self, X, *, track=False):
            Y, backward = right(self, X, track=track)

            def wrong(G):
                dX, gradients = backward(G)
                return change(self, X, G, dX, gradients)

            return Y, wrong

        return forward

    return changed


def gamma_and_beta_swapped(monkeypatch, change_forward):
    def swap(self, X, G, dX, gradients):
        return dX, {"gamma": gradients["beta"], "beta": gradients["gamma"]}

    change_forward(BatchNorm, with_gradients(swap))


def statistics(self, X):
    mu = X.mean(axis=-2, keepdims=True)
    inverse_std = 1 / np.sqrt(X.var(axis=-2, keepdims=True) + self.eps)
    return (X - mu) * inverse_std, inverse_std


def mean_term_of_bn_dropped(monkeypatch, change_forward):
    def drop(self, X, G, dX, gradients):
        X_hat, inverse_std = statistics(self, X)
        G = G * self.gamma
        return inverse_std * (G - X_hat * (G * X_hat).mean(axis=-2, keepdims=True)), gradients

    change_forward(BatchNorm, with_gradients(drop))


def unbiased_variance_on_the_way_back(monkeypatch, change_forward):
    def unbiased(self, X, G, dX, gradients):
        n = X.shape[-2]
        return dX * np.sqrt((n - 1) / n), gradients

    change_forward(BatchNorm, with_gradients(unbiased))


def relu_mask_of_the_wrong_layer(monkeypatch, change_forward):
    masks = []

    def changed(right):
        def forward(self, X, *, track=False):
            Y, _ = right(self, X, track=track)
            masks.append(Y > 0)
            wrong = masks[-2] if len(masks) > 1 and masks[-2].shape == Y.shape else Y > 0
            return Y, lambda G: (G * wrong, {})

        return forward

    change_forward(ReLU, changed)


def batch_mean_as_a_sum(monkeypatch, change_forward):
    engine: Any = compiled.NUMPY if compiled.why_not() else Team
    right = engine.cross_entropy

    def wrong(*arguments, **how):  # the labels are the last
        loss, backward = right(*arguments, **how)
        return loss, lambda: len(arguments[-1]) * backward()

    monkeypatch.setattr(engine, "cross_entropy", wrong)


def bias_left_out(monkeypatch, change_forward):
    def leave_out(self, X, G, dX, gradients):
        return dX, gradients | {"b": np.zeros_like(gradients["b"])}

    change_forward(Linear, with_gradients(leave_out))


@pytest.mark.parametrize(
    ("mistake", "tensors"),
    [
        (without_factor_two, ["linear2.W"]),
        (gamma_and_beta_swapped, ["batch_norm1.gamma", "batch_norm1.beta"]),
        (mean_term_of_bn_dropped, ["linear1.W"]),
        (unbiased_variance_on_the_way_back, ["linear1.W"]),
        (relu_mask_of_the_wrong_layer, ["linear2.W"]),
        (batch_mean_as_a_sum, ["linear1.W", "linear3.b"]),
        (bias_left_out, ["linear3.b"]),
    ],
)
def test_each_mistake_ends_in_exit_5_and_names_the_tensor(mistake, tensors, change_forward, check, monkeypatch):
    mistake(monkeypatch, change_forward)
    done = check("--hidden", "5", "5", "--bn", "--dims", "8")
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    for tensor in tensors:
        assert tensor in done.stderr
        assert any(line.split()[:1] == [tensor] and "FAIL" in line for line in done.stdout.splitlines())


@pytest.mark.slow
def test_the_default_set_finds_the_factor_two_that_lambda_zero_hides(check, monkeypatch):
    right = network.with_l2
    monkeypatch.setattr(network, "with_l2", lambda name, theta, gradient, lam: right(name, theta, gradient, lam / 2))
    done = check("--json")
    assert done.returncode == 5
    for one in json.loads(done.stdout)["checks"]:
        weights = [error for error in one["errors"] if error["tensor"].endswith(".W")]
        assert all(error["passed"] == (one["lambda"] == "0") for error in weights)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--images", "1", "--bn"], ["--images 1", "--images 2 or more"]),
        (["--images", "45001"], ["--images 45001", "has 45000"]),
        (["--export", "folder"], ["--export folder", "this is a folder"]),
        (["--export", ""], ["--export ''", "a path"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_checked_is_refused_before_the_images_are_opened(
    here: Klcli, refused: Refused, tmp_path: Path, options: list[str], named: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    refused(here("gradcheck", "--data", "nowhere", *options), 2, *named)
