"""The gradient check itself: correct code passes, kinks are counted, the network does not change."""

import re
import tracemalloc

import numpy as np
import pytest
from thinning import mostly_slow

from klcli.engine.gradient_check import FEWEST_DECIMALS, MOST_DECIMALS, check_gradients, compare, equal_decimals
from klcli.engine.initializers import he
from klcli.engine.layers import BatchNorm, Dropout, Linear, ReLU
from klcli.engine.network import Network, build, stack


def network(seed: int = 0, **settings) -> Network:
    rng = np.random.default_rng(seed)
    made = build(6, [5, 4], 3, initializer=lambda a, b: he(a, b, rng=rng), dtype=np.float64, **settings)
    for name, parameter in made.parameters().items():
        if not name.endswith(".W"):
            parameter += 0.1 * rng.standard_normal(parameter.shape)
    return made


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((8, 6)), rng.integers(0, 3, 8)


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"batch_norm": True, "bn_position": "after"}])
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_right_gradients_pass_in_the_order_of_the_layers(settings, lam, batch):
    made = network(**settings)
    checks = check_gradients(made, *batch, lam)
    assert [check.tensor for check in checks] == list(made.parameters())
    assert [check.entries for check in checks] == [parameter.size for parameter in made.parameters().values()]
    assert all(check.passes(1e-8, 1e-6) for check in checks)


def test_a_bias_before_bn_has_no_gradient_and_one_with_bn_after_relu_has(batch):
    before = {check.tensor: check for check in check_gradients(network(batch_norm=True), *batch, 0.1)}
    after = {
        check.tensor: check for check in check_gradients(network(batch_norm=True, bn_position="after"), *batch, 0.1)
    }
    assert before["linear1.b"].gradient_std < 1e-12
    assert abs(before["linear1.b"].gradient_mean) < 1e-12
    assert after["linear1.b"].gradient_std > 1e-4


def test_the_errors_of_the_three_definitions_by_hand():
    # One linear unit per class and one image: S = x W + b, so dJ/db = P - Y, known in closed form.
    layer = Linear(np.zeros((1, 2)), np.zeros(2), is_first=True)
    X, y = np.array([[1.0]]), np.array([0])

    class Doubled(Linear):
        def forward(self, X, *, track=False):
            Y, backward = super().forward(X, track=track)
            return Y, lambda G: (None, {"W": backward(G)[1]["W"], "b": 2 * backward(G)[1]["b"]})

    wrong = Network({"linear1": Doubled(layer.W, layer.b, is_first=True)})
    check = check_gradients(wrong, X, y, 0.0)[1]
    # ga = (-1, 1), gn = (-1/2, 1/2)
    assert check.max_absolute == pytest.approx(0.5)
    assert check.relative_to_sum == pytest.approx(0.5 / 1.5)
    assert check.relative_to_maximum == pytest.approx(0.5)
    assert check.ratio_of_maxima == pytest.approx(0.5 / 1.5)
    assert check.gradient_std == pytest.approx(1.0)
    assert check.ratio_of_sums == pytest.approx(1 / 3)
    assert (check.equal_decimals, check.mismatches) == (0, 1.0)
    assert (check.numerical_mean, check.numerical_std) == (pytest.approx(0, abs=1e-10), pytest.approx(0.5))
    assert (check.difference_mean, check.difference_std) == (pytest.approx(0, abs=1e-10), pytest.approx(0.5))
    assert check.difference_max == pytest.approx(0.5)
    assert not check.passes(1e-8, 1e-6)


def test_the_errors_of_unequal_entries_by_hand():
    check = compare("linear1.b", np.array([3.0, -1.0, 0.5]), np.array([2.0, -1.25, 0.5]), np.zeros(3, dtype=bool))
    assert check.max_absolute == 1.0
    assert check.relative_to_sum == pytest.approx(1 / 5)
    assert check.relative_to_maximum == pytest.approx(1 / 3)
    assert check.ratio_of_maxima == pytest.approx(1 / 5)
    assert check.ratio_of_sums == pytest.approx(1.25 / 8.25)
    assert check.difference_mean == pytest.approx(1.25 / 3)


def test_large_gradients_pass_by_their_relative_error_alone():
    none = np.zeros(2, dtype=bool)
    near = compare("linear1.b", np.array([1e6, -2e6]), np.array([1e6 + 0.1, -2e6]), none)
    assert near.passes(1e-8, 1e-6)
    assert not near.passes(1e-8, 1e-8)
    assert not compare("linear1.b", np.ones(2), np.ones(2), ~none).passes(1e-8, 1e-6)  # every entry is at a kink


class Shifted(Linear):
    """A linear layer whose gradients are too small by 0.2."""

    def forward(self, X, *, track=False):
        Y, backward = super().forward(X, track=track)
        return Y, lambda G: (None, {name: np.asarray(ga) - 0.2 for name, ga in backward(G)[1].items()})


def test_the_maximum_of_the_differences_has_its_sign():
    layer = Shifted(np.zeros((1, 2)), np.zeros(2), is_first=True)
    check = check_gradients(Network({"linear1": layer}), np.array([[1.0]]), np.array([0]), 0.0)[1]
    # ga = (-0.7, 0.3), gn = (-0.5, 0.5)
    assert check.difference_max == pytest.approx(-0.2)
    assert (check.difference_mean, check.difference_std) == (pytest.approx(-0.2), pytest.approx(0, abs=1e-10))
    assert (check.gradient_mean, check.numerical_mean) == (pytest.approx(-0.2), pytest.approx(0, abs=1e-10))
    assert check.ratio_of_sums == pytest.approx(0.4 / 2)
    assert check.max_absolute == pytest.approx(0.2)


def forward_differences(made: Network, X: np.ndarray, y: np.ndarray, name: str, h: float) -> np.ndarray:
    """The numerical gradient of the mean loss, entry by entry."""

    def loss() -> float:
        S = X
        for layer in made.layers.values():
            S, _ = layer.forward(S)
        return float((np.log(np.exp(S).sum(axis=1)) - S[np.arange(len(y)), y]).mean())

    theta, before = made.parameters()[name], loss()
    found = np.empty_like(theta)
    for index in np.ndindex(theta.shape):
        own = theta[index]
        theta[index] = own + h
        found[index] = (loss() - before) / h
        theta[index] = own
    return found


@pytest.mark.parametrize("decimals", [3, 4, 5])
def test_the_decimals_are_those_of_numpy(decimals, batch):
    made, h = network(), 1e-3  # the truncation error, of about h, is the same in both difference quotients
    gradients = made.gradients(*batch, 0.0)[1]
    shares = []
    for check in check_gradients(made, *batch, 0.0, h=h, method="forward", decimals=decimals):
        assert check.kinks == 0
        ga, gn = gradients[check.tensor], forward_differences(made, *batch, check.tensor, h)
        np.testing.assert_almost_equal(ga, gn, decimal=check.equal_decimals)
        with pytest.raises(AssertionError):
            np.testing.assert_almost_equal(ga, gn, decimal=check.equal_decimals + 1)
        said = 0
        try:
            np.testing.assert_almost_equal(ga, gn, decimal=decimals)
        except AssertionError as error:
            said = int(re.search(r"Mismatched elements: (\d+) /", str(error))[1])
        assert check.mismatches == pytest.approx(said / ga.size)
        shares.append(check.mismatches)
        # the other measures, from their formulas
        difference = ga - gn
        assert check.ratio_of_sums == pytest.approx(np.abs(difference).sum() / np.abs(ga + gn).sum(), rel=1e-6)
        listing = [check.numerical_mean, check.numerical_std, check.difference_mean, check.difference_std]
        wanted = [gn.mean(), gn.std(), difference.mean(), difference.std()]
        assert [*listing, check.difference_max] == pytest.approx([*wanted, difference.max()], rel=1e-6, abs=1e-11)
    if decimals == 4:
        assert 0 < sum(shares) < len(shares), "some entries agree and others do not"


@pytest.mark.parametrize("difference", [0.0, 1e-17, 1.5e-6, np.nextafter(1.5e-6, 0), 5.7e-6, 0.15, 1.4, 1.5, 7e30])
def test_the_limit_of_a_decimal_is_that_of_numpy(difference):
    found = equal_decimals(difference)
    np.testing.assert_almost_equal(difference, 0.0, decimal=found)
    if found < MOST_DECIMALS:
        with pytest.raises(AssertionError):
            np.testing.assert_almost_equal(difference, 0.0, decimal=found + 1)
    assert equal_decimals(np.nan) == equal_decimals(np.inf) == FEWEST_DECIMALS


def test_entries_at_the_kink_of_a_relu_are_counted():
    # With b = 0 and an image of zeros, every unit is at its kink: all of b1 straddles it, W1 does not move it.
    rng = np.random.default_rng(0)
    made = Network(
        {
            "linear1": Linear(rng.standard_normal((2, 3)), np.zeros(3), is_first=True),
            "relu1": ReLU(),
            "linear2": Linear(rng.standard_normal((3, 2)), np.zeros(2)),
        }
    )
    checks = {check.tensor: check for check in check_gradients(made, np.zeros((1, 2)), np.array([0]), 0.0)}
    assert checks["linear1.b"].kinks == checks["linear1.b"].entries == 3
    assert checks["linear1.W"].kinks == 0
    nothing = checks["linear1.b"]
    assert (nothing.mismatches, nothing.ratio_of_sums, nothing.difference_std, nothing.difference_max) == (0, 0, 0, 0)
    assert not checks["linear1.b"].passes(1e-8, 1e-6), "nothing of it was checked"


def test_forward_differences_err_more_than_centred_ones(batch):
    made = network(batch_norm=True)
    centred = max(check.max_absolute for check in check_gradients(made, *batch, 0.1))
    forward = max(check.max_absolute for check in check_gradients(made, *batch, 0.1, method="forward"))
    assert centred < 1e-8 < forward < 1e-3


def test_the_check_moves_neither_parameters_nor_running_averages(batch):
    made = network(batch_norm=True)
    made.gradients(*batch, 0.1, track=True)
    before = {name: array.copy() for name, array in made.state().items()}
    check_gradients(made, *batch, 0.1)
    assert all(np.array_equal(array, before[name]) for name, array in made.state().items())
    assert isinstance(made.layers["batch_norm1"], BatchNorm)
    assert "batch_norm1.running_mean" in before


def test_a_stack_of_replicas_with_lambdas_of_their_own_passes(batch):
    stacked = stack([network(seed, batch_norm=True) for seed in range(3)])
    checks = check_gradients(stacked, *batch, np.array([0.0, 0.01, 1.0]))
    assert all(check.passes(1e-8, 1e-6) for check in checks)
    assert checks[0].entries == 3 * 6 * 5


def test_one_wrong_entry_among_thousands_is_found(batch):
    class OneOff(Linear):
        def forward(self, X, *, track=False):
            Y, backward = super().forward(X, track=track)

            def wrong(G):
                dX, gradients = backward(G)
                dW = np.array(gradients["W"])
                dW[3, 2] += 1e-6
                return dX, gradients | {"W": dW}

            return Y, wrong

    made = network()
    first = made.layers["linear1"]
    made.layers["linear1"] = OneOff(first.W, first.b, is_first=True)
    failed = [check.tensor for check in check_gradients(made, *batch, 0.0) if not check.passes(1e-8, 1e-6)]
    assert failed == ["linear1.W"]


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"batch_norm": True, "bn_position": "after"}], ids=str)
@pytest.mark.parametrize(("dropout", "smoothing"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_dropout_and_label_smoothing_have_right_gradients(settings, dropout, smoothing, batch):
    one, other = (network(seed, dropout=dropout, dropout_seed=3, **settings) for seed in (0, 2))
    for made in (one, stack([one, other])):
        checks = check_gradients(made, *batch, 0.1, smoothing=smoothing)
        assert all(check.passes(1e-8, 1e-6) for check in checks)


def test_another_mask_or_other_labels_in_the_backward_pass_are_noticed(batch, monkeypatch):
    made = network(dropout=0.3)
    right = Dropout.forward

    def forward(self, X, *, track=False):
        _, wrong = right(Dropout(self.p, self.seed + 1, self.index), X)
        return right(self, X)[0], wrong

    monkeypatch.setattr(Dropout, "forward", forward)
    assert not all(check.passes(1e-8, 1e-6) for check in check_gradients(made, *batch, 0.1))
    monkeypatch.undo()
    _, unsmoothed = made.gradients(*batch, 0.1)
    wrong = check_gradients(made, *batch, 0.1, smoothing=0.2, gradients=unsmoothed)
    assert not all(check.passes(1e-8, 1e-6) for check in wrong)


def of_dropout_and_scale(seed: int, dropout: float, sigma: float | None, **settings) -> Network:
    """Two hidden layers of 20 on 30 pixels, with noise in b, gamma and beta, as `klcli gradcheck` prepares it."""
    rng = np.random.default_rng(seed)
    made = build(
        30, [20, 20], 10, dtype=np.float64, dropout=dropout, dropout_seed=seed,
        initializer=lambda a, b: he(a, b, rng=rng) if sigma is None else sigma * rng.standard_normal((a, b)),
        **settings,
    )  # fmt: skip
    for name, parameter in made.parameters().items():
        if not name.endswith(".W"):
            parameter += 0.1 * rng.standard_normal(parameter.shape)
    return made


def images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1000 + seed)
    return rng.standard_normal((10, 30)), rng.integers(0, 10, 10)


@pytest.mark.parametrize(("dropout", "seeds"), mostly_slow([(0.9, 5), (0.5, 5), (0.97, 5), (0.9, 50)], 4))
@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"batch_norm": True, "bn_position": "after"}], ids=str)
def test_right_gradients_pass_at_any_dropout(dropout, seeds, settings):
    for seed in range(seeds):
        checks = check_gradients(
            of_dropout_and_scale(seed, dropout, None, **settings), *images(seed), 0.005 * (seed % 2)
        )
        assert [(seed, check.tensor) for check in checks if not check.passes(1e-8, 1e-6)] == []


@pytest.mark.parametrize("sigma", mostly_slow([1e-8, 1e-2, 1e-4, 1e-6], 4))
@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"batch_norm": True, "bn_position": "after"}], ids=str)
def test_right_gradients_pass_at_any_scale(sigma, settings):
    for seed in range(4):
        checks = check_gradients(of_dropout_and_scale(seed, 0.0, sigma, **settings), *images(seed), 0.005 * (seed % 2))
        assert [(seed, check.tensor) for check in checks if not check.passes(1e-8, 1e-6)] == []


@pytest.mark.parametrize("sigma", [None, 1e-2, 1e-4, 1e-6])
def test_a_wrong_backward_pass_fails_in_every_tensor_before_it(sigma, monkeypatch):
    # Without the mask, dJ/dX of a ReLU is wrong: of the layers before it, none of those after it.
    def forward(self, X, *, track=False):
        return np.where(X > 0, X, 0), lambda G: (G, {})

    monkeypatch.setattr(ReLU, "forward", forward)
    for seed in range(5):
        checks = check_gradients(of_dropout_and_scale(seed, 0.0, sigma), *images(seed), 0.0)
        failed = [check.tensor for check in checks if not check.passes(1e-8, 1e-6)]
        assert failed == ["linear1.W", "linear1.b", "linear2.W", "linear2.b"]


def test_the_memory_of_a_check_does_not_grow_with_the_copies_of_its_activations():
    """Of 2000 images through 20 units, an array takes 320 kB; in all 120 copies at a time, it would be 38 MB."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2000, 6)), rng.integers(0, 10, 2000)
    tracemalloc.start()
    try:
        check_gradients(build(6, [20], 10, initializer=lambda a, b: he(a, b, rng=rng), dtype=np.float64), X, y, 0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_the_complex_step_is_the_derivative(batch):
    # d/dW of sum(W * W) and of a softmax loss in closed form, on the linear model S = X W + b.
    X, y = batch
    rng = np.random.default_rng(3)
    layer = Linear(1e-9 * rng.standard_normal((6, 3)), np.zeros(3), is_first=True)
    wrong = 1.0 + 1e-7

    class Scaled(Linear):
        def forward(self, X, *, track=False):
            Y, backward = super().forward(X, track=track)
            return Y, lambda G: (None, {name: wrong * np.asarray(ga) for name, ga in backward(G)[1].items()})

    right = check_gradients(Network({"linear1": layer}), X, y, 0.0, atol=1e-12)
    scaled = check_gradients(Network({"linear1": Scaled(layer.W, layer.b, is_first=True)}), X, y, 0.0, atol=1e-12)
    assert all(check.passes(1e-12, 1e-12) for check in right)
    assert not any(check.passes(1e-12, 1e-12) for check in scaled)
    assert scaled[0].complex_step == pytest.approx(0.5e-7, rel=1e-3)
