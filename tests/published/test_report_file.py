"""The published reports: every row is there, with the numbers and settings as printed."""

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest

from klcli.errors import ConfigError
from klcli.published.registration import plan_notes
from klcli.published.report import Line, parse, report, report_names
from klcli.settings.sameness import SETTINGS
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Study
from klcli.store.studies import PLAN_SHA256, TEXT
from klcli.studies.plans import repeat
from klcli.training.budget import budget_of
from tests.published.documentation import PAGE

# The rows of the reports' tables and figures, written down by hand, each with how many numbers it publishes.
ROWS = {
    "a3-2021": {
        "000-G1": 8, "000-G2": 12, "000-G3": 16, "000-G4": 12, "000-G5": 20,
        "000-F1": 2, "000-F2": 2, "000-F3": 2, "000-F4": 2, "000-F8": 2,
        "000-F5": 0, "000-T1": 3, "000-F6": 0, "000-T2": 3, "000-F7": 0, "000-T3": 3,
        "000-F9a": 2, "000-F9b": 2, "000-F9c": 2, "000-F10a": 2, "000-F10b": 2, "000-F10c": 2, "000-E1": 0,
        "000-C1": 3,
    },
    "a3-2022": {
        "001-G": 2, "001-F1": 2, "001-F2": 2, "001-F3": 2, "001-F4": 2, "001-F5": 2, "001-F6": 2, "001-F7": 2,
        "001-F8": 2, "001-T1": 10, "001-T2": 10, "001-F9": 2, "001-F10": 2,
        "001-S1": 5, "001-S2": 5, "001-S3": 5, "001-S4": 5, "001-S5": 5, "001-S6": 5,
        "001-C1": 2, "001-C2": 1, "001-C3": 1,
    },
    "a2-2019": {
        "002-G1": 4, "002-F3": 3, "002-F4": 3, "002-B1": 7, "002-C1": 2, "002-C2": 2,
        **{f"002-{search}{i:02}": 3 for search in "SR" for i in range(1, 31)},
    },
    "a3-2024": {
        **{f"003-T1{letter}": 2 for letter in "abcdefgh"},
        "003-T2a": 1, "003-T2b": 1, "003-T2c": 1, "003-T2d": 1, "003-T3": 8, "003-T4": 8,
        "003-T5a": 2, "003-T5b": 2, "003-T5c": 2,
        "003-C1": 2, "003-C2": 1, "003-C3": 2, "003-C4": 4, "003-C5": 1,
    },
    "a3-bonus-2022": {
        "004-Rg": 30, "004-M": 2, "004-P": 2, "004-A": 3, "004-R": 3, "004-O": 5, "004-H": 4,
        "004-C1": 1, "004-C2": 1,
    },
}  # fmt: skip


def lines(name: str, row: str) -> list[Line]:
    return [line for line in report(name).lines if line.row == row]


def test_all_reports_are_there() -> None:
    assert report_names() == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_its_lines(name: str) -> None:
    mine = report(name).lines
    numbers = Counter(line.row for line in mine if line.published is not None and not line.variant)
    assert {line.row for line in mine} == set(ROWS[name])
    assert {row: numbers[row] for row in ROWS[name]} == ROWS[name]
    assert all(line.reason for line in mine if line.published is None)


@pytest.mark.parametrize(
    ("name", "row", "what", "quantity", "published"),
    [
        ("a3-2021", "000-F1", "3 layers without BN", "validation_accuracy", 0.5266),
        ("a3-2021", "000-F10c", "sigma 0.0001", "train_accuracy", 0.5505),
        ("a3-2021", "000-G5", "gamma2", "ratio_of_maxima", 7.7923e-8),
        ("a3-2021", "000-T3", "lambda 0.004874", "validation_accuracy", 0.5468),
        ("a3-2022", "001-F8", "9 layers with BN", "validation_cost", 1.5951),
        ("a3-2022", "001-T1", "lambda 0.004764", "best_validation_accuracy", 0.5252),
        ("a3-2022", "001-T2", "lambda 0.0045", "best_validation_accuracy", 0.5314),
        ("a3-2022", "001-S2", "sigma 0.1, with BN", "validation_cost", 1.5216),
        ("a2-2019", "002-F4", "three cycles", "test_accuracy", 0.4665),
        ("a2-2019", "002-S30", "coarse", "test_accuracy", 0.3916),
        ("a2-2019", "002-R19", "fine", "validation_accuracy", 0.4001),
        ("a3-2024", "003-T2c", "9 layers without BN", "test_accuracy", 0.4402),
        ("a3-2024", "003-T3", "lambda 0.05413", "test_accuracy", 0.5052),
        ("a3-2024", "003-T4", "lambda 0.003246", "test_accuracy", 0.5415),
        ("a3-2024", "003-T5b", "sigma 0.001, without BN", "test_accuracy", 0.5175),
        ("a3-2024", "003-T1h", "with BN, b4", "relative_to_maximum", 8.23e-11),
        ("a3-bonus-2022", "004-H", "9 wider layers", "test_accuracy", 0.551),
        ("a3-bonus-2022", "004-Rg", "gamma2", "gradient_mean", 1.398829512805015),
    ],
)
def test_numbers_are_those_of_the_report(name: str, row: str, what: str, quantity: str, published: float) -> None:
    found = [line.published for line in lines(name, row) if what in line.what and line.quantity == quantity]
    assert found[0] == published


@pytest.mark.parametrize(
    ("row", "low", "high", "draws"), [("000-T1", -5, -1, 20), ("000-T2", -4.5, -2, 20), ("000-T3", -2.75, -1.7, 10)]
)
def test_the_lambdas_of_2021_are_the_first_numbers_of_their_seeds(
    row: str, low: float, high: float, draws: int
) -> None:
    """In the order of the seeds, which is that of the warm start."""
    drawn = [10 ** (low + (high - low) * np.random.RandomState(j).random_sample()) for j in range(draws)]
    [search] = [
        one for one in report("a3-2021").experiments if lines("a3-2021", row)[0].what.startswith(f"{one.name},")
    ]
    assert [config.lam for config in search.configs] == pytest.approx(drawn, rel=1e-4)
    assert search.is_chain


@pytest.mark.parametrize(
    ("name", "row", "n", "updates", "n_s"),
    [
        ("a3-2021", "000-F1", 45_000, 9000, 2250),  # 20 epochs
        ("a3-2021", "000-F9a", 45_000, 9000, 900),  # 20 epochs, 5 cycles
        ("a3-2022", "001-S1", 45_000, 9000, 900),
        ("a2-2019", "002-F3", 10_000, 1000, 500),
        ("a2-2019", "002-F4", 10_000, 4800, 800),
        ("a2-2019", "002-B1", 48_900, 5868, 978),  # 12 epochs
        ("a3-2024", "003-T2a", 45_000, 9000, 2250),
        ("a3-bonus-2022", "004-O", 45_000, 9000, 2250),
    ],
)
def test_how_long_they_train(name: str, row: str, n: int, updates: int, n_s: int) -> None:
    config = lines(name, row)[0].config
    assert config is not None
    times = budget_of(config, n)
    assert (times.total_updates, times.step_size, times.ends_a_cycle) == (updates, n_s, True)


def test_the_searches_of_2019_end_within_a_cycle() -> None:
    """20 epochs at the n_s of Figure 4, warm-started and fresh."""
    for line in lines("a2-2019", "002-S01") + lines("a2-2019", "002-R30"):
        assert line.config is not None
        times = budget_of(line.config, 10_000)
        assert (times.total_updates, times.step_size, times.ends_a_cycle) == (2000, 800, False)


@pytest.mark.parametrize("name", ROWS)
def test_a_text_that_differs_from_its_code_runs_beside_it(name: str) -> None:
    """The variant repeats the numbers and the rows of its experiment, and trains otherwise."""
    own = report(name).experiments
    variants = [one for one in own if one.name.endswith(", as the text says")]
    assert len(variants) == {"a2-2019": 4, "a3-2021": 5}.get(name, 0)
    for one in variants:
        [code] = [other for other in own if one.name == f"{other.name}, as the text says"]
        assert (code.method, code.configs) != (one.method, one.configs)
        numbers = [line for line in report(name).lines if line.quantity]
        of_code, of_text = (
            [(line.row, line.quantity, line.published) for line in numbers if f"{line.what}, ".startswith(f"{of}, ")]
            for of in (code.name, one.name)
        )
        of_code = of_code[: len(of_text)]  # the name of a variant begins with that of its experiment
        assert of_code == of_text != []


def test_a_report_that_validated_on_other_images_is_compared_as_such() -> None:
    """The code of report 004 validates on the first 5000 images, ours on the last; those of 000 are drawn as it did."""
    others = {name for name in ROWS for line in report(name).lines if not line.same_validation_images}
    assert others == {"a3-bonus-2022"}
    assert all(not line.same_validation_images for line in report("a3-bonus-2022").lines)


def test_settings_follow_the_reports() -> None:
    [with_bn] = [line.config for line in lines("a3-2024", "003-T2b")]
    assert with_bn is not None
    assert (with_bn.initializer, with_bn.sigma, with_bn.bn_momentum, with_bn.batch_norm) == ("normal", 0.1, 0.8, True)
    [deep, of_the_text] = [line.config for line in lines("a3-2024", "003-T2d")]
    assert deep is not None
    assert of_the_text is not None
    assert of_the_text.hidden == (50, 30, 20, 10, 10, 10, 10, 10)
    assert (deep.hidden, deep.initializer, deep.sigma) == ((50, 30, 20, 20, 10, 10, 10, 10), "he", None)
    # The sigma table's lambda is the winner of the fine search, and its training the same but for the curves.
    of_sigma, of_search = lines("a3-2024", "003-T5a")[1].config, lines("a3-2024", "003-T4")[0].config
    assert of_sigma is not None
    assert replace(of_sigma, evaluations_per_cycle=0) == of_search
    [precise, _] = [line.config for line in lines("a3-bonus-2022", "004-P")]
    assert precise is not None
    assert (precise.bn_statistics, precise.bn_samples) == ("precise", 10_000)
    # What report 001 says nothing of is as in its code, in every training; of report 002 the order alone.
    for line in report("a3-2022").lines:
        if line.config is not None:
            own = (line.config.standardise, line.config.shuffle, line.config.bn_statistics, line.config.bn_eps)
            assert own == ("image", False, "batch", 1e-10)
    orders = {(line.config.standardise, line.config.shuffle) for line in report("a2-2019").lines if line.config}
    assert orders == {("pixel", False)}
    [best] = {line.config for line in lines("a2-2019", "002-B1")}
    assert best is not None
    assert (best.lam, best.split.train_batches, best.split.validation) == (6.861844223554064e-05, (), 1100)
    assert {line.config.split for line in report("a3-2021").lines if line.config} == {SplitConfig(split_seed=0)}


def test_a_stronger_division_of_the_images_replaces_the_weaker_one_as_a_whole() -> None:
    """As the page says, and report 002 needs: its best network trains on all files, not on the common one."""
    assert "`split`, for the division of the images, is one setting" in " ".join(PAGE.split())
    row = '{ row = "9-1", test_accuracy = 0.5'
    text = f"""{HEAD}[common]\nsplit = {{ train_batches = [1], validation = 700 }}
[[experiments]]\nname = "a"\nrows = [{row} }}, {row}, lam = 0.1, split = {{ subset = 90 }} }}]
[[experiments]]\nname = "b"\nconfig = {{ split = {{ validation_batches = [2] }} }}\nrows = [{row} }}]"""
    divided = [line.config.split for line in parse("r", text).lines if line.config]
    assert divided == [
        SplitConfig(train_batches=(1,), validation=700), SplitConfig(subset=90), SplitConfig(validation_batches=(2,))
    ]  # fmt: skip


def test_what_is_strange_says_why() -> None:
    assert "single image" in str(lines("a3-2024", "003-T1a")[1].note)
    assert "swapped" in str(lines("a3-2022", "001-S1")[0].note)


# The h and lambdas of the published gradient checks, as far as they are known, and the kind of the differences.
CHECKED: dict[str, tuple[float, tuple[float, ...], str | None]] = {
    **{f"000-G{number}": (1e-6, (0,), "forward") for number in range(1, 6)},
    "002-G1": (1e-7, (0,), None),
    "004-Rg": (1e-6, (0.01,), "forward"),
}


def test_a_gradient_check_made_otherwise_than_published_says_how() -> None:
    sizes = ("gradient_mean", "gradient_std")  # of the gradient itself, whatever it is compared with
    every = [line for name in report_names() for line in report(name).lines if line.row in CHECKED and line.check]
    assert {line.row for line in every} == {*CHECKED}
    for line in (line for line in every if line.quantity not in sizes):
        check, (h, lambdas, kind) = line.check, CHECKED[line.row]
        assert check and (check.settings.h, check.settings.method) == (1e-5, "centred")
        published, _, ours = str(line.note).partition("here ")
        assert f"h = {h:.0e}".replace("e-0", "e-") in published and f" {kind or 'h'} " in published, line
        assert "h = 1e-5" in ours and "centred" in ours
        is_said = "and lambda = 0," in published and "with lambda 0 and 0.01" in ours
        assert is_said == (check.lambdas != lambdas)


def test_some_rows_alone() -> None:
    one = report("a3-2021").only(["F1", "000-G4"])
    assert one.rows == ("000-G4", "000-F1")
    assert [experiment.name for experiment in one.experiments] == [
        "3 layers without BN", "3 layers without BN, as the text says"
    ]  # fmt: skip
    assert [len(check.lambdas) for check in one.gradient_checks] == [2]
    picture = report("a3-2021").only(["F5"])  # without numbers: what it shows is trained whole
    assert [(one.name, one.configs) for one in picture.experiments] == [
        (one.name, one.configs) for one in report("a3-2021").experiments if one.name == "coarse search of lambda"
    ]  # fmt: skip
    assert [one.rows for one in picture.figures] == [("000-F5",)]
    assert report("a3-2024").only(["T2"]).rows == ("003-T2a", "003-T2b", "003-T2c", "003-T2d")
    with pytest.raises(ConfigError, match=r"--only T9: report a3-2024 has no such row, it has 003-T1a"):
        report("a3-2024").only(["T9"])


HEAD = 'report = "9"\ncourse = "c"\ndate = "d"\nsummary = "s"\n'


def test_all_rows_are_the_whole_report() -> None:
    """A study stores the names of its rows; some trainings belong to no row, but to a figure."""
    names = '["numbers", "none"]'
    text = f"""{HEAD}[[experiments]]\nname = "numbers"\nlambdas = [1e-4, 1e-3, 1e-2]
rows = [{{ row = "9-T", lam = 1e-3, validation_accuracy = 0.4 }}]
[[experiments]]\nname = "none"\nlambdas = [0.1]\nrows = [{{ row = "9-T", reason = "illegible" }}]
[[figures]]\nrows = ["9-T"]\npanels = "lambda"\nexperiments = {names}"""
    whole = parse("r", text)
    for rows in ([], ["9-T"], ["T"]):
        chosen = whole.only(rows)
        assert [[config.lam for config in one.configs] for one in chosen.experiments] == [[1e-4, 1e-3, 1e-2], [0.1]]
        assert [one.rows for one in chosen.figures] == [("9-T",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("report =", "not TOML"),
        ('report = "9"', "the key 'course' is missing"),
        (HEAD + "[common]\nlambda = 1", "unknown setting lambda"),
        (HEAD + "[common]\nlam = -1", "lambda -1"),
        (HEAD + '[[experiments]]\nname = "a"\nrows = [{ row = "9-1", accuracy = 1 }]', "unknown setting accuracy"),
        (HEAD + '[[figures]]\nrows = ["9-1"]\npanels = "pie"\nexperiments = ["a"]', "panels 'pie'"),
    ],
)
def test_a_document_that_is_no_report_is_refused(text: str, message: str) -> None:
    if "[common]" in text:
        text += '\n[[experiments]]\nname = "a"\nrows = [{ row = "9-1", test_accuracy = 1 }]'
    with pytest.raises(ConfigError, match=message):
        parse("r", text)


def test_an_unknown_report_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"report 'a3-1999': choose one of a2-2019, a3-2021"):
        report("a3-1999")


NETWORK = TrainConfig(hidden=(50,))
DRAWN = replace(NETWORK, split=SplitConfig(split_seed=0))


def planned(number: int, first: int, configs: list[TrainConfig], text: str, vary: str = "all") -> Study:
    """A study of the plan with this number."""
    settings = {"report": "a3-2024", "rows": ["003-T1"], "vary": vary, "plan": [*map(asdict, configs)]}
    stored = {PLAN_SHA256: str(number), TEXT: text}
    about = {"stage": None, "state": "complete", "created_at": "2026-11-27T07:00:00"}
    return Study(id=first, kind="reproduce", settings=settings | stored, **about)


def deviations(
    old: list[list[TrainConfig]], new: list[list[TrainConfig]], text: str = report("a3-2024").text, vary: str = "all",
    changed: str | None = None,
) -> list[str]:  # fmt: skip
    """Return what deviates in a plan from an earlier one, both with the trainings of each of their studies."""
    before, after = (
        [planned(plan, 10 * plan + i, configs, text, vary) for i, configs in enumerate(studies)]
        for plan, (studies, text) in enumerate(((old, text), (new, changed or text)))
    )
    head = "deviates from the plan of study 0, of 2026-11-27: "
    notes = plan_notes(after, [*before, *after])[1:]
    assert all(one.startswith(head) for one in notes)
    return [one.removeprefix(head) for one in notes]


def test_the_first_plan_is_the_one_of_the_earlier_time() -> None:
    """After a merge, it has the higher number."""
    text = report("a3-2024").text
    first, later = (planned(plan, 9 - plan, [NETWORK], text) for plan in (1, 2))
    first = replace(first, created_at="2026-11-26T07:00:00")
    assert len(plan_notes([first], [first, later])) == 1
    [_, deviation] = plan_notes([later], [first, later])
    assert deviation.startswith("deviates from the plan of study 8, of 2026-11-26")


def test_more_seeds_of_some_settings_are_a_deviation_from_the_plan() -> None:
    """Three seeds of two networks, then eight of the deeper one."""
    deep = replace(NETWORK, hidden=(50, 50))
    old, new = ([*repeat(NETWORK, 3), *repeat(deep, n)] for n in (3, 8))
    assert deviations([old], [new]) == ["seeds of 1 of 2 settings: 8, not 3"]


def test_the_seeds_of_divided_plans_are_counted() -> None:
    assert deviations([repeat(NETWORK, 5, "split")], [repeat(NETWORK, 3, "split")], vary="split") == ["seeds: 3, not 5"]
    two, three = ([repeat(one, n) for one in (NETWORK, DRAWN)] for n in (2, 3))
    assert deviations(two, three) == ["seeds: 3, not 2"]
    assert deviations(two, three[:1]) == ["seeds: 3, not 2"]  # its other part has not begun


def test_another_division_is_a_deviation_from_the_plan() -> None:
    other = replace(NETWORK, split=SplitConfig(split_seed=1))
    for common in ([], [[NETWORK]]):
        words = f"{SETTINGS['split.split_seed'].label} 1, not 0"
        assert deviations([*common, [DRAWN]], [*common, [other]]) == [words]


def test_a_plan_on_several_numbers_of_images_is_one() -> None:
    """A learning curve; its first number of images in either plan is no option --subset."""
    few, many, other = (replace(NETWORK, split=SplitConfig(subset=n)) for n in (1000, 5000, 2000))
    text = f"""{HEAD}[[experiments]]\nname = "a"\nrows = [
{{ row = "9-1", split = {{ subset = 1000 }}, test_accuracy = 0.5 }},
{{ row = "9-1", split = {{ subset = 5000 }}, test_accuracy = 0.5 }},
{{ row = "9-1", split = {{ subset = 2000 }}, test_accuracy = 0.5 }}]""".replace("9-1", "9-003-T1")
    both = [repeat(few, 3), repeat(many, 3)]
    assert deviations(both, [repeat(few, 5), repeat(many, 5)], text) == ["seeds: 5, not 3"]
    assert deviations(both, [repeat(other, 3), repeat(many, 3)], text) == [
        f"{SETTINGS['split.subset'].label} 2000, not 1000"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tolerance = 0.02", "tolerance = 0.1"),
        ("above = 0.01", "above = 0"),
        ("above = 0.01", "below = 0.01"),
        ('"test_loss"', '"test_cost"'),
        ("summary", "same_validation_images = false\nsummary"),
        ("h = 1e-5", "h = 1e-4"),
        ('"W1"', '"W2"'),
    ],
)
def test_whatever_decides_a_verdict_deviates_by_its_row(old: str, new: str) -> None:
    text = f"""{HEAD}[[gradient_checks]]\nname = "g"\nconfig = {{}}\nlambdas = [0]\nh = 1e-5
rows = [{{ row = "9-003-T1", tensor = "W1", max_absolute = 1e-8 }}]
[[experiments]]\nname = "a"\nrows = [{{ row = "9-003-T1", tolerance = 0.02, test_loss = 1.5 }}]
[[conclusions]]\nrow = "9-003-T1"\nwhat = "w"\nkind = "gap"\nexperiments = ["a"]\nquantity = "test_loss"
above = 0.01"""
    changed = text.replace(old, new, 1)
    assert changed != text
    plan = [repeat(NETWORK, 2)]
    assert deviations(plan, plan, text, changed=changed) == ["numbers, remarks or checks of 9-003-T1"]
    assert deviations(plan, plan, text, changed=text.replace('"s"', '"another"')) == ["its text"]
