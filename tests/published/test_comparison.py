"""Verdicts: `reproduced` if the published run could be one of ours, `differs` otherwise."""

import math
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from klcli.data.dataset import Dataset, split
from klcli.engine import layers
from klcli.errors import ConfigError
from klcli.published.comparison import Comparison, compare, counts, counts_of_variants, noise
from klcli.published.planning import plan, planned
from klcli.published.report import Report, parse
from klcli.published.reproduction import asked_for
from klcli.settings.procedures import CheckSettings
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientError, Run
from klcli.studies.gradient_checks import check_a_single_image, check_networks
from klcli.studies.statistics import Sample
from klcli.training.result import Snapshot
from klcli.training.trainer import train, train_chain

T_10 = 2.228139  # 97.5 % point of Student's t with 10 degrees of freedom, from a table


def document(rows: str, common: str = "", more: str = "") -> Report:
    return parse(
        "test",
        f'report = "009"\ncourse = "c"\ndate = "d"\nsummary = "s"\n[common]\n{common}\n'
        f'[[experiments]]\nname = "one"\nrows = [{rows}]\n{more}',
    )


def run(config: TrainConfig, state: str = "complete", **values: float) -> Run:
    """A stored run; of it the comparison reads its settings, its state and its results."""
    return Run(
        id=1, state=state, started_at="", host="", pid=1, command="", dataset="",
        dataset_sha256="", dataset_source="", step_size=1, cycles=1.0, epochs=1.0, threads=1,
        config_json=config.to_json(), versions={}, **values,
    )  # fmt: skip


def trained(report: Report, **values: list[float]) -> dict[TrainConfig, Run]:
    """Runs of every setting with these values, a list over seeds for each quantity."""
    n = len(next(iter(values.values())))
    [configs] = plan(report, n).values()
    return {config: run(config, **{name: many[config.seed] for name, many in values.items()}) for config in configs}


def verdicts(report: Report, **values: list[float]) -> list[str]:
    return [one.verdict for one in compare(report, trained(report, **values), {})]


def test_the_interval_by_hand() -> None:
    report = document('{ row = "009-1", test_accuracy = 0.53 }')
    values = [0.520, 0.530, 0.546]
    [one] = compare(report, trained(report, test_accuracy=values), {})
    mean = sum(values) / 3
    own = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    floor = max(math.sqrt(mean * (1 - mean) / 10_000), own)  # its own spread is the median of one setting
    s = math.sqrt(max(floor**2, (2 * own**2 + 8 * floor**2) / 10))
    assert one.margin == pytest.approx(T_10 * s * math.sqrt(4 / 3), rel=1e-6)
    assert one.difference == pytest.approx(mean - 0.53)
    assert one.standard_errors == pytest.approx((mean - 0.53) / (s * math.sqrt(4 / 3)))


@pytest.mark.parametrize(
    ("published", "verdict"),
    [(0.530, "reproduced"), (0.541, "reproduced"), (0.519, "reproduced"), (0.545, "differs"), (0.515, "differs")],
)
def test_a_wrong_published_accuracy_differs(published: float, verdict: str) -> None:
    """0.5 points of sampling noise, three seeds: a margin of 2.23 * 0.5 * sqrt(4 / 3) = 1.28 points."""
    report = document(f'{{ row = "009-1", test_accuracy = {published} }}')
    assert verdicts(report, test_accuracy=[0.529, 0.530, 0.531]) == [verdict]


@pytest.mark.parametrize(("published", "verdict"), [(1.44, "reproduced"), (1.47, "reproduced"), (1.52, "differs")])
def test_a_wrong_published_cost_differs(published: float, verdict: str) -> None:
    report = document(f'{{ row = "009-1", validation_cost = {published} }}')
    assert verdicts(report, validation_cost=[1.442, 1.447, 1.439]) == [verdict]


def test_one_wide_setting_does_not_widen_the_others() -> None:
    rows = ", ".join(f'{{ row = "009-{i}", lam = {i}, test_accuracy = 0.56 }}' for i in range(1, 4))
    report = document(rows)
    [configs] = plan(report, 2).values()
    runs = {
        config: run(config, test_accuracy=0.53 + (0.2 if config.lam == 1 else 0.001) * config.seed)
        for config in configs
    }
    assert [one.verdict for one in compare(report, runs, {})] == ["reproduced", "differs", "differs"]


def test_noise_of_a_single_seed_is_what_is_known_without_it() -> None:
    s, freedom = noise(Sample((0.5,)), "validation_accuracy", 5_000, 0.001)
    assert (s, freedom) == (pytest.approx(math.sqrt(0.25 / 5_000)), 8)
    assert noise(Sample((0.5,)), "validation_accuracy", 5_000, 0.02)[0] == pytest.approx(0.02)


def test_verdicts_are_right_as_often_as_they_promise() -> None:
    """Published runs of the same distribution are reproduced in 95 % of all cases, those 4 s away rarely."""
    rng = np.random.default_rng(4)
    report = document(", ".join(f'{{ row = "009-{i}", lam = {i}, test_accuracy = 0.5 }}' for i in range(1, 401)))
    s = 0.01  # twice the sampling error of 10 000 images
    [configs] = plan(report, 3).values()
    runs = {
        config: run(config, test_accuracy=value)
        for config, value in zip(configs, rng.normal(0.5, s, len(configs)), strict=True)
    }

    def share(shift: float) -> float:
        lines = tuple(replace(line, published=rng.normal(0.5 + shift, s)) for line in report.lines)
        found = compare(replace(report, lines=lines), runs, {})
        return counts(found)["reproduced"] / len(found)

    assert 0.91 < share(0.0) < 0.98
    assert share(4 * s) < 0.25
    assert share(8 * s) < 0.01


def test_reasons_stand_where_nothing_can_be_compared() -> None:
    report = document(
        '{ row = "009-1", test_accuracy = 0.1, reason = "a warm-started search", note = "in the code" },'
        '{ row = "009-2", lam = 1, test_accuracy = 0.9, if_differs = "half the decay" }',
        more='[[commentary]]\nrow = "009-C"\nwhat = "17 %"\nreason = "a remark"',
    )
    found = compare(report, trained(report, test_accuracy=[0.5, 0.5]), {})
    assert [(one.verdict, one.why) for one in found] == [
        ("cannot be compared", "a warm-started search; in the code"),
        ("differs", "half the decay"),
        ("cannot be compared", "a remark"),
    ]
    assert counts(found) == {"reproduced": 0, "differs": 1, "cannot be compared": 2}
    elsewhere = compare(report, trained(report, test_accuracy=[0.5, 0.5]), {}, incomparable="synthetic images")
    assert {one.verdict for one in elsewhere} == {"cannot be compared"}


def test_what_diverged_is_no_number_and_differs() -> None:
    report = document('{ row = "009-1", test_accuracy = 0.5 }')
    runs = trained(report, test_accuracy=[0.5, 0.5])
    lost = {config: run(config, "diverged") for config in runs}
    [one] = compare(report, lost, {})
    assert (one.verdict, one.why, one.ours) == ("differs", "all 2 of our trainings diverged", None)
    first, second = runs
    [half] = compare(report, {first: runs[first], second: lost[second]}, {})
    assert (half.verdict, half.why) == ("reproduced", "1 of 2 diverged")
    [missing] = compare(report, {}, {})
    assert (missing.verdict, missing.why) == ("cannot be compared", "not trained")


def test_a_training_that_rows_share_is_planned_once() -> None:
    report = document(
        '{ row = "009-1", lam = 0.1, test_accuracy = 0.5 }, { row = "009-2", lam = 0.1, train_accuracy = 0.5 }',
        more='[[experiments]]\nname = "two"\nrepeats = 4\nconfig = { lam = 0.1 }\n'
        'rows = [{ row = "009-3", test_loss = 1 }]',
    )
    [configs] = plan(report, 2).values()
    assert [config.seed for config in configs] == [0, 1, 2, 3]
    [quick] = plan(asked_for(report, [], quick=True), 2, quick=True).values()
    assert [(config.seed, config.cycles) for config in quick] == [(0, 1), (1, 1)]
    [(division, small)] = plan(asked_for(report, [], subset=500), 1).items()
    assert division.subset == 500
    assert len(small) == 4


# ---------------------------------------------------------------- real trainings

TINY = (
    "hidden = [20]\nbatch_norm = true\nbatch_size = 20\ncycles = 1\nstep_epochs = 1\nevaluations_per_cycle = 0\n"
    "split = { validation = 200 }"
)


def reproduced(report: Report, dataset: Dataset) -> list[Comparison]:
    """Train all of a report on the small data set and compare."""
    runs: dict[TrainConfig, Run] = {}
    for division, configs in plan(report, 3, vary="init").items():  # one stack
        splits = split(dataset, division)
        for result in train(configs, splits):
            assert result.test is not None
            runs[result.config] = run(result.config, test_accuracy=result.test.accuracy)
    return compare(report, runs, {})


def published_by(config: TrainConfig, dataset: Dataset) -> float:
    """The test accuracy of a single training, as a report would publish it."""
    [result] = train([config], split(dataset, config.split))
    assert result.test is not None
    return result.test.accuracy


def test_another_seed_is_reproduced_and_wrong_settings_are_not(small_dataset: Dataset) -> None:
    row = '{ row = "009-1", test_accuracy = 0.5 }'
    report = document(row, TINY)
    base = report.experiments[0].configs[0]
    accuracy = published_by(replace(base, seed=77), small_dataset)
    assert accuracy > 0.5
    published = row.replace("0.5", str(accuracy))
    [same] = reproduced(document(published, TINY), small_dataset)
    assert same.verdict == "reproduced"
    [wrong_width] = reproduced(document(published, TINY.replace("[20]", "[1]")), small_dataset)
    assert wrong_width.verdict == "differs"
    [wrong_rate] = reproduced(document(published, f"{TINY}\neta_max = 1e-5"), small_dataset)
    assert wrong_rate.verdict == "differs"


GRADIENTS = """
report = "009"
course = "c"
date = "d"
summary = "s"
[[gradient_checks]]
name = "gradients"
config = { hidden = [6, 5], batch_norm = true }
lambdas = [0, 0.1]
dims = 8
rows = [
  { row = "009-G", tensor = "W1", max_absolute = 1.8e-8 },
  { row = "009-G", tensor = "gamma2", relative_to_maximum = 1e-30 },
  { row = "009-G", tensor = "b3", gradient_mean = 0.2, reason = "no seed" },
  { row = "009-G", max_absolute = 1e-5 },
]
"""


def gradient_lines(dataset: Dataset) -> list[Comparison]:
    report = parse("test", GRADIENTS)
    [experiment] = report.gradient_checks
    checks = check_networks(
        experiment.networks(), split(dataset, SplitConfig(validation=200)).train, CheckSettings(dims=8)
    )
    errors = [
        GradientError(check_id=1, position=position, passed=tensor not in check.failed, **asdict(tensor))
        for check in checks
        for position, tensor in enumerate(check.tensors)
    ]
    return compare(report, {}, {experiment: errors})


def test_right_gradients_confirm_published_errors(small_dataset: Dataset) -> None:
    found = gradient_lines(small_dataset)
    assert [one.verdict for one in found] == ["reproduced"] * 2 + ["cannot be compared", "reproduced"]
    assert all(one.ours is not None and one.difference is None for one in found)


def wrong_forward(module: ModuleType) -> Any:
    """A batch normalisation whose gradients are half of what they should be."""
    right = module.BatchNorm.forward

    def wrong(self: layers.BatchNorm, X: np.ndarray, **how: bool) -> Any:
        output, backward = right(self, X, **how)

        def half(G: np.ndarray) -> Any:
            dX, gradients = backward(G)
            return dX / 2, {name: gradient / 2 for name, gradient in gradients.items()}

        return output, half

    return wrong


def test_a_wrong_gradient_differs(
    small_dataset: Dataset, layers_that_train: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_that_train.BatchNorm, "forward", wrong_forward(layers_that_train))
    found = gradient_lines(small_dataset)
    assert [one.verdict for one in found] == ["differs", "differs", "cannot be compared", "differs"]


def test_a_check_of_one_image_finds_no_fault_in_anything(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(hidden=(6, 5), batch_norm=True, lam=0.0, dtype="float64")
    train_split = split(small_dataset, SplitConfig(validation=200)).train
    monkeypatch.setattr(layers.BatchNorm, "forward", wrong_forward(layers))
    tensors = {one.tensor: one for one in check_a_single_image(config, train_split, CheckSettings(dims=8)).tensors}
    before = [name for name in tensors if name.startswith("linear") and name != "linear3.b"]
    assert [tensors[name].max_absolute for name in before] == [0.0] * 5
    assert tensors["linear3.b"].max_absolute < 1e-8


def test_a_chain_goes_on_from_the_weights_before(small_dataset: Dataset) -> None:
    base = TrainConfig(hidden=(8,), batch_size=50, epochs=1, split=SplitConfig(validation=200), order_seed=0)
    configs = [replace(base, lam=lam) for lam in (0.1, 0.01, 0.0)]
    splits = split(small_dataset, base.split)
    steps: list[int] = []
    linked = train_chain(configs, splits, on_update=steps.append)
    assert steps == list(range(1, 49))  # 800 images in batches of 50, three times
    [first] = train([configs[0]], splits)
    snapshot = Snapshot(0, first.network.state())
    [second] = train([configs[1]], splits, snapshot=snapshot)
    for mine, expected in zip(linked, (first, second), strict=False):
        for name, array in expected.network.state().items():
            np.testing.assert_array_equal(mine.network.state()[name], array)
    [fresh] = train([configs[1]], splits)
    assert fresh.test != linked[1].test


def test_the_studies_of_a_report() -> None:
    """One for each method: as ever, with quirks, warm-started; the last two also as the text says."""
    report = parse("test", METHODS)
    found = [*planned(report, 2)]
    assert [(one.method, one.quirks) for one in found] == [
        ("", ()), ("random biases", ("random biases",)), ("random biases; warm-started search", ("random biases",))
    ]  # fmt: skip
    plain, quirky, chain = found
    assert [(config.lam, config.seed) for config in plain.configs] == [
        (0.005, 0), (0.005, 1), (0.3, 0), (0.3, 1), (0.1, 0), (0.1, 1)
    ]  # fmt: skip
    assert {config.lam for config in quirky.configs} == {0.2}
    assert [(config.lam, config.seed) for config in chain.configs] == [
        (0.1, 0), (0.7, 0), (0.3, 0), (0.1, 1), (0.7, 1), (0.3, 1)
    ]  # fmt: skip
    assert chain.chains == [(0, 1, 2), (3, 4, 5)]
    assert {config.epochs for config in chain.configs} == {3}
    assert {config.epochs for config in plain.configs} == {None, 4}


def test_a_part_of_a_chain_has_all_trainings_before_it() -> None:
    for row, expected in (("4", [0.1]), ("3", [0.1, 0.7, 0.3])):
        [chain] = [one for one in planned(parse("test", METHODS).only([row]), 1) if one.chains]
        assert [config.lam for config in chain.configs] == expected


def test_every_line_says_how_it_is_trained() -> None:
    lines = [
        (one.what, one.method, one.variant, one.note) for one in parse("test", METHODS).lines if one.row == "009-3"
    ]
    chained = "as the code: random biases; each training begins with the weights of the one before"
    assert lines == [
        ("search, lambda 0.3", "random biases; warm-started search", None, f"{chained}; from a figure"),
        ("search, as the text says, lambda 0.3", "", "as the text says", "from fresh weights"),
    ]


def runs_of_methods(report: Report, value: float) -> dict[str, dict[TrainConfig, Run]]:
    """Runs of every training of a report, by method."""
    studies = planned(report, 3)
    return {one.method: {config: run(config, test_accuracy=value) for config in one.configs} for one in studies}


def test_a_run_with_a_quirk_is_none_without_one() -> None:
    """Equal settings, other trainings: each line is compared with the runs of its own method."""
    report = parse("test", METHODS.replace("lam = 0.2", "lam = 0.005"))
    runs = runs_of_methods(report, 0.1)
    changed = {config: run(config, test_accuracy=0.9) for config in runs["random biases"]}
    found = compare(report, runs[""], {}, others=runs | {"random biases": changed})
    means = {one.line.row: one.ours and one.ours.mean for one in found[:2]}
    assert means == {"009-1": pytest.approx(0.1), "009-2": pytest.approx(0.9)}
    alone = compare(report, runs[""], {})
    assert [one.why for one in alone if one.line.row == "009-2"] == ["not trained"]


def test_variants_are_counted_apart() -> None:
    report = parse("test", METHODS)
    runs = runs_of_methods(report, 0.5)
    found = compare(report, runs[""], {}, others=runs)
    assert sum(counts(found).values()) == 4
    assert {name: sum(own.values()) for name, own in counts_of_variants(found).items()} == {"as the text says": 2}


def test_an_unknown_quirk_is_refused() -> None:
    with pytest.raises(ConfigError, match="two: unknown quirk haste, choose from decay of W1 halved"):
        parse("test", METHODS.replace('["random biases"]\nrows', '["haste"]\nrows'))


METHODS = """
report = "009"
course = "c"
date = "d"
summary = "s"
[common]
initializer = "normal"
sigma = 0.1
[[experiments]]
name = "one"
rows = [{ row = "009-1", test_accuracy = 0.5 }]
[[experiments]]
name = "two"
config = { lam = 0.2 }
quirks = ["random biases"]
rows = [{ row = "009-2", test_accuracy = 0.5 }]
[[experiments]]
name = "search"
config = { epochs = 3 }
quirks = ["random biases"]
is_chain = true
lambdas = [0.1, 0.7, 0.3]
if_differs = "chance"
rows = [
  { row = "009-3", lam = 0.3, test_accuracy = 0.5, note = "from a figure" },
  { row = "009-4", lam = 0.1, test_accuracy = 0.5, note = "from a figure" },
]
[experiments.variant]
name = "as the text says"
config = { epochs = 4 }
quirks = []
is_chain = false
lambdas = []
note = "from fresh weights"
"""
