"""The figures of studies, drawn from stored runs: of a search with its final training, a sweep and a reproduction."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import Klcli, Refused, change, read, succeeded
from thinning import mostly_slow

from klcli.published.reproduction import stored_reproduction
from klcli.report.pictures import _stem
from klcli.report.plots.reproductions import pictures
from klcli.store.locks import Locks
from klcli.store.store import Store

SMALL = ("--data", "synthetic", "--subset", "200", "--jobs", "1", "--quiet", "--repeats", "2")
SEARCH = ("search-lambda", "--values", "0.1", "0.01", "--final", "--hidden", "5", *SMALL)  # studies 1 and 2
ROWS = ("F1", "F2", "F5", "T1", "F9a", "F9b", "F10a", "F10b")
REPORT = ("reproduce", "a3-2021", "--only", *ROWS, "--quick", *SMALL)  # studies 3 to 5


@pytest.fixture(scope="module")
def filled(fill: Callable[..., list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    assert fill(folder, [SEARCH, REPORT]) == [0, 0]
    return folder / "results"


@pytest.fixture
def studies(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "results")
    return tmp_path


def test_a_search_leaves_the_curves_of_its_final_training(filled: Path) -> None:
    assert (filled / "plots/study-000002-training.png").read_bytes().startswith(b"\x89PNG")


PUBLISHED = "study-000005-a3-2021"
# The kinds of pictures of a study, and their files.
PICTURES = {
    "1 training": ["run-000005-000006-training"],  # of the final training
    "1 lambda": ["study-000001-lambda"],
    "2 training": ["run-000005-000006-training"],
    "2 lambda": ["study-000001-lambda"],  # the search that it is the end of
    "2 curves": ["run-000005-000006-curves"],
    "3 training": [f"{PUBLISHED}-000-F1", f"{PUBLISHED}-000-F2"],
    "3 lambda": [f"{PUBLISHED}-000-F5", f"{PUBLISHED}-000-T1-warm-started"],
    "3 sigma": [f"{PUBLISHED}-000-F9a"],
    "3 bn": ["run-{}-bn"] * 3,  # of F1 and F2, and of each sigma: the report has no such figure
}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("asked", mostly_slow(PICTURES, 3))
def test_every_figure_is_drawn_from_the_stored_runs(here: Klcli, studies: Path, asked: str) -> None:
    shutil.rmtree(studies / "results/plots")
    number, kind = asked.split()
    succeeded(here("report", "--study", number, "--plot", kind))
    names = sorted(path.stem for path in (studies / "results/plots").iterdir())
    assert len(names) == len(PICTURES[asked])
    for name, wanted in zip(names, PICTURES[asked], strict=True):
        start, _, end = wanted.partition("{}")
        assert name.startswith(start) and name.endswith(end)


@pytest.mark.usefixtures("unrendered")
def test_curves_show_every_method(here: Klcli, studies: Path) -> None:
    shutil.rmtree(studies / "results/plots")
    assert here("report", "--study", "3", "--plot", "curves").returncode == 0
    [path] = (studies / "results/plots").iterdir()
    store = Store(studies / "results/klcli.db")
    trained = [run for study in (3, 4, 5) for run in store.studies.members(study)]
    assert len({run.config for run in trained}) < len(trained)
    assert path.stem.endswith(f"-n{len(trained)}-curves")


@pytest.mark.slow
def test_repeats_are_one_of_the_curves_that_fit_into_a_picture(
    here: Klcli, studies: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """101 repeats of one network were refused, by the command that their training shows; and so was a page of 120."""
    monkeypatch.setattr("klcli.report.pictures.MOST_CURVES", 1)
    assert [run["id"] for run in read(studies, "SELECT id FROM runs WHERE study_id = 2")] == [5, 6]  # repeats
    for view in (["--study", "2", "--plot", "curves"], ["--run", "5-6", "--plot", "curves"]):
        succeeded(here("report", *view))
    succeeded(here("report", "--html", "p.html", "--where", "study_id = 2"))
    assert re.search('alt="run (5 6|6 5) curves"', (studies / "p.html").read_text(encoding="utf-8"))
    message = refused(here("report", "--run", "4-6", "--plot", "curves"), 2)
    assert message.endswith("--plot curves: 2 settings do not fit into one picture, give --limit or --run")
    message = refused(here("report", "--study", "1", "--plot", "curves"), 2)
    assert message.endswith("with more than 1 curves; choose one of training, lambda")


@pytest.mark.usefixtures("unrendered")
def test_several_splits_have_the_settings_that_the_colours_tell_apart(
    here: Klcli, studies: Path, refused: Refused
) -> None:
    """The style of a line is then that of its split: the first and the seventh setting looked the same."""
    firsts = read(studies, "SELECT min(id) AS id FROM runs GROUP BY study_id, lambda, sigma, batch_norm, hidden")
    numbers = [str(one["id"]) for one in firsts]
    assert len(numbers) > 7
    both = ("--plot", "curves", "--split", "train", "validation")
    succeeded(here("report", "--run", *numbers[:6], *both))
    succeeded(here("report", "--run", *numbers[:7], *both[:-1]))
    message = refused(here("report", "--run", *numbers[:7], *both), 2)
    assert message.endswith("7 settings do not fit into one picture, give --limit or --run, or one --split")
    assert "with more than 6 curves of each split" in refused(here("report", "--study", "3", *both), 2)


@pytest.mark.usefixtures("unrendered")
def test_repeats_without_and_with_bn_are_named_by_their_numbers(here: Klcli, studies: Path, refused: Refused) -> None:
    found = read(studies, "SELECT id FROM runs WHERE study_id >= 3 AND sigma = 0.1 ORDER BY batch_norm, id")
    numbers = [str(run["id"]) for run in found]
    assert len(numbers) == 4
    assert here("report", "--run", *numbers, "--plot", "bn", "--to", "four.svg").returncode == 0
    message = refused(here("report", "--run", *numbers, "1", "--plot", "bn"), 2)
    assert message.endswith("or the repeats of both, whose other settings are equal")
    assert (studies / "four.svg").exists()


def test_repeats_without_and_with_bn_are_drawn_without_those_that_diverged(here: Klcli, studies: Path) -> None:
    found = read(studies, "SELECT id FROM runs WHERE study_id >= 3 AND sigma = 0.1 ORDER BY batch_norm, id")
    numbers = [run["id"] for run in found]
    change(studies, f"UPDATE runs SET state = 'diverged' WHERE id = {numbers[1]}")
    succeeded(here("report", "--run", *map(str, numbers), "--plot", "bn", "--to", "bn.svg"))
    drawn = (studies / "bn.svg").read_text(encoding="utf-8")
    assert f"without run {numbers[1]}, diverged" in drawn
    assert f"without BN (run {numbers[0]})" in drawn and f"(runs {numbers[2]}-{numbers[3]})" in drawn


def test_a_name_leaves_room_for_a_folder_on_windows() -> None:
    """259 characters in all, of the temporary file with 18 more too."""
    stems = [_stem([SimpleNamespace(id=number) for number in range(1, n + 1)]) for n in range(1, 200)]  # type: ignore[misc]
    assert max(len(f".{stem}-training-train-validation-test.png") + 17 for stem in stems) < 210


@pytest.mark.parametrize(
    ("suffix", "magic"), mostly_slow([("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")], 3)
)
def test_a_figure_of_a_reproduction_has_the_format_of_its_name(
    here: Klcli, studies: Path, suffix: str, magic: bytes
) -> None:
    assert here("report", "--study", "3", "--plot", "sigma", "--to", f"x.{suffix}").returncode == 0
    assert (studies / f"x.{suffix}").read_bytes().startswith(magic)


@pytest.mark.slow
def test_several_figures_have_names_of_their_own(here: Klcli, studies: Path) -> None:
    assert here("report", "--study", "3", "--plot", "sigma", "lambda", "--to", "y.svg").returncode == 0
    found = sorted(studies.glob("y*"))
    assert [path.name for path in found] == [f"y-{PUBLISHED}-000-{row}.svg" for row in ("F5", "F9a", "T1-warm-started")]
    assert all(path.read_bytes().startswith(b"<?xml") for path in found)


def test_a_kind_without_a_figure_is_refused_with_those_that_there_are(
    here: Klcli, studies: Path, refused: Refused
) -> None:
    assert refused(here("report", "--study", "2", "--plot", "sigma"), 2).endswith(
        "study 2 is a lambda search (final); choose one of curves, training, lambda"
    )
    change(studies, "UPDATE runs SET state = 'failed' WHERE study_id >= 3 AND json_extract(config, '$.sigma') > 0")
    assert refused(here("report", "--study", "3", "--plot", "sigma"), 2).endswith(
        "study 3 is a reproduction of a3-2021, decay of W1 halved; choose one of curves, training, bn, lambda"
    )


@pytest.mark.usefixtures("unrendered")
def test_repeats_with_single_images_have_the_pictures_of_others(here: Klcli, refused: Refused) -> None:
    """Batch normalisation refuses minibatches of one image, also where networks without and with it are paired."""
    small = ("--data", "synthetic", "--subset", "20", "--hidden", "5", "--epochs", "1", "--batch-size", "1")
    succeeded(here("train", *small, "--repeats", "2", "--jobs", "1"))
    for kind in ("lambda", "bn"):
        message = refused(here("report", "--study", "1", "--plot", kind), 2)
        assert message.endswith(f"--plot {kind}: study 1 is repeats; choose one of curves, training")


def test_a_study_without_a_complete_run_says_so(here: Klcli, studies: Path, refused: Refused) -> None:
    change(studies, "UPDATE runs SET state = 'diverged' WHERE study_id IN (1, 3, 4, 5)")
    assert "study 1 is a lambda search (values), without a complete run; choose one of curves, training" in refused(
        here("report", "--study", "1", "--plot", "lambda"), 2
    )
    assert (
        "a reproduction of a3-2021, decay of W1 halved, without a complete run; repeat its command with --resume"
        in refused(here("report", "--study", "3", "--plot", "curves"), 2)
    )
    locks = Locks(studies / "results/locks")
    owner = locks.take()  # of a process that trains it
    change(studies, "UPDATE studies SET state = 'running' WHERE id = 3")
    change(studies, "UPDATE runs SET state = 'running', owner = ? WHERE study_id = 3", values=[owner])
    done = here("report", "--study", "3", "--plot", "curves")
    cure = "wait for its end or, if its process has ended, repeat its command with --resume"
    assert done.stderr.endswith(f"decay of W1 halved, without a complete run; {cure}\n")
    locks.release(owner)


def test_the_curves_of_a_figure_are_the_stored_evaluations(studies: Path) -> None:
    rows = read(
        studies,
        "SELECT step, epochs.train_cost, epochs.validation_accuracy FROM epochs JOIN runs ON runs.id = run_id "
        "WHERE study_id >= 3 AND sigma = 0.1 AND batch_norm = 1 AND seed = 1 ORDER BY step",
    )
    steps = [tuple(row.values()) for row in rows]
    store = Store.existing(studies / "results/klcli.db")
    [(name, words, chart)] = pictures(stored_reproduction(store, 3), store.runs.epochs, "sigma")
    assert name == "a3-2021-000-F9a"
    assert words.startswith("000-F9a to 000-F10c")
    costs, _, accuracies = chart().panels
    assert [panel.title.partition("\n")[0] for panel in costs] == ["sigma 0.1", "sigma 0.001"]
    train, validation = costs[0].lines[7], accuracies[0].lines[10]  # with BN, of seed 1
    assert [*zip(train.x, train.y, validation.y, strict=True)] == steps
    assert len(steps) > 1
    store.close()


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("kind", "command"), [("lambda", ("search-lambda", "--values", "0.1")), ("sigma", ("sigma-sweep", "--sigmas", "1"))]
)
def test_the_latest_study_is_one_with_a_result_as_runs_are_ranked(
    here: Klcli, tmp_path: Path, kind: str, command: tuple[str, ...]
) -> None:
    """An interrupted one, and then one on synthetic images, hid the result on CIFAR-10."""
    tiny = ("--data", "synthetic", "--subset", "200", "--hidden", "5", "--epochs", "0", "--jobs", "1", "--quiet")
    for seed in ("0", "1", "2"):
        succeeded(here(*command, *tiny, "--seed", seed))
    whole = "UPDATE studies SET settings = json_set(settings, '$.plan[0].split.subset', NULL) WHERE id = "
    orders = {  # statements that make a study worse than an earlier one, or that one better, and the study that is best
        "UPDATE runs SET state = 'interrupted' WHERE study_id = 3": "2",
        f"{whole}1": "1",  # a subset, before or after, is a quick trial
        "UPDATE runs SET dataset = 'cifar10' WHERE study_id = 2": "2",  # whatever its size
        "UPDATE runs SET state = 'diverged' WHERE study_id = 2": "1",
        "UPDATE runs SET state = 'failed' WHERE study_id = 1": "1",  # of those without a result, one on all images
        f"{whole}3": "3",
    }
    assert here("report", "--plot", kind).stdout.startswith(here("report", "--study", "3").stdout)
    for statement, best in orders.items():
        change(tmp_path, statement)
        plain, drawn = here("report", "--study", best), here("report", "--plot", kind)
        assert (drawn.returncode, f"study {best} is" in drawn.stderr) in ((0, False), (2, True))
        assert drawn.returncode or drawn.stdout.startswith(plain.stdout)
