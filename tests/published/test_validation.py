"""The mistakes of a report: each with its line and its cure, and none in what klcli ships."""

import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from klcli.errors import ConfigError
from klcli.published.format import sources
from klcli.published.format.schema import DOCUMENT, ROWS, TABLES
from klcli.published.format.validation import mistakes
from klcli.published.report import parse, report_names
from klcli.settings.sameness import SETTINGS
from tests.published.documentation import PAGE, example, key_tables, page

EXAMPLE = example()


def named(text: str) -> list[str]:
    return [str(one) for one in mistakes(text)]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize("name", report_names())
def test_the_reports_in_klcli_have_none(name: str) -> None:
    assert named(sources.read(name)) == []


def test_the_page_has_every_key_and_a_sound_example() -> None:
    for heading in key_tables():
        assert f"## {heading}\n\n" in PAGE
    assert page(PAGE) == PAGE, "`python -m tests.published.documentation` writes the tables"
    described = set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
    assert described == {key for keys in (DOCUMENT, *TABLES.values(), *ROWS.values()) for key in keys}
    assert named(EXAMPLE) == []


# What is replaced in the example, by what, the text in whose line the mistake is, and its words.
ONE_MISTAKE = [
    ('course = "Deep', 'course = "Deep\nl', "course", ": this is not TOML: Illegal character '\\n'"),
    ('date = "November 2026"\n', "", "report =", ": the key `date` is missing: when"),
    ('report = "7"', "report = 7", "report =", ": report = 7: must be a name of letters"),
    ('date = "November 2026"', 'date = "\\u001b[2J"', "date =", ": date = '\\x1b[2J': must be a text of one line"),
    ("[common]", "[comon]", "[comon]", ": no table or key `comon`, did you mean `common`?"),
    ("max_absolute = 2", "mismatches = 37, max_absolute = 2", "mismatches", "a percentage divided by 100"),
    ("lam = 0.005", "lamda = 0.005", "lamda", ": common: no setting `lamda`, did you mean `lam`?"),
    ("lam = 0.005", "lambda = 0.005", "lambda =", ": common: no setting `lambda`, did you mean `lam`?"),
    ("lam = 0.005", "lam = -1", "lam = -1", ": common: lam -1: must be a finite number, at least 0"),
    ("lam = 0.005", "split = { subset = 0 }", "split", ": common: subset 0: must be at least 1"),
    ('name = "search of lambda"', 'name = "search of lambda"\nquirks = [{}]', "quirks",
     ": experiments 3: quirks = [{}]: must be a list, of decay of W1 halved"),
    ('row = "7-T2", lam = 1e-2', 'row = "7-T2", tolerance = 0, lam = 1e-2', "tolerance",
     ": experiments 3, row 3: tolerance = 0: must be a number above 0"),
    ("lam = 0.005", "split = 0", "split", ": common: split = 0: must be a table of settings"),
    ("lam = 1e-2,", 'split = 0, "split.subset" = 3,', "split", ": experiments 3, row 3: split = 0: must be a table"),
    ("lam = 1e-2,", '"split.subset" = 3,', "split", ": experiments 3, row 3: no setting or number `split.subset`"),
    ('experiments = ["search of lambda"]', 'experiments = ["gradients with BN"]', 'experiments = ["gra',
     ": figures 2, experiments 1: no experiment 'gradients with BN'"),
    ("lam = 0.005", "seed = 3", "seed", ": common: seed: the seeds are those of --repeats, omit it"),
    ("hidden = [30, 20]", 'hidden = "30"', "hidden =", ": common: hidden '30': must be a list of whole numbers"),
    ("config = { batch_norm = true }", "config = { bn = true }", "{ bn",
     ": experiments 2, config: no setting `bn`, did you mean `batch_norm`?"),
    ("lam = 1e-3,", "lamda = 1e-3,", "lamda",
     ": experiments 3, row 2: no setting or number `lamda`, did you mean `lam`?"),
    ("test_loss = 1.64", "test_lost = 1.64", "test_lost", "`test_lost`, did you mean `test_loss`?"),
    ("0.4480", "44.80", "44.80", ": experiments 2, row 1: test_accuracy = 44.8: must be a fraction from 0 to 1"),
    ("0.4480", "true", "= true },\n", "row 1: test_accuracy = true: must be a fraction"),
    ("test_loss = 1.64", "test_loss = nan", "nan", ": experiments 1, row 1: test_loss = nan: must be a number"),
    (', reason = "illegible in the scan"', "", "hidden = [50]",
     ": experiments 2, row 2: no number and no reason: give a number, as `train_accuracy = ...`, or the `reason`"),
    ("lam = 1e-2,", 'initializer = "normal",', '"normal"',
     ": experiments 3, row 3: initializer normal needs sigma, for example sigma 0.01"),
    ("lam = 1e-2,", "sigma = 0.1,", "sigma", ": experiments 3, row 3: sigma 0.1: only initializer normal uses it"),
    ("lam = 1e-2,", "batch_size = 45001,", "45001", "row 3: batch_size 45001: larger than the 45000 training images"),
    ('row = "7-T2", lam = 1e-2', 'row = "T2", lam = 1e-2', '"T2"',
     ": experiments 3, row 3: row 'T2': must begin with the number of the report, as 7-T2"),
    ('row = "7-T2", lam = 1e-2', 'row = "7-/etc", lam = 1e-2', "7-/etc", "row = '7-/etc': must be a name of letters"),
    ("max_absolute = 2.4e-8", 'max_absolute = 2.4e-8, tensor = "W3"', "W3",
     ": gradient_checks 1, row 1: no tensor 'W3' in this network: it has W1, b1, W2, b2, gamma1, beta1"),
    ("lambdas = [0, 0.01]", "lambdas = []", "lambdas", ": lambdas = []: must be a list of numbers, each at least 0"),
    ('what = "BN trains faster"\n', "", "[[commentary]]", ": commentary 1: the key `what` is missing: the statement"),
    ('reason = "curves without a number"\n', "", 'rows = ["7-F1"]', ": figures 1, row 1: no row '7-F1' above"),
    ('rows = ["7-T2"]', 'rows = ["7-T3"]', 'rows = ["7-T3"]', "no row '7-T3' above, did you mean `7-T"),
    ('experiments = ["search of lambda"]', 'experiments = ["search of lamda"]', "lamda",
     ": figures 2, experiments 1: no experiment 'search of lamda', did you mean `search of lambda`?"),
    ('panels = "lambda"', 'panels = "pie"', "pie", ": figures 2: panels = 'pie': must be one of training, bn, lambda"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('note = "forward differences"', "note = ['forward differences']", "must be a text of one line"),
        ('row = "7-G"', "row = { name = '7-G' }", "must be a name of letters"),
        ('row = "7-T1", test_accuracy = 0.4480', "row = ['7-T1'], test_accuracy = 0.4480", "must be a name of letters"),
        ('reason = "illegible in the scan"', "reason = []", "must be a text of one line"),
    ],
)
def test_a_list_or_table_in_the_place_of_a_text_is_named(old: str, new: str, words: str) -> None:
    text = EXAMPLE.replace(old, new, 1)
    [found] = named(text)
    assert found.startswith(f"{line_of(text, new)}: ") and words in found


@pytest.mark.parametrize(("old", "new", "where", "words"), ONE_MISTAKE)
def test_one_mistake_is_named_with_its_line(old: str, new: str, where: str, words: str) -> None:
    text = EXAMPLE.replace(old, new, 1)
    assert text != EXAMPLE
    [found] = [one for one in named(text) if words in one]
    assert found.startswith(f"{line_of(text, where)}: ")


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("validation_accuracy = 0.4437", "validation_acuracy = 0.4437", "no number and no reason"),
        ('row = "7-T2", lam', 'roww = "7-T2", lam', "the key `row` is missing"),
        ("max_absolute = 2.4e-8", "max_absolut = 2.4e-8", "no number and no reason"),
    ],
)
def test_a_misspelt_key_is_named_before_what_is_missing_because_of_it(old: str, new: str, missing: str) -> None:
    text = EXAMPLE.replace(old, new, 1)
    line = line_of(text, new)
    cause, consequence = [one for one in named(text) if one.startswith(f"{line}: ")]
    assert "did you mean" in cause and missing in consequence


def test_a_misspelt_key_on_a_later_line_than_its_table_is_named_first() -> None:
    text = """report = "7"
source = "mine"

[[experiments]]

naem = "one"

[[experiments.rows]]
row = "7-T1"

test_acuracy = 0.5
"""
    found = [one for one in named(text) if "experiments" in one]
    assert [one.partition(":")[0] for one in found] == ["6", "6", "11", "11"]
    assert "did you mean `name`?" in found[0] and "the key `name` is missing" in found[1]
    assert "did you mean `test_accuracy`?" in found[2] and "no number and no reason" in found[3]


NO_BN = "bn_momentum: no effect, the network has no batch normalisation, add batch_norm"


def test_a_setting_without_an_effect_on_any_of_its_trainings() -> None:
    """As klcli train refuses it; one of the common settings is needed by a single training."""
    assert named(EXAMPLE.replace("lam = 0.005", "lam = 0.005\nbn_momentum = 0.8")) == []
    of_table = EXAMPLE.replace('name = "without BN"', 'name = "without BN"\nconfig = { bn_momentum = 0.8 }')
    assert named(of_table) == [f"{line_of(of_table, 'config = { bn_m')}: experiments 1, config: {NO_BN}"]
    of_variant = (
        of_table + '\n[[experiments]]\nname = "x"\nrows = [{ row = "7-X", schedule = "constant", reason = "a" }]'
    )
    assert named(of_variant) == named(of_table)
    row = EXAMPLE.replace("hidden = [50], reason", "batch_norm = false, bn_momentum = 0.5, reason")
    assert named(row) == [f"{line_of(row, 'bn_momentum')}: experiments 2, row 2: {NO_BN}"]
    fixed = "evaluations_per_cycle = 0, schedule = 'constant', epochs = 2, eta_min = 1e-3"
    constant = EXAMPLE.replace("evaluations_per_cycle = 0", fixed)
    words = "eta_min: no effect, the constant schedule has one rate, eta_max: omit it"
    assert named(constant) == [f"{line_of(constant, fixed)}: experiments 3, config: {words}"]
    common = EXAMPLE.replace("lam = 0.005", "lam = 0.005\nwhitening_eps = 0.1").replace("0.4522", "45.22")
    assert not any("no effect" in one for one in named(common))  # the wrong row might need it
    whole = common.replace("45.22", "0.4522")
    words = "whitening_eps: no effect, nothing is whitened, give whitening N"
    assert named(whole) == [f"{line_of(whole, 'whitening_eps')}: common: {words}"]
    batches = EXAMPLE.replace("lam = 0.005", "lam = 0.005\nsplit = { validation = 500, validation_batches = [2] }")
    words = "split.validation: no effect, validation_batches 2 names the images: omit one"
    assert named(batches) == [f"{line_of(batches, 'split')}: common: {words}"]


@pytest.mark.parametrize("kind", ["gap", "difference"])
def test_the_numbers_of_a_conclusion_about_accuracies_are_fractions(kind: str) -> None:
    names = ["with BN", "without BN"]
    head = f'\n[[conclusions]]\nrow = "7-C2"\nwhat = "w"\nkind = "{kind}"\nexperiments = {names}\n'.replace("'", '"')
    cure = "accuracies are fractions from 0 to 1 (a percentage divided by 100)"
    for key in ("published", "above", "below"):
        text = f"{EXAMPLE}{head}{key} = -1.5\n"
        assert named(text) == [f"{line_of(text, f'{key} = -1.5')}: conclusions 1: {key} = -1.5: {cure}"]
        assert named(f'{text}quantity = "test_loss"\n') == []
        assert named(text.replace("-1.5", "-0.015")) == []
    text = f"{EXAMPLE}{head}published = 0.01\ntolerance = 2\n"
    assert named(text) == [f"{line_of(text, 'tolerance')}: conclusions 1: tolerance = 2: {cure}"]
    row = EXAMPLE.replace('row = "7-T1", test_accuracy = 0.4480', 'row = "7-T1", tolerance = 2, test_accuracy = 0.4480')
    assert named(row) == [f"{line_of(row, 'tolerance')}: experiments 2, row 1: tolerance = 2: {cure}"]
    assert named(row.replace("test_accuracy = 0.4480", "test_loss = 1.8")) == []


def test_what_stands_twice() -> None:
    again = EXAMPLE.replace("lam = 1e-2, validation_accuracy = 0.4437", "lam = 1e-3, validation_accuracy = 0.4522")
    line = line_of(again, "0.4522 },") + 1
    cure = "omit one of them, or tell them apart by a `note`"
    assert named(again) == [f"{line}: experiments 3, row 3: a second validation_accuracy of 7-T2, as row 2: {cure}"]
    other = again.replace(
        '"7-T2", lam = 1e-3, validation_accuracy = 0.4522', '"7-T2", lam = 0.001, validation_accuracy = 0.1', 1
    )
    assert named(other) == named(again)
    assert named(other.replace("0.4522 }", '0.4522, note = "in the log" }')) == []
    assert named(other.replace("validation_accuracy = 0.1", "validation_loss = 1.3")) == []
    figure = other[other.index('[[figures]]\nrows = ["7-T2"]') :]
    apart = other.replace("validation_accuracy = 0.1", "hidden = [9], validation_accuracy = 0.1").replace(figure, "")
    assert named(apart) == []
    second = EXAMPLE.replace('name = "with BN"', 'name = "without BN"')
    line = line_of(second, "config = { batch_norm = true }\nif_differs") - 1
    words = "experiments 2: a second 'without BN': give every experiment and check its own name"
    assert f"{line}: {words}" in named(second)


def test_all_mistakes_are_named_at_once() -> None:
    text = EXAMPLE
    for old, new in {"lam = 0.005": "lamda = 1", "0.4480": "44.8", "lam = 1e-3,": "hiden = [3],", '"bn"': "3"}.items():
        text = text.replace(old, new)
    assert [one.partition(": ")[2] for one in named(text)] == [
        "common: no setting `lamda`, did you mean `lam`?",
        "experiments 2, row 1: test_accuracy = 44.8: must be a fraction from 0 to 1 (a percentage divided by 100)",
        "experiments 3, row 2: no setting or number `hiden`, did you mean `hidden`?",
        "figures 1: panels = 3: must be one of training, bn, lambda, sigma",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: no row: give [[experiments]]"),
        (f"a = {'[' * 20_000}", "nests too deeply"),
        (f"a = {'9' * 5000}", "this is not TOML"),
        ("experiments = 3", "1: experiments = 3: must be a list of tables"),
        ("experiments = [3]", "1: experiments 1: 3: must be a table"),
        ("figures = [{ rows = 1, experiments = 2 }]", "figures 1: rows = 1: must be a list of rows"),
        ("common = 1979-05-27 07:32:00", "1: common = 1979-05-27 07:32:00: must be a table of"),
    ],
)  # fmt: skip
def test_what_is_no_report_at_all(text: str, words: str) -> None:
    assert any(words in one for one in named(text)), named(text)


HEAD = 'report = "7"\ncourse = "c"\ndate = "d"\nsummary = "s"\n[[experiments]]\nname = "a"\n'


CONCLUSION = '[[conclusions]]\nrow = "7-C"\nwhat = "w"\nkind = "difference"\nexperiments = ["a", "a"]\nabove = 0\n'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"a", "a"', '"b"', "13: conclusions 1, experiments 1: no experiment 'b'"),
        ("difference", "sum", "12: conclusions 1: kind = 'sum': must be one of lambda, gap, difference"),
        (
            "above = 0",
            "above = 0\nbelow = 1",
            "9: conclusions 1: conclusion 7-C: give one of published, above and below",
        ),
    ],
)
def test_the_mistakes_of_a_conclusion(old: str, new: str, words: str) -> None:
    text = f'{HEAD}rows = [{{ row = "7-1", test_accuracy = 0.5 }}]\n\n{CONCLUSION}'
    assert named(text) == []
    assert words in named(text.replace(old, new))[0]


ANEW = "running averages begin anew in every cycle"
TABLE = '[[experiments]]\nname = "b"\n'
CHAIN = 'is_chain = true\nstudy = "s"\nrows = [{ row = "7-1", lam = 0.1, test_accuracy = 0.5 }]\n'
CHOSEN = CONCLUSION.replace("difference", "lambda").replace("above = 0", "published = 0.1").replace('"a", "a"', '"a"')
ONE = 'rows = [{ row = "7-1", lam = 0.1, test_accuracy = 0.5 }]\n'
SEARCH = (
    'rows = [{ row = "7-1", lam = 0.1, test_accuracy = 0.5 }, { row = "7-1", hidden = [9], test_accuracy = 0.5 }]\n'
)

NORMAL = 'config = { initializer = "normal" }\n'
OF_SIGMA, OF_SIZE, OF_NORMAL = (
    f'rows = [{{ row = "7-1", {own}, test_accuracy = 0.5 }}]\n'
    for own in ("sigma = 0.1", "batch_size = 100", 'initializer = "normal", sigma = 0.1')
)


AT_THE_END = "config = { evaluations_per_cycle = 0 }\n"
AT_THE_END_ALONE = "evaluations_per_cycle = 0 evaluates at the end alone"


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        (f'{ONE}{CONCLUSION}quantity = "test_loss"'.replace("difference", "epochs"), 14, "epochs is of one of train_"),
        (f'{ONE}{CONCLUSION}quantity = "train_loss"'.replace("difference", "gap"), 14, "gap is of one of validation_"),
        (f'{ONE}{CHOSEN}quantity = "test_loss"', 14, "lambda is of one of train_accuracy"),
        (AT_THE_END + ONE + CONCLUSION.replace("difference", "epochs"), 9, f"epochs needs curves, {AT_THE_END_ALONE}"),
        (f'{AT_THE_END}{ONE}{CONCLUSION}quantity = "best_validation_accuracy"', 9,
         f"best_validation_accuracy needs curves, {AT_THE_END_ALONE}"),
        (AT_THE_END + ONE.replace("test_acc", "best_validation_acc"), 8,
         f"experiments 1, row 1: best_validation_accuracy: needs curves, {AT_THE_END_ALONE}"),
        (ONE.replace("test", "evaluations_per_cycle = 0, best_validation"), 7, "row 1: best_validation_accuracy: n"),
        (
            f'{ONE}{TABLE}rows = [{{ row = "7-1", reason = "r" }}]\n'
            '[[figures]]\nrows = ["7-1"]\nexperiments = ["a", "b"]\npanels = "lambda"',
            13,
            "no training of b: a row without a number is not trained, give its experiment `lambdas`",
        ),
        (
            f'{ONE}{TABLE}rows = [{{ row = "7-1", reason = "r" }}]\n{CONCLUSION}'.replace('"a", "a"', '"a", "b"'),
            15,
            "conclusions 1: no training of b: a row without a number is not trained, give its experiment `lambdas`",
        ),
        (SEARCH + CHOSEN, 12, "the trainings of 'a' differ in more than `lam`"),
        (SEARCH + '[[figures]]\nrows = ["7-1"]\nexperiments = ["a"]\npanels = "lambda"', 10, "in more than `lam`"),
        (SEARCH + '[[figures]]\nrows = ["7-1"]\nexperiments = ["a"]\npanels = "sigma"', 10, "'a' has no `sigma`"),
        (
            f'{ONE}[experiments.variant]\nname = "v"\nconfig = {{ lam = 0.5 }}\n[[experiments]]\nname = "a, v"\n{ONE}',
            12,
            "a second 'a, v', as a variant is called with its experiment",
        ),
        ("is_chain = true\n" + SEARCH, 5, "a chain keeps its network and images"),
        (CHAIN + TABLE + CHAIN, 10, "lam 0.1 is trained twice in one chain"),
        ("lambdas = [1, 0.1, 1]\n" + CHAIN, 5, "lam 1 is trained twice in one chain"),
        ('quirks = ["random biases"]\n' + SEARCH, 7, "random biases: only for normal initial weights"),
        (
            'config = { standardise = "image" }\nquirks = ["each split standardised by its own statistics"]\n' + SEARCH,
            8,
            "each split standardised by its own statistics: only for pixels",
        ),
        (
            SEARCH + '[experiments.variant]\nname = "v"\nquirks = ["decay of W1 halved"]\nconfig = { momentum = 0.9 }',
            10,
            "decay of W1 halved: only for sgd without momentum",
        ),
        (f'quirks = ["{ANEW}"]\n{SEARCH}', 7, f"{ANEW}: no effect"),
        (f'quirks = ["{ANEW}"]\nconfig = {{ batch_norm = true, cycles = 1 }}\n{SEARCH}', 7, f"{ANEW}: no effect"),
        (
            SEARCH.replace("lam = 0.1, ", "")
            + '[experiments.variant]\nname = "v"\nquirks = ["decay of W1 halved"]\nconfig = { lam = 0 }',
            10,
            "decay of W1 halved: no effect",
        ),
        (SEARCH + '[experiments.variant]\nname = "v"\nconfig = { sigma = 1 }', 10, "experiments 1, variant: sigma 1"),
        (SEARCH + '[experiments.variant]\nname = "v"\nconfig = { initializer = "normal" }', 10, "needs sigma"),
        # The trainings of `lambdas` have the settings of no row.
        (f"lambdas = [1]\n{NORMAL}{OF_SIGMA}", 7, "experiments 1: initializer normal needs sigma"),
        (f"lambdas = [1]\nconfig = {{ batch_size = 45001 }}\n{OF_SIZE}", 7, "experiments 1: batch_size 45001: larger"),
        (f'lambdas = [1]\n{OF_NORMAL}[experiments.variant]\nname = "v"\nconfig = {{ sigma = 1 }}', 11,
         "experiments 1, variant: sigma 1"),
        (f'{NORMAL}{OF_SIGMA}[experiments.variant]\nname = "v"\nlambdas = [1]', 9,
         "experiments 1, variant: initializer normal needs sigma"),
        (
            SEARCH + '[[gradient_checks]]\nname = "g"\nconfig = {}\nlambdas = [0, 1]\nrepeats = 2\n'
            'rows = [{ row = "7-1", max_absolute = 1 }]',
            8,
            "repeats draw weights for one lambda, give one",
        ),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other(body: str, line: int, words: str) -> None:
    found = named(HEAD + body)
    assert [one for one in found if one.startswith(f"{line}: ") and words in one], found


def test_the_trainings_of_lambdas_may_need_a_setting_that_no_row_does() -> None:
    """And a sound variant makes the settings of its experiment sound for its own lambdas."""
    row = 'rows = [{ row = "7-1", batch_norm = false, test_accuracy = 0.5 }]\n'
    assert named(f"{HEAD}config = {{ batch_norm = true, bn_momentum = 0.5 }}\nlambdas = [1]\n{row}") == []
    variant = '[experiments.variant]\nname = "v"\nlambdas = [1]\nconfig = { sigma = 0.2 }'
    assert named(f"{HEAD}{NORMAL}{OF_SIGMA}{variant}") == []


@pytest.mark.parametrize(
    ("common", "own", "cure"),
    [
        ("momentum = 0.9", 'optimizer = "adam"', "momentum = 0.0"),
        ('activation = "silu"\nsilu_slope = 2', 'activation = "relu"', "silu_slope = 1.0"),
    ],
)
def test_a_common_setting_that_one_experiment_cannot_have(common: str, own: str, cure: str) -> None:
    head = HEAD.replace("[[", f"[common]\n{common}\n[[")
    rows = 'rows = [{ row = "7-1", test_accuracy = 0.5 }]\n'
    text = f"{head}{rows}{TABLE}config = {{ {own} }}\n{rows}"
    [found] = named(text)
    assert found.endswith(f", give {cure}")
    assert named(text.replace(own, f"{own}, {cure}")) == []
    [found] = named(text.replace(own, f"{own}, {common.splitlines()[-1]}"))
    assert found.endswith(", omit it")


def test_a_quirk_needs_an_effect_on_one_training_of_an_experiment() -> None:
    """A sweep may compare networks with others that have no averages, or no decay."""
    rows = SEARCH.replace("hidden = [9]", "batch_norm = true").replace("lam = 0.1", "lam = 0")
    for quirk in (ANEW, "decay of W1 halved"):
        assert named(f'{HEAD}config = {{ lam = 0.2 }}\nquirks = ["{quirk}"]\n{rows}') == []


def test_every_setting_may_stand_in_a_row() -> None:
    """With a value that it refuses, so that the row names it, and no other mistake."""
    for key, one in SETTINGS.items():
        name = key.removeprefix("split.")
        own = f"split = {{ {name} = {{}} }}" if "." in key else f"{key} = {{}}"
        [found] = named(f'{HEAD}rows = [{{ row = "7-1", test_accuracy = 0.5, {own} }}]')
        is_refused = found.startswith(f"7: experiments 1, row 1: {name} {{}}: must be")
        is_known = "." in key or not (one.is_seed or one.is_name)  # the seed of the split may be that of the report
        assert is_refused == is_known, found


@given(st.data())
def test_no_document_ends_in_a_traceback(data: st.DataObject) -> None:
    """Tokens of the example, exchanged for others; a document without a mistake is a report."""
    tokens = re.split(r"(\W)", EXAMPLE)
    others = st.sampled_from([*tokens, '"', "[", "{}", "-1", "nan", "split", '"split.subset"', "variant = {}\n"])
    for place in data.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=1, max_size=4)):
        tokens[place] = data.draw(others)
    text = "".join(tokens)
    assert mistakes(text) or parse("r", text).rows


def test_a_row_may_have_a_reason_and_no_number() -> None:
    found = parse("r", EXAMPLE)
    [line] = [line for line in found.lines if line.reason == "illegible in the scan"]
    assert (line.row, line.what, line.quantity, line.config) == ("7-T1", "with BN, hidden 50", None, None)
    assert {config.hidden for one in found.experiments for config in one.configs} == {(30, 20)}
    divided = f'{HEAD}rows = [{{ row = "7-1", test_accuracy = 0.5, split = {{ validation = 1000 }} }}]'
    [line] = parse("r", divided).lines
    assert line.what == "a, validation images 1000"
    assert line.config is not None
    assert line.config.split.validation == 1000


def test_a_file_is_read_with_bounds(tmp_path: Path) -> None:
    path = tmp_path / "my report.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.replace("\n", "\r\n").encode())  # as an editor of Windows saves it
    assert sources.read(str(path)) == EXAMPLE
    one = sources.open_report(str(path))
    assert re.fullmatch(r"my-report-[0-9a-f]{8}", one.name)
    path.write_text(f"{EXAMPLE}# another\n", encoding="utf-8")
    assert sources.open_report(str(path)).name != one.name
    refused = {
        b"a = 1\n# caf\xe9\n": r"my report\.toml:2: this is not UTF-8",
        b"#" * 300_000: "longer than 256 KiB",
        b"[common]\nlamda = 1": r"my report\.toml:1: the key `report` is .* mistakes, .* --check '.*'`",
    }
    for content, words in refused.items():
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            sources.open_report(str(path))


def test_what_is_no_file_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    refused = {"folder.toml": "this is a folder", "no.toml": "there is no such file", "a3": "choose one of a2-2019"}
    refused |= {"x" * 300: "choose one of a2-2019", f"{'x' * 300}.toml": "cannot be read"}
    for name, words in refused.items():
        with pytest.raises(ConfigError, match=words):
            sources.open_report(str(tmp_path / name))
