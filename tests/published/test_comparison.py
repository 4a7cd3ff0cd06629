"""Verdicts: `reproduced` if the published run could be one of ours, `differs` if not, `undecided` if we cannot tell."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from thinning import mostly_slow

from klcli.data.dataset import Dataset, split
from klcli.engine import layers
from klcli.errors import ConfigError
from klcli.published.comparison import counts, counts_of_variants
from klcli.published.format.schema import ERRORS
from klcli.published.intervals import Noise, decide_draw, sampling_error, typical_spread
from klcli.published.planning import planned
from klcli.published.report import Comparison, Report, parse
from klcli.published.reproduction import asked_for
from klcli.settings.procedures import CheckSettings
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientError, Run
from klcli.studies.gradient_checks import NetworkCheck, check_network
from klcli.studies.statistics import Sample
from klcli.training.budget import budget_of
from klcli.training.result import Snapshot
from klcli.training.trainer import train, train_chain
from tests.published.evidence import compare

T_2 = 4.302653  # 97.5 % point of Student's t with 2 degrees of freedom, from a table
OTHER_IMAGES = "same_validation_images = false\n"


def document(rows: str, common: str = "", more: str = "", head: str = "") -> Report:
    return parse(
        "test",
        f'{head}report = "009"\ncourse = "c"\ndate = "d"\nsummary = "s"\n[common]\n{common}\n'
        f'[[experiments]]\nname = "one"\nrows = [{rows}]\n{more}',
    )


def run(config: TrainConfig, state: str = "complete", **values: float) -> Run:
    """A stored run; of it the comparison reads its settings, its state and its results."""
    return Run(
        id=1, state=state, started_at="", host="", pid=1, command="", dataset="",
        dataset_sha256="", dataset_source="", step_size=1, cycles=1.0, epochs=1.0, threads=1,
        config_json=config.to_json(), versions_json="{}", **values,
    )  # fmt: skip


def trained(report: Report, **values: list[float]) -> dict[TrainConfig, Run]:
    """Runs of every setting with these values, a list over seeds for each quantity."""
    n = len(next(iter(values.values())))
    [configs] = [study.configs for study in planned(report, n)]
    return {config: run(config, **{name: many[config.seed] for name, many in values.items()}) for config in configs}


def verdicts(report: Report, **values: list[float]) -> list[str]:
    return [one.verdict for one in compare(report, trained(report, **values), {})]


def test_the_interval_by_hand() -> None:
    """No image is drawn twice: the same test images, so that the seeds alone make the interval."""
    report = document('{ row = "009-1", test_accuracy = 0.53 }')
    values = [0.520, 0.530, 0.546]
    [one] = compare(report, trained(report, test_accuracy=values), {})
    mean = sum(values) / 3
    own = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    assert one.margin == pytest.approx(T_2 * own * math.sqrt(4 / 3), rel=1e-6)  # no other setting tells a spread
    assert one.difference == pytest.approx(mean - 0.53)
    assert one.tolerance == 0.02


def test_the_typical_spread_is_the_median_without_its_bias() -> None:
    """The standard deviation over n seeds of the normal distribution has a median below 1, here by Monte Carlo."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10):
        draws = rng.standard_normal((20_000, n))
        found = typical_spread([Sample(tuple(row)) for row in draws[:2000].tolist()])
        assert found is not None and found.freedom == 2000 * (n - 1)
        median = np.median(draws.std(axis=1, ddof=1))
        assert found.std == pytest.approx(median / (1 - 2 / (9 * (n - 1))) ** 1.5, rel=0.05)
        assert found.std == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("settings", mostly_slow([1, 2, 3, 4, 8], 4))
def test_the_interval_of_a_report_with_few_settings(settings: int, seeds: int) -> None:
    """Of 95 % or nearly so, by Monte Carlo; the same three seeds counted twice would make it 88 %."""
    rng = np.random.default_rng(seeds)
    hits, trials = 0, 1000
    for draws, published in zip(
        rng.standard_normal((trials, settings, seeds)), rng.standard_normal(trials), strict=True
    ):
        samples = [Sample(tuple(own)) for own in draws.tolist()]
        half = Noise(seeds, samples[0].std, typical_spread(samples)).half()
        hits += half is not None and abs(published - samples[0].mean) <= half
    assert 0.92 <= hits / trials <= 0.975


@pytest.mark.parametrize(
    ("published", "verdict"),
    [(0.530, "reproduced"), (0.542, "reproduced"), (0.518, "reproduced"), (0.545, "differs"), (0.515, "differs")],
)
def test_a_wrong_published_accuracy_differs(published: float, verdict: str) -> None:
    """Three seeds with s = .25 points: a margin of 1.24 points."""
    report = document(f'{{ row = "009-1", test_accuracy = {published} }}')
    assert verdicts(report, test_accuracy=[0.5275, 0.530, 0.5325]) == [verdict]


@pytest.mark.parametrize(("published", "verdict"), [(1.44, "reproduced"), (1.452, "reproduced"), (1.47, "differs")])
def test_a_wrong_published_cost_differs(published: float, verdict: str) -> None:
    report = document(f'{{ row = "009-1", validation_cost = {published} }}')
    assert verdicts(report, validation_cost=[1.442, 1.447, 1.439]) == [verdict]


def test_a_wrong_number_differs_whatever_the_reason() -> None:
    rows = (
        '{ row = "009-1", test_accuracy = 0.56, reason = "a slip" }, { row = "009-2", lam = 1, test_accuracy = 0.56 },'
        '{ row = "009-3", lam = 2, test_accuracy = 0.56, if_differs = "half the decay", note = "in the code" }'
    )
    report = document(rows)
    found = compare(report, trained(report, test_accuracy=[0.51, 0.512, 0.514]), {})
    assert [(one.verdict, one.why) for one in found] == [
        ("differs", "a slip"),
        ("differs", "for an unknown reason, not tested"),
        ("differs", "half the decay; in the code"),
    ]


def scattered(values: list[float], tolerance: str = "") -> Comparison:
    """A setting with these accuracies, beside ten that scatter by .3 points, so that s0 = .3 / .838 points."""
    rows = ", ".join(f'{{ row = "009-{i}", lam = {i}, test_accuracy = 0.5000 }}' for i in range(2, 12))
    report = document(f'{{ row = "009-1", lam = 1, test_accuracy = 0.5000{tolerance} }}, {rows}')
    [configs] = [study.configs for study in planned(report, 3)]
    runs = {one: run(one, test_accuracy=0.5 + 0.003 * (one.seed - 1)) for one in configs}
    runs |= {
        one: run(one, test_accuracy=values[one.seed]) for one in configs if one.lam == 1 and one.seed < len(values)
    }
    runs = {one: mine for one, mine in runs.items() if one.lam != 1 or one.seed < len(values)}
    return compare(report, runs, {})[0]


def half_by_scipy(n: int, own: float, typical: float, sampling: float = 0.0) -> float:
    s2 = ((n - 1) * own**2 + 8 * typical**2) / (n + 7)
    return float(stats.t.ppf(0.975, n + 7) * math.sqrt(s2 * (1 + 1 / n) + sampling**2))


def test_scattered_seeds_are_undecided_with_the_number_that_would_decide() -> None:
    typical = 0.003 / (8 / 9) ** 1.5
    assert scattered([0.495, 0.500, 0.505]).verdict == "reproduced"
    one = scattered([0.496, 0.500, 0.504], ", tolerance = 0.0085")
    n = next(n for n in range(4, 1000) if half_by_scipy(n, 0.004, typical) <= 0.0085)
    assert one.margin == pytest.approx(half_by_scipy(3, 0.004, typical))
    assert (one.verdict, one.tolerance) == ("undecided", 0.0085)
    assert one.why == f"{n} seeds would decide; ours have 0.4960 to 0.5040"
    wild = scattered([0.4, 0.5, 0.6])
    assert wild.verdict == "undecided"
    assert wild.why.startswith("not even 1000 seeds would decide")
    assert half_by_scipy(1000, 0.1, typical) > 0.02


def test_few_seeds_are_undecided() -> None:
    report = document('{ row = "009-1", test_accuracy = 0.5000 }')
    [one] = compare(report, trained(report, test_accuracy=[0.5]), {})
    assert (one.verdict, one.why) == ("undecided", "one seed has no spread, train at least 2")
    assert one.margin is None
    single = scattered([0.5])  # what is typical for the other settings is known
    assert single.verdict == "reproduced"
    assert single.margin == pytest.approx(stats.t.ppf(0.975, 8) * 0.003 / (8 / 9) ** 1.5 * math.sqrt(2))


def test_one_wide_setting_does_not_widen_the_others() -> None:
    rows = ", ".join(f'{{ row = "009-{i}", lam = {i}, test_accuracy = 0.56 }}' for i in range(1, 4))
    report = document(rows)
    [configs] = [study.configs for study in planned(report, 2)]
    runs = {
        config: run(config, test_accuracy=0.53 + (0.2 if config.lam == 1 else 0.001) * config.seed)
        for config in configs
    }
    assert [one.verdict for one in compare(report, runs, {})] == ["undecided", "differs", "differs"]


def test_the_sampling_error_of_two_splits() -> None:
    """Of 50 000 images of which a network classifies 53 % rightly: two random splits, by Monte Carlo."""
    one, other = np.random.default_rng(1).hypergeometric(26_500, 23_500, 5000, (2, 20_000)) / 5000
    apart = np.std(one - other)
    whole = SplitConfig()
    assert sampling_error("validation_accuracy", 0.53, whole) == pytest.approx(apart, rel=0.02)
    assert sampling_error("test_accuracy", 0.53, whole) == 0
    assert sampling_error("train_cost", 1.3, whole) == pytest.approx(1.1 * math.sqrt(2 / 45_000 * 0.1))
    assert sampling_error("best_validation_accuracy", 0.5, whole) == pytest.approx(math.sqrt(0.5 / 5000 * 0.9))
    one_file = SplitConfig(train_batches=(1,), validation=1000)  # 9000 and 1000 of 10 000 images
    assert sampling_error("train_accuracy", 0.5, one_file) == pytest.approx(math.sqrt(0.5 / 9000 * 0.1))
    assert sampling_error("validation_accuracy", 0.5, one_file) == pytest.approx(math.sqrt(0.5 / 1000 * 0.9))


def test_only_other_images_widen_the_interval() -> None:
    rows = '{ row = "009-1", validation_accuracy = 0.545, test_accuracy = 0.545, train_accuracy = 0.545 }'
    values = [0.528, 0.530, 0.532]
    alike, other = document(rows), document(rows, head=OTHER_IMAGES)
    everything = {"validation_accuracy": values, "test_accuracy": values, "train_accuracy": values}
    here = {one.line.quantity: one for one in compare(alike, trained(alike, **everything), {})}
    there = {one.line.quantity: one for one in compare(other, trained(other, **everything), {})}
    assert {one.margin for one in here.values()} == {here["test_accuracy"].margin, there["test_accuracy"].margin}
    assert [there[f"{name}_accuracy"].verdict for name in ("validation", "train", "test")] == [
        "reproduced", "differs", "differs"
    ]  # fmt: skip
    seeds, e = 0.002 * math.sqrt(4 / 3), math.sqrt(2 * 0.53 * 0.47 / 5000 * 0.9)
    t = stats.t.ppf(0.975, 2 * (seeds**2 + e**2) ** 2 / seeds**4)  # Satterthwaite, e being known
    assert there["validation_accuracy"].margin == pytest.approx(t * math.hypot(seeds, e))
    own = document(rows.replace("{ row", "{ tolerance = 0.015, row"), head=OTHER_IMAGES)
    assert compare(own, trained(own, **everything), {})[1].verdict == "undecided"


def test_a_noise_without_seeds_has_no_interval() -> None:
    assert Noise(1, None, None).half() is None
    assert Noise(1, None, None).seeds_for(0.02) is None
    assert Noise(2, 0.001, None).half() == pytest.approx(stats.t.ppf(0.975, 1) * 0.001 * math.sqrt(1.5))


@pytest.mark.parametrize("split_noise", mostly_slow([0.0, 0.0067], 2))
def test_a_true_number_differs_in_one_of_twenty_cases(split_noise: float) -> None:
    """Settings that scatter by .3 to .6 points; with other validation images, each split adds its own luck."""
    rng = np.random.default_rng(4)
    head = OTHER_IMAGES if split_noise else ""
    rows = ", ".join(f'{{ row = "009-{i}", lam = {i}, validation_accuracy = 0.5000 }}' for i in range(1, 601))
    report = document(rows, head=head)
    [configs] = [study.configs for study in planned(report, 3)]
    spread = {config.lam: rng.uniform(0.003, 0.006) for config in configs}
    luck = {lam: rng.normal(0, split_noise) for lam in spread}  # of our split, the same for all seeds
    runs = {one: run(one, validation_accuracy=0.5 + luck[one.lam] + rng.normal(0, spread[one.lam])) for one in configs}

    def verdicts_at(shift: float) -> dict[str, int]:
        lines = tuple(
            replace(line, published=0.5 + shift + rng.normal(0, split_noise) + rng.normal(0, spread[line.config.lam]))
            for line in report.lines
            if line.config
        )
        return counts(compare(replace(report, lines=lines), runs, {}))

    assert 0.03 < verdicts_at(0.0)["differs"] / 600 < 0.07
    assert verdicts_at(0.1)["differs"] == 600


def test_two_points_are_seen_with_enough_seeds() -> None:
    rng = np.random.default_rng(5)
    report = document(", ".join(f'{{ row = "009-{i}", lam = {i}, test_accuracy = 0.5000 }}' for i in range(1, 301)))
    [configs] = [study.configs for study in planned(report, 8)]
    runs = {one: run(one, test_accuracy=rng.normal(0.5, 0.004)) for one in configs}
    lines = tuple(replace(line, published=rng.normal(0.52, 0.004)) for line in report.lines)
    found = counts(compare(replace(report, lines=lines), runs, {}))
    assert found["differs"] / 300 > 0.98


def test_reasons_stand_where_nothing_can_be_compared() -> None:
    report = document(
        '{ row = "009-1", test_accuracy = 0.5000, note = "in the code" }',
        more='[[commentary]]\nrow = "009-C"\nwhat = "17 %"\nreason = "a remark"',
    )
    found = compare(report, trained(report, test_accuracy=[0.5, 0.5]), {})
    assert [(one.verdict, one.why) for one in found] == [
        ("reproduced", "in the code"),
        ("cannot be compared", "a remark"),
    ]
    assert counts(found) == {"reproduced": 1, "differs": 0, "undecided": 0, "cannot be compared": 1}
    elsewhere = compare(report, trained(report, test_accuracy=[0.5, 0.5]), {}, incomparable="synthetic images")
    assert {one.verdict for one in elsewhere} == {"cannot be compared"}


def test_what_diverged_is_no_number_and_differs() -> None:
    report = document('{ row = "009-1", test_accuracy = 0.5000 }')
    runs = trained(report, test_accuracy=[0.5, 0.5])
    lost = {config: run(config, "diverged") for config in runs}
    [one] = compare(report, lost, {})
    assert (one.verdict, one.why, one.ours) == ("differs", "2 of 2 diverged", None)
    [first, _] = lost
    [begun] = compare(report, lost | {first: run(first, "interrupted")}, {})
    assert begun.why == "1 of 2 diverged"
    known = document('{ row = "009-1", test_accuracy = 0.5, if_differs = "eta is too large", note = "in the code" }')
    [one] = compare(known, lost, {})
    assert one.why == "2 of 2 diverged; eta is too large; in the code"
    runs = trained(report, test_accuracy=[0.5, 0.5005, 0.504])
    [*_, last] = runs
    [some] = compare(report, runs | {last: run(last, "diverged")}, {})
    assert (some.verdict, some.why) == ("reproduced", "1 of 3 diverged")
    [missing] = compare(report, {}, {})
    assert (missing.verdict, missing.why) == ("cannot be compared", "not trained")


def test_a_training_that_rows_share_is_planned_once() -> None:
    report = document(
        '{ row = "009-1", lam = 0.1, test_accuracy = 0.5000 }, { row = "009-2", lam = 0.1, train_accuracy = 0.5000 }',
        more='[[experiments]]\nname = "two"\nrepeats = 4\nconfig = { lam = 0.1 }\n'
        'rows = [{ row = "009-3", test_loss = 1 }]',
    )
    [configs] = [study.configs for study in planned(report, 2)]
    assert [config.seed for config in configs] == [0, 1, 2, 3]
    [quick] = [study.configs for study in planned(asked_for(report, [], quick=True), 2, quick=True)]
    assert [(config.seed, config.cycles) for config in quick] == [(0, 1), (1, 1)]
    [small] = [study.configs for study in planned(asked_for(report, [], subset=500), 1)]
    assert {config.split.subset for config in small} == {500}
    assert len(small) == 4


def test_a_quick_look_lengthens_no_training() -> None:
    """An epoch has 450 updates and a cycle 10 epochs, unless a row has another; those that are short stay apart."""
    report = document(
        '{ row = "009-1", epochs = 4, test_accuracy = 0.5 }, { row = "009-2", epochs = 2, test_accuracy = 0.5 },'
        '{ row = "009-3", epochs = 20, test_accuracy = 0.5 }, { row = "009-4", cycles = 3, test_accuracy = 0.5 },'
        '{ row = "009-5", step_size = 500, epochs = 20, test_accuracy = 0.5 },'
        '{ row = "009-6", schedule = "constant", epochs = 3, test_accuracy = 0.5 }'
    )
    quick = asked_for(report, [], quick=True)
    updates = [budget_of(line.config).total_updates for line in quick.lines if line.config]
    assert updates == [1800, 900, 4500, 4500, 1000, 1350]
    [configs] = [study.configs for study in planned(quick, 1, quick=True)]
    assert len(configs) == 5  # 20 epochs and 3 cycles both become one cycle


# ---------------------------------------------------------------- real trainings

TINY = (
    "hidden = [20]\nbatch_norm = true\nbatch_size = 20\ncycles = 1\nstep_epochs = 1\nevaluations_per_cycle = 0\n"
    "split = { validation = 200 }"
)


def reproduced(report: Report, dataset: Dataset) -> list[Comparison]:
    """Train all of a report on the small data set and compare."""
    runs: dict[TrainConfig, Run] = {}
    for study in planned(report, 3, vary="init"):  # one stack
        splits = split(dataset, study.configs[0].split)
        for result in train(study.configs, splits):
            assert result.test is not None
            runs[result.config] = run(result.config, test_accuracy=result.test.accuracy)
    return compare(report, runs, {})


def published_by(config: TrainConfig, dataset: Dataset) -> float:
    """The test accuracy of a single training, as a report would publish it."""
    [result] = train([config], split(dataset, config.split))
    assert result.test is not None
    return result.test.accuracy


def test_another_seed_is_reproduced_and_wrong_settings_are_not(small_dataset: Dataset) -> None:
    row = '{ row = "009-1", test_accuracy = 0.5000 }'
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
  { row = "009-G", tensor = "gamma2", relative_to_maximum = 1e-30, if_differs = "published for one image" },
  { row = "009-G", max_absolute = 1e-5 },
]
"""


def stored_errors(checks: Iterable[NetworkCheck]) -> list[GradientError]:
    return [
        GradientError(
            check_id=1, position=position, passed=tensor not in check.failed,
            **{name: value for name, value in asdict(tensor).items() if name != "complex_step"},
        )
        for check in checks
        for position, tensor in enumerate(check.tensors)
    ]  # fmt: skip


def gradient_lines(dataset: Dataset) -> list[Comparison]:
    report = parse("test", GRADIENTS)
    [experiment] = report.gradient_checks
    train_split = split(dataset, SplitConfig(validation=200)).train
    checks = [check_network(one, train_split, CheckSettings(dims=8)) for one in experiment.networks()]
    errors = stored_errors(checks)
    return compare(report, {}, {experiment: errors})


def test_right_gradients_confirm_published_errors(small_dataset: Dataset) -> None:
    found = gradient_lines(small_dataset)
    assert [(one.verdict, one.why) for one in found] == [
        ("reproduced", "more exact"),
        ("differs", "published for one image"),  # although our gradient is right
        ("reproduced", "more exact"),
    ]
    assert all(one.ours is not None and one.difference is None and not one.failed for one in found)


@pytest.mark.parametrize(
    ("quantity", "published", "ours", "verdict", "why"),
    [
        ("max_absolute", 1e-8, 9e-8, "reproduced", ""),
        ("max_absolute", 1e-8, 1.1e-7, "differs", "for an unknown reason, not tested"),
        ("max_absolute", 1e-8, 1.1e-9, "reproduced", ""),
        ("max_absolute", 1e-8, 0.9e-9, "reproduced", "more exact"),
        ("relative_to_maximum", 4.33e-10, 6.7e-7, "differs", "for an unknown reason, not tested"),
        ("relative_to_maximum", 0.0, 0.0, "reproduced", ""),
        ("relative_to_maximum", 0.0, 1e-9, "differs", "for an unknown reason, not tested"),
        ("equal_decimals", 5, 5, "reproduced", ""),
        ("equal_decimals", 5, 7, "reproduced", "more exact"),
        ("equal_decimals", 7, 5, "differs", "for an unknown reason, not tested"),
        ("equal_decimals", 400, 5, "differs", "for an unknown reason, not tested"),
        *[("equal_decimals", n, n + 1, "reproduced", "") for n in range(16)],  # a tenth, as near as rounding comes
        *[("equal_decimals", n + 1, n, "reproduced", "") for n in range(16)],
    ],
)
def test_the_band_of_a_gradient(quantity: str, published: float, ours: float, verdict: str, why: str) -> None:
    """Right or wrong, the size decides: the error passes klcli's own check in all of these."""
    head, _, _ = GRADIENTS.partition("rows = [")
    report = parse("test", f'{head}rows = [{{ row = "009-G", tensor = "W1", {quantity} = {published} }}]')
    [experiment] = report.gradient_checks
    values = dict.fromkeys(ERRORS, 0.0) | {quantity: ours}
    error = GradientError(check_id=1, position=0, tensor="linear1.W", entries=1, kinks=0, passed=True, **values)
    [one] = compare(report, {}, {experiment: [error]})
    assert (one.verdict, one.why) == (verdict, why)


def test_the_draws_of_a_gradient_count_up_to_the_largest_seed() -> None:
    [experiment] = parse("test", GRADIENTS).gradient_checks
    largest = replace(experiment, config=replace(experiment.config, seed=2**63 - 2), repeats=2)
    assert [one.seed for [one] in largest.networks()] == [2**63 - 2, 2**63 - 1] * 2
    with pytest.raises(ConfigError, match=f"--seed {2**63 - 2}: 3 repeats count up from it, give at most {2**63 - 3}"):
        replace(largest, repeats=3).networks()


@pytest.mark.parametrize(
    ("settings", "errors", "why"),
    [
        (
            "",
            {"linear1.W": 1e-7, "linear1.b": 1.0, "linear2.b": 1e-4},
            "the gradient of a bias before BN is 0 (b1, b2)",
        ),
        ("", {"linear1.W": 1e-4, "linear1.b": 1.0}, "for an unknown reason, not tested"),
        ("", {"linear3.b": 1.0}, "for an unknown reason, not tested"),
        ("", {"batch_norm1.beta": 1.0}, "for an unknown reason, not tested"),
        (', bn_position = "after"', {"linear1.b": 1.0}, "for an unknown reason, not tested"),
    ],
)
def test_the_relative_error_of_a_gradient_that_is_0_is_explained(
    settings: str, errors: dict[str, float], why: str
) -> None:
    head, _, _ = GRADIENTS.replace(", batch_norm = true", f", batch_norm = true{settings}").partition("rows = [")
    report = parse("test", f'{head}rows = [{{ row = "009-G", relative_to_sum = 1e-6 }}]')
    [experiment] = report.gradient_checks
    about: dict[str, Any] = {"check_id": 1, "position": 0, "entries": 1, "kinks": 0, "passed": True}
    values = [dict.fromkeys(ERRORS, 0.0) | {"tensor": name, "relative_to_sum": one} for name, one in errors.items()]
    [one] = compare(report, {}, {experiment: [GradientError(**about, **own) for own in values]})
    assert one.verdict == "differs"
    assert one.why.startswith(why)


def drawn(
    quantity: str, published: float, draws: list[float], deviation: float = 0.1, tensor: str = 'tensor = "W1", '
) -> Comparison:
    """The comparison of a size of W1 with draws of it; the entries of each have this deviation."""
    head, _, _ = GRADIENTS.partition("lambdas")
    rows = f'rows = [{{ row = "009-G", {tensor}{quantity} = {published} }}]'
    report = parse("test", f"{head}lambdas = [0]\nrepeats = {len(draws)}\n{rows}")
    [experiment] = report.gradient_checks
    assert len({stack[0].seed for stack in experiment.networks()}) == len(draws)
    about: dict[str, Any] = {"position": 0, "tensor": "linear1.W", "entries": 1, "kinks": 0, "passed": True}
    values = dict.fromkeys(ERRORS, 0.0) | {"gradient_std": deviation, "numerical_std": deviation}
    errors = [GradientError(check_id=i, **about, **values | {quantity: one}) for i, one in enumerate(draws)]
    return compare(report, {}, {experiment: errors})[0]


def test_a_published_size_is_one_draw() -> None:
    """Of 1 to 199 hundredths, the interval is from the fifth, 5, to the 195th, whose ratio is 39."""
    sizes = [0.01 * (one + 1) for one in np.random.default_rng(0).permutation(199)]
    for published, verdict in [(0.04, "differs"), (0.06, "undecided"), (1.94, "undecided"), (2 * 1.95, "differs")]:
        assert drawn("gradient_std", published, sizes).verdict == verdict
    narrow = [1.0 + one for one in sizes]
    found = {one: drawn("gradient_std", one, narrow) for one in (1.02, 1.06, 2.95, 5.9)}
    assert [one.verdict for one in found.values()] == ["differs", "reproduced", "reproduced", "differs"]
    assert found[1.06].why == "95 % of 199 draws of the weights give 1.1e+00 to 3.0e+00, a factor of 2.8"
    few = drawn("gradient_std", 1.06, narrow[:38])
    assert (few.verdict, few.why) == (
        "undecided",
        "an interval of single draws of the weights takes 39 of them, not 38",
    )
    assert drawn("numerical_std", 1.5, narrow[:39]).verdict == "reproduced"
    mixed = drawn("gradient_std", 1.06, narrow, tensor="")
    assert (mixed.verdict, mixed.why) == ("cannot be compared", "each tensor has its own size, name one")


@pytest.mark.parametrize(
    ("published", "deviation", "verdict"),
    [(0.5, 1.0, "reproduced"), (0.5, 0.9, "undecided"), (-1.2, 10.0, "differs"), (1e-18, 1.0, "reproduced")],
)
def test_a_mean_of_both_signs_is_compared_in_deviations_of_the_entries(
    published: float, deviation: float, verdict: str
) -> None:
    """Half of the interval, from -.95 to .95, must not be larger than the deviation of the entries."""
    means = [0.01 * (one - 99) for one in range(199)]
    assert drawn("gradient_mean", published, means, deviation).verdict == verdict


def test_rounding_errors_of_zero_agree() -> None:
    zeros = [1e-17 * (-1) ** i for i in range(199)]
    for published, verdict in [(-3e-18, "reproduced"), (4e-16, "reproduced"), (1e-3, "differs")]:
        assert drawn("gradient_mean", published, zeros).verdict == verdict
    assert drawn("gradient_mean", 4e-16, zeros).why == "both are rounding errors of 0"


def test_the_interval_covers_another_draw() -> None:
    """Of a skewed distribution, in 95 % of cases or a little more, by Monte Carlo."""
    rng = np.random.default_rng(0)
    for n in (39, 79, 100, 199):
        draws, another = rng.lognormal(size=(2000, n)), rng.lognormal(size=2000)
        inside = [
            decide_draw(x, row, 1e9, None)[0] == "reproduced" for x, row in zip(another, draws.tolist(), strict=True)
        ]
        assert 0.94 < np.mean(inside) < 0.98


def test_the_size_of_a_drawn_gradient(small_dataset: Dataset) -> None:
    """The gradient of weights of another seed could be one of ours; one twice as large as ours could not."""
    head, _, _ = GRADIENTS.partition("lambdas")
    text = f'{head}lambdas = [0]\nrepeats = 39\ndims = 8\nrows = [{{ row = "009-G", tensor = "W3", gradient_std = 1 }}]'
    [experiment] = parse("test", text).gradient_checks
    train_split = split(small_dataset, SplitConfig(validation=200)).train
    stacks = [*experiment.networks(), (replace(experiment.config, lam=0.0, seed=1000),)]
    checks = [check_network(one, train_split, CheckSettings(dims=8)) for one in stacks]
    *ours, published = [next(one for one in check.tensors if one.tensor == "linear3.W") for check in checks]
    draws = [one.gradient_std for one in ours]
    assert drawn("gradient_std", published.gradient_std, draws).verdict == "reproduced"
    assert drawn("gradient_std", 2 * max(draws), draws).verdict == "differs"


def with_half_of_the_gradients(right: Callable[..., Any]) -> Any:
    """A batch normalisation whose gradients are half of what they should be."""

    def wrong(self: layers.BatchNorm, X: np.ndarray, **how: bool) -> Any:
        output, backward = right(self, X, **how)

        def half(G: np.ndarray) -> Any:
            dX, gradients = backward(G)
            return dX / 2, {name: gradient / 2 for name, gradient in gradients.items()}

        return output, half

    return wrong


def test_beta_of_a_single_image_is_no_wrong_gradient(small_dataset: Dataset) -> None:
    rows = """rows = [
  { row = "009-G", max_absolute = 1e-8 },
  { row = "009-G", tensor = "beta1", max_absolute = 1e-8 },
]"""
    report = parse("test", f"{GRADIENTS.partition('rows = [')[0]}images = 1\n{rows}")
    [experiment] = report.gradient_checks
    train_split = split(small_dataset, SplitConfig(validation=200)).train
    checks = [check_network(one, train_split, CheckSettings(images=1, dims=8)) for one in experiment.networks()]
    errors = stored_errors(checks)
    assert not all(one.passed for one in errors)
    found = compare(report, {}, {experiment: errors})
    assert [(one.verdict, one.failed) for one in found] == [("reproduced", False), ("cannot be compared", False)]


def test_a_wrong_gradient_differs(small_dataset: Dataset, change_forward: Callable[..., None]) -> None:
    change_forward(layers.BatchNorm, with_half_of_the_gradients)
    found = gradient_lines(small_dataset)
    assert [one.verdict for one in found] == ["differs"] * 3
    assert all(one.failed for one in found)


def test_a_check_of_one_image_finds_no_fault_in_anything(
    small_dataset: Dataset, change_forward: Callable[..., None]
) -> None:
    config = TrainConfig(hidden=(6, 5), batch_norm=True, lam=0.0, dtype="float64")
    train_split = split(small_dataset, SplitConfig(validation=200)).train
    change_forward(layers.BatchNorm, with_half_of_the_gradients)
    check = check_network((config,), train_split, CheckSettings(images=1, dims=8))
    tensors = {one.tensor: one for one in check.tensors}
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


def test_chains_of_one_study_continue_each_other() -> None:
    """The second search begins with the weights of the first; its variant, and a part of the first, do not."""
    study = 'is_chain = true\nstudy = "both"\n'
    second = METHODS[METHODS.index('[[experiments]]\nname = "search"') :].replace('"search"', '"second"')
    second = second.replace("009-3", "009-5").replace("009-4", "009-6").replace("epochs = 3", "epochs = 5")
    report = parse("test", (METHODS + second).replace("is_chain = true\n", study))
    [chain] = [one for one in planned(report, 2) if one.chains]
    assert (chain.method, chain.chains) == ("random biases; warm-started both", [tuple(range(6)), tuple(range(6, 12))])
    trained = [(3, 0.1), (3, 0.7), (3, 0.3), (5, 0.1), (5, 0.7), (5, 0.3)]
    assert [(config.epochs, config.lam) for config in chain.configs] == trained * 2
    for row, n in (("4", 1), ("6", 4)):
        [part] = [one for one in planned(report.only([row]), 1) if one.chains]
        assert [(config.epochs, config.lam) for config in part.configs] == trained[:n]
    [line] = [one for one in report.lines if one.row == "009-5" and one.variant is None]
    assert "the weights of the one before, through both" in str(line.note)


def test_a_chain_has_the_seeds_that_its_experiment_asks_for() -> None:
    report = parse("test", METHODS.replace("is_chain = true\n", "is_chain = true\nrepeats = 4\n"))
    for quick, seeds in ((False, 4), (True, 2)):
        [chain] = [one for one in planned(report, 2, quick=quick) if one.chains]
        assert [config.seed for config in chain.configs] == [seed for seed in range(seeds) for _ in range(3)]
        assert len(chain.chains or ()) == seeds


def test_a_study_of_its_own_leaves_the_others_as_they_are() -> None:
    apart = METHODS.replace('name = "one"\n', 'name = "one"\nrepeats = 5\nstudy = "five"\nvariant = VARIANT\n')
    report = parse("test", apart.replace("VARIANT", '{ name = "as ever", repeats = 1 }'))
    own, *others = planned(report, 2)
    assert (own.method, [config.seed for config in own.configs]) == ("five", [0, 1, 2, 3, 4])
    assert {one.method: one for one in others} == {one.method: one for one in planned(parse("test", METHODS), 2)}


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
    assert [one.why for one in alone if one.line.row == "009-2"] == ["not trained; as the code: random biases"]


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
rows = [{ row = "009-1", test_accuracy = 0.5000 }]
[[experiments]]
name = "two"
config = { lam = 0.2 }
quirks = ["random biases"]
rows = [{ row = "009-2", test_accuracy = 0.5000 }]
[[experiments]]
name = "search"
config = { epochs = 3 }
quirks = ["random biases"]
is_chain = true
lambdas = [0.1, 0.7, 0.3]
if_differs = "chance"
rows = [
  { row = "009-3", lam = 0.3, test_accuracy = 0.5000, note = "from a figure" },
  { row = "009-4", lam = 0.1, test_accuracy = 0.5000, note = "from a figure" },
]
[experiments.variant]
name = "as the text says"
config = { epochs = 4 }
quirks = []
is_chain = false
lambdas = []
note = "from fresh weights"
"""
