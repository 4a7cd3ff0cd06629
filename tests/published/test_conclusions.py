"""Conclusions of a report, measured on hand-made runs: each of them holds, fails or stays undecided."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from klcli.errors import ConfigError
from klcli.published.conclusions import ahead_for_good
from klcli.published.format.validation import mistakes
from klcli.published.report import Comparison, Report, parse, report, report_names
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Epoch, Run
from klcli.studies.plans import repeat
from tests.published.evidence import compare

Values = dict[str, float]
Curves = dict[int, list[Epoch]]

REPORT = """
report = "009"
course = "c"
date = "d"
summary = "s"
[[experiments]]
name = "plain"
rows = [{ row = "009-1", train_accuracy = 0.6, test_accuracy = 0.5 }]
[[experiments]]
name = "bn"
config = { batch_norm = true }
rows = [{ row = "009-2", train_accuracy = 0.6, test_accuracy = 0.5 }]
[[experiments]]
name = "search"
rows = [{ row = "009-3", lam = 0.01, validation_accuracy = 0.5 }]
lambdas = [0.01, 0.02, 0.03, 0.04]
[[experiments]]
name = "none"
rows = [{ row = "009-5", reason = "illegible" }]
[[experiments]]
name = "sweep"
config = { initializer = "normal" }
rows = [
  { row = "009-4", sigma = 0.1, batch_norm = false, test_accuracy = 0.5 },
  { row = "009-4", sigma = 0.1, batch_norm = true, test_accuracy = 0.5 },
  { row = "009-4", sigma = 0.01, batch_norm = false, test_accuracy = 0.5 },
  { row = "009-4", sigma = 0.01, batch_norm = true, test_accuracy = 0.5 },
]
[[conclusions]]
row = "009-C"
what = "it is so"
"""


def text_of(**keys: object) -> str:
    values = {True: str, False: repr}
    lines = [f"{key} = {values[isinstance(value, list | float)](value)}" for key, value in keys.items()]
    return REPORT + "\n".join(lines).replace("'", '"')


def concluding(**keys: object) -> Report:
    return parse("test", text_of(**keys))


def run(id: int, config: TrainConfig, values: Mapping[str, float], state: str = "complete") -> Run:
    return Run(
        id=id, state=state, started_at="", host="", pid=1, command="", dataset="", dataset_sha256="",
        dataset_source="", step_size=1, cycles=1.0, epochs=1.0, threads=1, config_json=config.to_json(),
        versions_json="{}", **values,
    )  # fmt: skip


def concluded(document: Report, values: dict[str, list[list[Values]]], curves: Curves | None = None) -> Comparison:
    """Compare with the results of experiments: a list for each setting, of one result for each seed, {} if lost."""
    runs: dict[TrainConfig, Run] = {}
    for experiment in document.experiments:
        for base, seeds in zip(experiment.configs, values.get(experiment.name, []), strict=False):
            for config, found in zip(repeat(base, len(seeds)), seeds, strict=True):
                runs[config] = run(len(runs) + 1, config, found, "complete" if found else "diverged")
    found = compare(document, runs, {}, epochs=(curves or {}).__getitem__)
    [line] = [one for one in found if one.line.conclusion]
    return line


def accuracies(*values: float, split: str = "test") -> list[Values]:
    return [{"train_accuracy": 0.6, f"{split}_accuracy": value} for value in values]


def gaps(*values: float) -> list[Values]:
    """Runs with this training minus test accuracy; the training accuracy varies."""
    return [{"train_accuracy": 0.6 + i / 500, "test_accuracy": 0.6 + i / 500 - v} for i, v in enumerate(values)]


def typical(*values: float) -> float:
    return float(np.std(values, ddof=1)) / (1 - 2 / (9 * (len(values) - 1))) ** 1.5


def half(values: Sequence[float], prior: float, freedom: int) -> float:
    n = len(values)
    s2 = ((n - 1) * np.var(values, ddof=1) + freedom * prior**2) / (n - 1 + freedom)
    return float(stats.t.ppf(0.975, n - 1 + freedom) * math.sqrt(s2 * (1 + 1 / n)))


# ---------------------------------------------------------------- gap


def test_a_gap_by_hand() -> None:
    document = concluding(kind="gap", experiments=["plain"], quantity="test_accuracy", published=0.152)
    values = [0.147, 0.15, 0.153]
    one = concluded(document, {"plain": [gaps(*values)]})
    assert one.ours is not None
    assert one.ours.values == pytest.approx(values)
    assert one.difference == pytest.approx(0.15 - 0.152)
    assert one.margin == pytest.approx(half(values, 0.0, 0))  # no other setting tells what is typical
    other = concluded(document, {"plain": [gaps(*values)], "bn": [gaps(*values)]})
    train, test = [0.6, 0.602, 0.604], [0.453, 0.452, 0.451]
    assert other.margin == pytest.approx(half(values, math.hypot(typical(*train), typical(*test)), 2))
    assert (one.verdict, one.tolerance) == ("reproduced", 0.02)


@pytest.mark.parametrize(
    ("published", "tolerance", "verdict"),
    [(0.152, 0.02, "reproduced"), (0.314, 0.02, "differs"), (0.145, 0.02, "reproduced"), (0.152, 0.001, "undecided")],
)
def test_a_published_gap(published: float, tolerance: float, verdict: str) -> None:
    about = {"experiments": ["plain"], "quantity": "test_accuracy", "published": published, "tolerance": tolerance}
    assert concluded(concluding(kind="gap", **about), {"plain": [gaps(0.147, 0.15, 0.153)]}).verdict == verdict


@pytest.mark.parametrize(("split", "images"), [("test", [45000]), ("validation", [45000, 5000])])
def test_a_gap_on_other_images_has_the_sampling_errors_of_both_parts(split: str, images: list[int]) -> None:
    """Training and validation images differ: the luck of their division does not cancel. All share the test images."""
    about = {"kind": "gap", "experiments": ["plain"], "quantity": f"{split}_accuracy", "published": 0.15}
    values, ours = [0.147, 0.15, 0.153], dict[bool, Comparison]()
    seeds = [
        {"train_accuracy": 0.6, "test_accuracy": 0.6 - value, "validation_accuracy": 0.6 - value} for value in values
    ]
    for same in (True, False):
        document = parse("test", f"same_validation_images = {str(same).lower()}\n{text_of(**about)}")
        ours[same] = concluded(document, {"plain": [seeds]})
    accuracy = {45000: 0.6, 5000: 0.45}
    e2 = sum(2 * accuracy[n] * (1 - accuracy[n]) / n * (1 - n / 50000) for n in images)
    s2, spread = 0.003**2 * 4 / 3, 0.003
    # The typical spread of the only setting is its own; its degrees of freedom are those of the seeds.
    assert ours[True].margin == pytest.approx(stats.t.ppf(0.975, 2) * spread * math.sqrt(4 / 3))
    t = stats.t.ppf(0.975, 2 * (1 + e2 / s2) ** 2)
    assert ours[False].margin == pytest.approx(t * math.sqrt(s2 + e2))


def test_the_gaps_of_two_experiments() -> None:
    document = concluding(kind="gap", experiments=["plain", "bn"], quantity="test_accuracy", above=0)
    wide, narrow = [gaps(0.2, 0.202, 0.204)], [gaps(0.1, 0.101, 0.105)]
    assert concluded(document, {"plain": wide, "bn": narrow}).verdict == "reproduced"
    assert concluded(document, {"plain": narrow, "bn": wide}).verdict == "differs"
    assert concluded(document, {"plain": narrow, "bn": narrow}).verdict == "undecided"
    one = concluded(document, {"plain": wide, "bn": narrow})
    assert one.ours is not None
    assert one.ours.values == pytest.approx([0.1, 0.101, 0.099])


def test_a_gap_of_losses_is_that_of_losses() -> None:
    document = concluding(kind="gap", experiments=["plain"], quantity="test_loss", published=-0.3)
    ends = [one | {"train_loss": 1.1 + i, "test_loss": 1.4 + i} for i, one in enumerate(accuracies(0.5, 0.5, 0.5))]
    one = concluded(document, {"plain": [ends]})
    assert one.ours is not None
    assert one.ours.values == pytest.approx([-0.3] * 3)


# ---------------------------------------------------------------- difference


def test_a_difference_pairs_the_repeats_that_both_have() -> None:
    document = concluding(kind="difference", experiments=["bn", "plain"], quantity="test_accuracy", published=0.01)
    one = concluded(document, {"bn": [[*accuracies(0.51, 0.52), {}]], "plain": [accuracies(0.50, 0.505, 0.9)]})
    assert one.ours is not None
    assert one.ours.values == pytest.approx([0.01, 0.015])
    alone = concluded(document, {"bn": [accuracies(0.5, 0.5)]})
    assert (alone.verdict, alone.why) == ("cannot be compared", "not trained")
    single = concluded(document, {"bn": [accuracies(0.5)], "plain": [accuracies(0.5)]})
    assert (single.verdict, single.why) == ("undecided", "one seed has no spread, train at least 2")


# ---------------------------------------------------------------- lambda


def searched(*means: float) -> dict[str, list[list[Values]]]:
    """Three seeds of every lambda, .2 points apart: one standard error of their mean is .41 points, of 5000 images."""
    return {"search": [accuracies(v - 0.002, v, v + 0.002, split="validation") for v in means]}


@pytest.mark.parametrize(
    ("means", "verdict", "words"),
    [
        ((0.53, 0.531, 0.51, 0.5), "reproduced", "2 of 4 lambdas, 0.01 to 0.02"),
        ((0.52, 0.53, 0.51, 0.5), "differs", "1 of 4 lambdas, 0.02 to 0.02; the published lambda is 1.00 points b"),
        ((0.53, 0.53, 0.531, 0.532), "undecided", "4 of 4 lambdas, 0.01 to 0.04"),
    ],
)
def test_the_chosen_lambda(means: tuple[float, ...], verdict: str, words: str) -> None:
    one = concluded(concluding(kind="lambda", experiments=["search"], published=0.01), searched(*means))
    assert one.verdict == verdict
    assert one.why.startswith(f"within one standard error of our best: {words}")
    assert one.ours is not None and one.ours.n == 3
    assert one.difference is None


def test_a_lambda_of_which_one_diverged_is_not_our_best() -> None:
    values = searched(0.53, 0.6, 0.51, 0.5)
    values["search"][1][0] = {}
    one = concluded(concluding(kind="lambda", experiments=["search"], published=0.01), values)
    assert one.verdict == "reproduced"
    assert one.why.startswith("within one standard error of our best: 1 of 4 lambdas, 0.01 to 0.01")


def test_a_published_lambda_of_which_one_diverged_differs_for_that_reason() -> None:
    """Its mean over the others is higher than that of our best."""
    values = searched(0.53, 0.6, 0.51, 0.5)
    values["search"][1][0] = {}
    one = concluded(concluding(kind="lambda", experiments=["search"], published=0.02), values)
    assert one.verdict == "differs"
    assert "; the published lambda diverged in 1 of 3 trainings, our best in 0" in one.why


@pytest.mark.parametrize(
    ("tried", "diverged", "verdict", "words"),
    [
        ([0.01], [], "undecided", "1 of 1 lambdas, 0.01 to 0.01"),
        ([0.01, 0.02], [0.02], "reproduced", "1 of 2 lambdas, 0.01 to 0.01"),
        ([0.01, 0.02], [0.02, 0.01], "cannot be compared", "6 of 6 trainings diverged: too few are left"),
    ],
)
def test_a_search_of_one_lambda_chooses_nothing(
    tried: list[float], diverged: list[float], verdict: str, words: str
) -> None:
    """Unless it has another, which diverges."""
    text = text_of(kind="lambda", experiments=["search"], published=0.01)
    values = [[{}] * 3 if lam in diverged else searched(0.5)["search"][0] for lam in tried]
    one = concluded(parse("test", text.replace("[0.01, 0.02, 0.03, 0.04]", str(tried))), {"search": values})
    assert one.verdict == verdict
    assert one.why.endswith(words)


def test_a_published_lambda_that_always_diverges_differs() -> None:
    values = searched(0.53, 0.52, 0.51, 0.5)
    values["search"][1] = [{}] * 3
    one = concluded(concluding(kind="lambda", experiments=["search"], published=0.02), values)
    assert one.verdict == "differs"
    assert "1 of 4 lambdas" in one.why
    assert "; the published lambda diverged in 3 of 3 trainings, our best in 0" in one.why


# ---------------------------------------------------------------- spread


def swept(without: Sequence[float], with_bn: Sequence[float]) -> dict[str, list[list[Values]]]:
    """Accuracies at sigma .1 and .01, three seeds .1 points apart."""
    many = [without[0], with_bn[0], without[1], with_bn[1]]
    return {"sweep": [accuracies(v, v + 0.001, v + 0.002) for v in many]}


@pytest.mark.parametrize(
    ("without", "with_bn", "verdict"),
    [
        ((0.53, 0.1), (0.53, 0.52), "reproduced"),
        ((0.53, 0.52), (0.53, 0.3), "differs"),
        ((0.53, 0.52), (0.53, 0.52), "undecided"),
    ],
)
def test_the_spread_over_sigma(without: list[float], with_bn: list[float], verdict: str) -> None:
    document = concluding(kind="spread", experiments=["sweep"], quantity="test_accuracy", above=0)
    one = concluded(document, swept(without, with_bn))
    assert one.verdict == verdict
    assert one.ours is not None
    assert one.ours.mean == pytest.approx(abs(without[0] - without[1]) - abs(with_bn[0] - with_bn[1]))


# ---------------------------------------------------------------- epochs


def curve(id: int, values: Sequence[float]) -> list[Epoch]:
    """The training loss falls as the accuracy rises."""
    rest = dict.fromkeys(("train_cost", "train_accuracy", "validation_loss", "validation_cost"), 0.0)
    rest |= {"learning_rate": 0.1, "seconds": 1.0}
    return [
        Epoch(run_id=id, epoch=float(i), step=i, validation_accuracy=value, train_loss=3 - value, **rest)
        for i, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    ("first", "second", "epoch"),
    [
        ([0.3, 0.4, 0.5], [0.2, 0.3, 0.4], 1),
        ([0.3, 0.2, 0.5], [0.2, 0.3, 0.4], 3),
        ([0.3, 0.4, 0.5], [0.2, 0.4, 0.4], 3),  # equal is not ahead
        ([0.3, 0.4, 0.3], [0.2, 0.3, 0.4], 3),  # never for good: the length of the training
    ],
)
def test_epochs_until_one_curve_is_ahead_for_good(first: list[float], second: list[float], epoch: float) -> None:
    assert ahead_for_good([1, 2, 3], first, second) == epoch


@pytest.mark.parametrize(
    ("leads_from", "verdict"), [((2, 3, 2, 3), "reproduced"), ((9, 8, 9, 8), "differs"), ((1, 5, 9, 5), "undecided")]
)
@pytest.mark.parametrize("quantity", ["validation_accuracy", "train_loss"])
def test_bn_converges_sooner(leads_from: tuple[int, ...], verdict: str, quantity: str) -> None:
    document = concluding(kind="epochs", experiments=["bn", "plain"], quantity=quantity, below=5)
    curves = {id: curve(id, [0.4] * 10) for id in (1, 2, 3, 4)}  # without BN
    curves |= {id: curve(id, [0.3] * (at - 1) + [0.5] * (11 - at)) for id, at in enumerate(leads_from, 5)}
    ends = [{"train_accuracy": 0.6, "test_accuracy": 0.5}] * 4
    one = concluded(document, {"plain": [ends], "bn": [ends]}, curves)
    assert one.ours is not None
    assert one.ours.values == leads_from
    assert one.verdict == verdict


@pytest.mark.parametrize(("below", "verdict"), [(4, "reproduced"), (3, "undecided")])
def test_equal_epochs_of_all_seeds_are_in_doubt_by_their_rounding(below: int, verdict: str) -> None:
    document = concluding(kind="epochs", experiments=["bn", "plain"], quantity="train_loss", below=below)
    curves = {id: curve(id, [0.4] * 10) for id in range(1, 6)}
    curves |= {id: curve(id, [0.3] * 2 + [0.5] * 8) for id in range(6, 11)}  # all ahead from the third epoch on
    ends = [{"train_accuracy": 0.6, "test_accuracy": 0.5}] * 5
    one = concluded(document, {"plain": [ends], "bn": [ends]}, curves)
    assert one.margin == pytest.approx(2.776 * (1 / 12 * (1 + 1 / 5)) ** 0.5, rel=1e-3)  # t of 4 degrees of freedom
    assert one.verdict == verdict


# ---------------------------------------------------------------- the documents


def test_a_stored_report_with_a_conclusion_of_a_later_klcli_is_refused() -> None:
    with pytest.raises(ConfigError, match="conclusion 009-C: kind 'mood', choose one of lambda, gap"):
        concluding(kind="mood", experiments=["plain"], above=0)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "gap", "experiments": ["plain"]}, "give one of published, above and below, not 0 of them"),
        ({"kind": "gap", "experiments": ["plain"], "above": 0, "below": 1}, "not 2 of them"),
        ({"kind": "epochs", "experiments": ["bn"], "below": 5}, "epochs is of 2 experiments, 1 are named"),
        ({"kind": "epochs", "experiments": ["bn", "plain"], "published": 5}, "of epochs needs a tolerance, in epochs"),
        ({"kind": "gap", "experiments": ["search"], "above": 0}, "with one setting each, these have 4"),
        ({"kind": "lambda", "experiments": ["search"], "published": 0.5}, "search does not try the lambda 0.5"),
        ({"kind": "spread", "experiments": ["plain"], "above": 0}, "these have only one of them"),
    ],
)
def test_an_impossible_conclusion_is_refused(keys: dict[str, object], words: str) -> None:
    [one] = mistakes(text_of(**keys))
    assert one.where == "conclusions 1" and one.words.startswith("conclusion 009-C: ") and words in one.words


def test_a_row_of_a_conclusion_trains_what_it_is_about() -> None:
    document = concluding(kind="difference", experiments=["bn", "plain"], quantity="test_accuracy", published=0.01)
    chosen = document.only(["C"])
    assert [one.name for one in chosen.experiments] == ["plain", "bn"]
    assert [line.row for line in chosen.lines] == ["009-C"]
    assert [line.row for line in document.only(["1"]).lines] == ["009-1"] * 2


def test_repeats_are_paired_by_their_seeds_though_one_was_deleted() -> None:
    document = concluding(kind="difference", experiments=["bn", "plain"], quantity="test_accuracy", above=0)
    configs = {one.name: one.configs[0] for one in document.experiments}
    found = {
        vary: [
            run(i, config, accuracies(value + seed / 10)[0])
            for i, (name, value, deleted) in enumerate([("bn", 0.12, 1), ("plain", 0.1, None)])
            for seed, config in enumerate(repeat(configs[name], 4, vary))
            if seed != deleted
        ]
        for vary in ("all", "init", "order", "split")
    }
    for vary, runs in found.items():
        [one] = [one for one in compare(document, {run.config: run for run in runs}, {}) if one.line.conclusion]
        assert one.ours is not None
        assert one.ours.values == pytest.approx([0.02] * 3), vary


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "lambda", "experiments": ["search"], "published": 0.01}, "8 of 8"),
        ({"kind": "gap", "experiments": ["bn"], "quantity": "test_accuracy", "above": 0}, "2 of 2"),
    ],
)
def test_diverged_trainings_are_not_called_untrained(keys: dict[str, object], words: str) -> None:
    one = concluded(concluding(**keys), {"bn": [[{}, {}]], "search": [[{}, {}]] * 4})
    assert (one.verdict, one.why) == ("cannot be compared", f"{words} trainings diverged: too few are left")


def test_every_report_has_conclusions() -> None:
    kinds = {name: {line.quantity for line in report(name).lines if line.conclusion} for name in report_names()}
    assert kinds == {
        "a2-2019": {"gap", "lambda"}, "a3-2021": {"lambda"}, "a3-2022": {"lambda", "difference", "spread"},
        "a3-2024": {"lambda", "difference", "spread", "gap", "epochs"}, "a3-bonus-2022": {"difference"},
    }  # fmt: skip
