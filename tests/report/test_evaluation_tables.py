"""Tables of later evaluations, of gradient checks and of range tests: differences, verdicts and titles by hand."""

import json
from dataclasses import asdict, replace
from statistics import mean
from typing import Any

import pytest
import records
from scipy import stats

from klcli.published.format.schema import ERRORS
from klcli.published.report import parse
from klcli.report.tables.formats import exact_rows
from klcli.report.tables.later_checks import (
    difference_notes,
    evaluation_table,
    evaluation_words,
    evaluations_table,
    gradient_check_table,
    gradient_check_title,
    gradient_method,
    gradient_verdict,
    measure_notes,
    suite_table,
)
from klcli.report.tables.studies import suggestion_sentence
from klcli.settings.procedures import MEASURES
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Evaluation, GradientCheck, GradientError, Run

STORED = (0.50, 0.52, 0.56)
NOW = (0.53, 0.54, 0.55)


def evaluation(id: int, accuracy: float, runs: list[int], **fields: Any) -> Evaluation:
    usual = {
        "created_at": "2026-05-31T12:00:00+00:00", "command": "klcli evaluate", "bn_statistics": None,
        "bn_samples": None, "snapshots": False, "flips": False, "shifts": 0, "seed": None, "transductive": False,
        "validation_loss": 1.25, "validation_accuracy": accuracy, "test_loss": 1.5, "test_accuracy": 0.5,
        "seconds": 1.0,
    }  # fmt: skip
    return Evaluation(id=id, runs=runs, **usual | fields)


def three_runs() -> list[Run]:
    return [
        records.run(number, TrainConfig(seed=number), validation_accuracy=value, validation_loss=1.0)
        for number, value in enumerate(STORED, 1)
    ]


def three_evaluations() -> list[Evaluation]:
    return [evaluation(number, value, [number]) for number, value in enumerate(NOW, 1)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "as trained"),
        ({"bn_statistics": "adaptive", "bn_samples": 1000, "transductive": True, "flips": True},
         "adaptive statistics (1000 images, transductive), flips"),
        ({"bn_statistics": "ema precise", "seed": 4, "shifts": 2, "snapshots": True},
         "ema and precise statistics, seed 4, snapshots, shifts by 2"),
        ({"runs": [3, 4]}, "ensemble of runs 3, 4"),
    ],
)  # fmt: skip
def test_how_it_was_evaluated(fields: dict[str, Any], words: str) -> None:
    assert evaluation_words(evaluation(1, 0.5, **{"runs": [3]} | fields)) == words


def test_an_evaluation_stands_beside_what_the_run_has_stored() -> None:
    first, second, *_ = evaluation_table("a title", three_evaluations(), three_runs()).cells()
    assert first == ["1", "validation", "0.5300", "0.5000", "+0.0300", "1.2500", "1.0000", "+0.2500"]
    assert second == ["1", "test", "0.5000", "-", "-", "1.5000", "-", "-"]


def test_an_ensemble_stands_beside_the_mean_and_the_best_of_its_runs() -> None:
    [row, _] = exact_rows(evaluation_table("a title", [evaluation(1, 0.6, [1, 2, 3])], three_runs()))
    assert row["accuracy_stored"] == pytest.approx(mean(STORED))
    assert row["accuracy_difference"] == pytest.approx(0.6 - mean(STORED))
    assert row["accuracy_best"] == 0.56


def test_differences_are_held_against_chance() -> None:
    differences = [now - stored for now, stored in zip(NOW, STORED, strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=mean(differences), scale=stats.sem(differences))
    [note] = [one for one in difference_notes(three_evaluations(), three_runs()) if "differs" in one]
    assert (
        f"differs by {mean(differences):+.4f} on the mean of 3 runs, 95 % interval from {low:+.4f} to {high:+.4f}"
        in note
    )
    assert note.endswith(": no more than chance")


def test_repeats_have_a_mean_with_its_interval() -> None:
    half = stats.t.ppf(0.975, 2) * stats.sem(NOW)
    ending = "mean of 3 runs with its 95 % interval"
    notes = difference_notes(three_evaluations(), three_runs())
    assert f"validation accuracy {mean(NOW):.4f} ± {half:.4f}, {ending}" in notes
    assert not any("test accuracy 0.5000 ±" in note for note in notes)  # equal values do not say how others scatter


def test_equal_differences_are_no_evidence() -> None:
    """With few images, two networks easily gain one image each."""
    [note] = difference_notes([evaluation(n, STORED[n - 1] + 0.01, [n]) for n in (1, 2)], three_runs()[:2])[1:]
    assert note == "validation accuracy differs by +0.0100 in each of 2 runs: equal differences have no interval"


def test_a_training_that_was_repeated_with_its_seed_counts_once() -> None:
    """Two equal runs differ from their evaluations by one number, whose spread of 0 is no evidence."""
    copy = records.run(4, three_runs()[0].config, validation_accuracy=STORED[0], validation_loss=1.0)
    runs, evaluations = [*three_runs(), copy], [*three_evaluations(), evaluation(4, NOW[0], [4])]
    left_out = "Not counted, because each repeats the training of another run: 4."
    assert difference_notes(evaluations, runs) == [*difference_notes(three_evaluations(), three_runs()), left_out]
    assert difference_notes([evaluations[0], evaluations[3]], [runs[0], copy]) == [left_out]


@pytest.mark.parametrize("again", [{}, {"order_seed": 2}, {"step_size": 2250}, {"epochs": 20}])
def test_a_training_that_was_stored_twice_is_one_of_the_mean(again: dict[str, Any]) -> None:
    runs = [*three_runs()[:2], records.run(3, TrainConfig(seed=2, **again), validation_accuracy=STORED[1])]
    evaluations = [*three_evaluations()[:2], evaluation(3, NOW[1], [3])]
    assert difference_notes(evaluations, runs) == [
        *difference_notes(evaluations[:2], runs[:2]),
        "Not counted, because each repeats the training of another run: 3.",
    ]


@pytest.mark.parametrize("third", [{"lam": 0.1}, {"seed": 1}, {"images": "b"}])
def test_runs_that_are_no_repeats_have_no_mean(third: dict[str, Any]) -> None:
    runs = []
    for number, value in enumerate(STORED, 1):
        own = {"seed": number, "images": "a"} | (third if number == len(STORED) else {})
        config, images = TrainConfig(**{k: v for k, v in own.items() if k != "images"}), own["images"]
        runs.append(records.run(number, config, dataset_sha256=images, validation_accuracy=value, validation_loss=1.0))
    assert not [note for note in difference_notes(three_evaluations(), runs) if "mean of 3 runs with" in note]


def test_stored_evaluations_are_ranked() -> None:
    policy = {"bn_statistics": "batch", "transductive": True, "flips": True}
    table = evaluations_table("a title", [evaluation(1, 0.5, [1]), evaluation(2, 0.6, [2, 3], **policy)])
    assert [cells[:5] for cells in table.cells()] == [
        ["2, 3", "batch, transductive", "-", "no", "yes"], ["1", "-", "-", "no", "no"],
    ]  # fmt: skip


def check(configs: list[TrainConfig], *absolute: float) -> GradientCheck:
    errors = [
        GradientError(
            check_id=1, position=i, tensor=f"linear{i}.W", entries=150, kinks=i, max_absolute=error,
            relative_to_sum=error * 10, relative_to_maximum=error, ratio_of_maxima=error, gradient_mean=0.1,
            gradient_std=0.2, equal_decimals=12 - 3 * i, mismatches=0.5 * (i - 1), ratio_of_sums=error,
            numerical_mean=0.1, numerical_std=0.2, difference_mean=0.0, difference_std=error, difference_max=-error,
            passed=error < 1e-8,
        )
        for i, error in enumerate(absolute, start=1)
    ]  # fmt: skip
    return GradientCheck(
        id=1, suite=4, created_at="", command="", dataset="cifar10", dataset_sha256="a" * 64, images=10, dims=30,
        method="centred", h=1e-5, atol=1e-8, rtol=1e-6, decimals=7, threshold=1e-5, passed=False, seconds=1.0,
        configs_json=json.dumps([asdict(config) for config in configs]), errors=tuple(errors),
    )  # fmt: skip


def test_the_verdict_on_gradients() -> None:
    checks = [check([TrainConfig(dtype="float64")], 1e-10, 2e-3), check([TrainConfig()], 1e-9)]
    assert gradient_verdict(checks) == (
        "FAIL: 2 of 3 tensors of 2 networks have rel to sum < 1e-06, or max abs < 1e-08 and < 1e-08 of the largest "
        "|ga| + |gn|, or by the complex step an error < 1e-08 of the same; largest max abs 2.0e-03, 4 kinks"
    )
    one = gradient_verdict([check([TrainConfig()], 1e-9)])
    assert "1 of 1 tensors of 1 network have" in one
    assert one.endswith(", 1 kink")
    assert gradient_method(checks[0]) == (
        "centred differences with h 1e-05 in float64, on 10 cifar10 images of 30 pixels"
    )
    table = suite_table(checks, MEASURES)
    assert table.title == "Gradient check, suite 4"
    assert [(cells[0], cells[1], cells[-1]) for cells in table.cells()] == [
        ("3-layer 50-50, lambda 0.005", "linear1.W", "pass"),
        ("3-layer 50-50, lambda 0.005", "linear2.W", "FAIL"),
        ("3-layer 50-50, lambda 0.005", "linear1.W", "pass"),
    ]
    assert gradient_check_table(checks[0], MEASURES).cells()[1] == [
        "linear2.W", "150", "2", "2.0e-03", "2.0e-02", "2.0e-03", "2.0e-03", "2.0e-03", "6", "50.0%", "1.0e-01",
        "2.0e-01", "1.0e-01", "2.0e-01", "0.0e+00", "2.0e-03", "-2.0e-03", "FAIL",
    ]  # fmt: skip
    assert gradient_check_table(checks[0], ["decimals"]).cells()[0] == ["linear1.W", "150", "1", "9", "0.0%", "pass"]


@pytest.mark.parametrize("width", range(60, 125, 2))
def test_the_moments_of_a_difference_stay_beside_one_another(width: int) -> None:
    """Deviation and maximum of ga - gn say in their titles nothing of it."""
    lines = records.printed(gradient_check_table(check([TrainConfig()], 1e-9), ["moments"]), width).splitlines()
    rules = [number for number, line in enumerate(lines) if line.strip() and set(line.strip()) == {"─"}]
    heads = [" ".join(lines[max(0, number - 3) : number]).split() for number in rules]
    assert sum("max" in head for head in heads) == 1
    for head in heads:
        assert ("max" in head) is ("-" in head)
        assert ("max" not in head) or "std" in head


def test_the_measures_of_a_suite_are_summed_up() -> None:
    checks = [check([TrainConfig()], 1e-10, 2e-3), check([TrainConfig()], 1e-9)]
    of_sums, equal, signs = measure_notes(checks, MEASURES)
    assert of_sums.endswith(": below 1e-05 in 2 of 3 tensors, not in linear2.W")
    assert equal.startswith("equal to 6 decimals, |ga - gn| < 1.5e-6 ")
    assert equal.endswith("; 74 of 446 entries differ at 7 decimals")  # half of 148 of 149 + 148 + 149
    assert "ga - gn" in signs
    assert measure_notes(checks, ["errors"]) == []
    older = replace(
        checks[1],
        threshold=None,
        decimals=None,
        errors=tuple(replace(one, equal_decimals=None, ratio_of_sums=None) for one in checks[1].errors),
    )
    assert measure_notes([older], MEASURES) == [signs]
    assert "-" in gradient_check_table(older, ["ratios"]).cells()[0]


def test_the_title_of_a_check_has_what_decides_a_gradient() -> None:
    first = TrainConfig(batch_norm=True, dropout=0.1, bn_eps=1e-5, eta_max=0.2, epochs=3, dtype="float64", seed=3)
    assert gradient_check_title(check([first], 0.0)) == "3-layer 50-50 with BN, BN eps 1e-05, dropout 0.1, lambda 0.005"
    absent = {  # from the network and the images of a check
        "bn_momentum": 0.99, "bn_statistics": "adaptive", "bn_samples": 50, "whitening": 256, "whitening_eps": 5.0,
        "flip": True, "shift": 3, "contrast": 0.3, "weak_augmentation": 0.1, "mixup": 0.2, "weight_average": 0.99,
        "shuffle": False,
    }  # fmt: skip
    assert gradient_check_title(check([replace(first, **absent)], 0.0)) == gradient_check_title(check([first], 0.0))
    others = TrainConfig(
        hidden=(9,), activation="silu", silu_slope=1.7, initializer="normal", sigma=0.01, label_smoothing=0.1,
        standardise="image", lam=0,
    )  # fmt: skip
    assert gradient_check_title(check([others], 0.0)) == (
        "2-layer 9 SiLU, SiLU slope 1.7, init normal, sigma 0.01, label smoothing 0.1, standardised by image, lambda 0"
    )
    stack = [TrainConfig(lam=lam, seed=seed) for seed, lam in enumerate((0.0, 0.1))]
    assert gradient_check_title(check(stack, 0.0)) == "3-layer 50-50, 2 replicas with lambda 0, 0.1"


def test_the_limits_that_a_range_test_suggests() -> None:
    run = records.run(config=TrainConfig(schedule="range", eta_max=1.0, epochs=1))
    etas = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)

    def sentence(*accuracies: float) -> str:
        epochs = [
            records.epoch(step, learning_rate=eta, validation_accuracy=accuracy)
            for step, (eta, accuracy) in enumerate(zip(etas, accuracies, strict=True))
        ]
        return suggestion_sentence(run, epochs)

    assert sentence(0.1, 0.2, 0.3, 0.4, 0.1).startswith("suggested: --eta-min 0.001 --eta-max 0.01 ")
    assert sentence(0.1, 0.1, 0.1, 0.1, 0.1) == (
        "no suggestion: with no eta between 1e-05 and 1 has the validation accuracy risen by more than chance"
    )


def test_every_published_quantity_of_a_gradient_is_measured_and_can_be_a_row() -> None:
    [one] = check([TrainConfig()], 1e-3).errors
    rows = ", ".join(f"{name} = {i}.5" for i, name in enumerate(ERRORS))
    text = (
        'report = "009"\ncourse = "c"\ndate = "d"\nsummary = "s"\n[[gradient_checks]]\nname = "one"\n'
        f'config = {{ hidden = [5] }}\nlambdas = [0]\nrows = [{{ row = "009-1", tensor = "W1", {rows} }}]\n'
    )
    lines = parse("test", text).lines
    assert [(line.quantity, line.published) for line in lines] == [(name, i + 0.5) for i, name in enumerate(ERRORS)]
    assert all(isinstance(getattr(one, line.quantity or ""), float | int) for line in lines)
