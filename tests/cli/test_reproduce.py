"""`klcli reproduce`: from the list of reports to a table that an interruption does not change."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Klcli, Refused, Rows, cells, change, read, succeeded
from light import COMPILED

from klcli.published import report as published
from klcli.published.report import parse
from klcli.published.reproduction import Terms
from klcli.report.tables.reproductions import markdown_page

LOOK = ("--data", "synthetic", "--subset", "200", "--quick", "--jobs", "1")
FEW = ("reproduce", "a3-2024", "--only", "T2a", "T2b", "T1a", *LOOK)


# A report whose figures are of all kinds that the one above does not have.
ONE = """
report = "NAME"
course = "c"
date = "d"
summary = "s"
conditions = "as the code, not as the text"
[common]
lam = 0.1
hidden = [10]
step_epochs = 1
[[experiments]]
name = "curves"
rows = [{ row = "NAME-1", train_loss = 1.0 }]
[[experiments]]
name = "search"
rows = [{ row = "NAME-2", lam = 0.2, test_accuracy = 0.5 }, { row = "NAME-2", lam = 0.3, test_accuracy = 0.5 }]
[[experiments]]
name = "sweep"
config = { initializer = "normal" }
rows = [{ row = "NAME-3", sigma = 0.1, train_cost = 1.0 }]
[[figures]]
rows = ["NAME-1"]
panels = "training"
experiments = ["curves"]
[[figures]]
rows = ["NAME-2"]
panels = "lambda"
experiments = ["search"]
[[figures]]
rows = ["NAME-3"]
panels = "sigma"
experiments = ["sweep"]
"""


def test_the_reports_are_listed(here: Klcli, refused: Refused) -> None:
    done = here("reproduce", "--list")
    assert done.returncode == 0
    assert [row[0] for row in cells(done)] == ["a2-2019", "a3-2021", "a3-2022", "a3-2024", "a3-bonus-2022"]
    document = json.loads(here("reproduce", "--list", "--json").stdout)
    assert document["reports"][3]["date"] == "May 2024"
    assert [row[0] for row in cells(here("reproduce", "--list", "a3-2024"))] == ["a3-2024"]
    refused(here("reproduce", "--list", "a4-2024"), 2, "report 'a4-2024': choose one of a2-2019")
    of_rows = json.loads(here("reproduce", "--list", "a3-2024", "--only", "T2", "--json").stdout)["reports"]
    assert [(one["report"], one["rows"], one["numbers"]) for one in of_rows] == [("003", 4, 4)]  # T2a to T2d


def test_all_reports_are_checked(here: Klcli) -> None:
    done = succeeded(here("reproduce", "--check", "all", "a3-2024"))
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["a2-2019", "a3-2021", "a3-2022", "a3-2024", "a3-bonus-2022"]


@pytest.mark.usefixtures("unrendered")
def test_rows_beside_ours(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    done = succeeded(here(*FEW, "--markdown", "page.md"))
    lines = cells(done)
    assert [row[0] for row in lines] == ["003-T1a", "003-T1a", "003-T2a", "003-T2b"]
    assert lines[0][-2] == "reproduced"  # a gradient is right on any images
    assert lines[2][1:4] == ["3 layers without BN", "test accuracy", "0.5295"]
    assert lines[2][-2:] == ["cannot be compared", "synthetic images, no CIFAR-10"]
    runs = rows("runs")
    assert [(run["batch_norm"], run["seed"], run["cycles"]) for run in runs] == [
        (0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 1.0)
    ]  # fmt: skip
    [study] = rows("studies")
    assert (study["kind"], study["stage"], study["state"]) == ("reproduce", "a3-2024", "complete")
    ours = sum(run["test_accuracy"] for run in runs[:2]) / 2
    assert lines[2][4] == f"{ours:.4f}"
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    for text in (done.stdout, page):
        assert all(mark in text for mark in ("SYNTHETIC IMAGES", "SUBSET of 200", "QUICK"))
    assert page.count("| 003-") == 4
    [number] = re.findall(r"\| 003-T2a .*(\(\d\)) +\|", page)
    assert f"\n\n{number} synthetic images, no CIFAR-10\n\n" in page
    pictures = re.findall(r"!\[(.*)\]\((.*)\)", page)
    [(words, picture)] = pictures
    assert words.startswith("003-T2a to 003-T2b: 3 layers without BN, 3 layers with BN \\[SYNTHETIC")
    assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
    assert f"Made by `{shlex.join(['klcli', *FEW, '--markdown', 'page.md'])}`" in page
    assert "report 003, KTH DD2424, Assignment 3, May 2024" in page


@pytest.mark.usefixtures("unrendered")
def test_one_document_which_resuming_gives_again_without_training(here: Klcli, tmp_path: Path) -> None:
    first = here(*FEW, "--json")
    [document] = json.loads(first.stdout)["reports"]
    assert document["report"]["number"] == "003"
    assert document["terms"] | {"sha256": ""} == {
        "dataset": "synthetic", "official": None, "sha256": "", "repeats": 2, "quick": True, "subset": 200,
        "note": None, "vary": "all",
    }  # fmt: skip
    assert document["counts"] == {"reproduced": 2, "differs": 0, "undecided": 0, "cannot be compared": 2}
    line = document["lines"][3]
    assert (line["row"], line["published"], line["n"], line["runs"]) == ("003-T2b", 0.5314, 2, [3, 4])
    assert line["difference"] == pytest.approx(line["mean"] - 0.5314)
    assert document["studies"] == [1]
    assert all(Path(picture).is_file() for picture in document["pictures"])
    assert len(document["pictures"]) == 1
    before = read(tmp_path, "SELECT id, started_at, test_accuracy FROM runs")
    again = here(*FEW, "--json", "--resume")
    assert again.stdout == first.stdout
    assert "all 4 runs exist already" in again.stderr
    assert read(tmp_path, "SELECT id, started_at, test_accuracy FROM runs") == before


@pytest.mark.slow
def test_an_interrupted_one_ends_with_the_same_table(
    start: Callable[..., "subprocess.Popen[str]"], here: Klcli, tmp_path: Path
) -> None:
    long = ("reproduce", "a3-2024", "--only", "T2", *LOOK, "--repeats", "1")
    process = start(*long, **COMPILED)  # the other runs are trained in this process
    assert process.stderr is not None
    for line in process.stderr:
        if " done (1 of" in line:
            break
    process.kill()
    process.wait()
    done = read(tmp_path, "SELECT id, started_at, test_accuracy FROM runs WHERE state = 'complete'")
    assert 1 <= len(done) <= 6
    resumed = succeeded(here(*long, "--resume"))
    after = read(tmp_path, "SELECT id, started_at, test_accuracy FROM runs WHERE state = 'complete'")
    assert len(after) == 6  # 003-T2c and T2d also with the widths of the text
    assert all(run in after for run in done)
    undisturbed = here(*long, "--db", "other/klcli.db")
    assert cells(undisturbed) == cells(resumed)


@pytest.mark.slow
def test_different_divisions_of_the_images_are_studies_of_their_own(here: Klcli, rows: Rows) -> None:
    done = succeeded(here("reproduce", "a2-2019", "--only", "F3,B1", "C1", *LOOK, "--repeats", "1"))
    code = "a2-2019, decay of W1 halved; each split standardised by its own statistics"
    assert [study["stage"] for study in rows("studies")] == [code, code, "a2-2019"]  # the last one as the text says
    splits = [json.loads(run["split"]) for run in rows("runs")]
    assert [split["train_batches"] for split in splits] == [[1], [1], [], [1]]  # C1 is about two experiments
    assert [row[0] for row in cells(done)] == ["002-F3"] * 6 + ["002-B1"] * 7 + ["002-C1"] * 2
    # All are one reproduction: the report of each study has the table of all, and so has the page.
    for study in ("1", "2", "3"):
        assert cells(here("report", "--study", study)) == cells(done)
    assert here("report", "--html", "page.html").returncode == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "Reproduction of a2-2019, studies 1, 2, 3</h2>" in page
    assert page.count("<figure><img alt=") + page.count("<figure><img src=") >= 2
    assert page.count("002-B1</td>") == 7


@pytest.mark.slow
def test_several_reports_in_one_page(here: Klcli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = parse("a", ONE.replace("NAME", "001"))
    two = parse("b", ONE.replace("NAME", "002"))
    monkeypatch.setattr(published, "report_names", lambda: ["a", "b"])
    monkeypatch.setattr(published, "report", {"a": one, "b": two}.__getitem__)
    note = "The images went through JPEG."
    done = succeeded(here("reproduce", "all", *LOOK, "--markdown", "deep/page.md", "--json", "--note", note))
    document = json.loads(done.stdout)
    assert [one["terms"]["note"] for one in document["reports"]] == [note] * 2
    assert [one["report"]["conditions"] for one in document["reports"]] == ["as the code, not as the text"] * 2
    assert [one["report"]["name"] for one in document["reports"]] == ["a", "b"]
    page = (tmp_path / "deep/page.md").read_text(encoding="utf-8")
    assert re.findall("^## (.*)$", page, re.MULTILINE) == ["a", "b"]
    sha256 = document["reports"][0]["terms"]["sha256"]
    assert page.count("what runs: as the code, not as the text") == 2
    images = f"Images: synthetic (sha256 {sha256[:8]})."
    assert page.partition("\n\n## ")[0].split("\n\n")[2:] == [images, note]
    assert len(list((tmp_path / "deep").glob("*.png"))) == 6


# Of the official files, as `test_the_official_images_are_told_by_their_hash_in_both_layouts` finds it.
OFFICIAL = "4d2b00a5ea5fa914ca904148ae475358281424b8971f61b1513f1547572b75a8"
WHOSE = {  # images, their sha256, and what is said of them
    ("cifar10", OFFICIAL): ", the official files",
    ("cifar10", "0a1b2c3d" * 8): ", not the official files",
    ("synthetic", "0a1b2c3d" * 8): "",
}


@pytest.mark.parametrize(("images", "sha256"), WHOSE)
def test_the_page_says_whose_images_these_are(images: str, sha256: str) -> None:
    page = markdown_page("klcli reproduce all", Terms(images, sha256, 3), [])
    assert f"Images: {images} (sha256 {sha256[:8]}{WHOSE[images, sha256]})." in page


@pytest.mark.usefixtures("unrendered")
def test_a_stored_reproduction_says_whose_images_these_are(here: Klcli, tmp_path: Path) -> None:
    """It had forgotten what `klcli reproduce` had printed."""
    succeeded(here(*FEW))
    for (images, sha256), words in WHOSE.items():
        change(tmp_path, f"UPDATE runs SET dataset = '{images}', dataset_sha256 = '{sha256}'")
        stored = succeeded(here("report", "--study", "1")).stdout
        assert f" on {images} (sha256 {sha256[:8]}{words})\n" in stored
    change(tmp_path, f"UPDATE runs SET dataset = 'cifar10', dataset_sha256 = '{OFFICIAL}'")
    succeeded(here("report", "--html", "page.html"))
    assert "(sha256 4d2b00a5, the official files)" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_fails_is_shown_and_ends_with_its_exit_code(here: Klcli, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = parse("a", ONE.replace("NAME", "001").replace("lam = 0.1", "lam = 0.1\neta_max = 1e30"))
    monkeypatch.setattr(published, "report", {"a-lost": lost}.__getitem__)
    done = here("reproduce", "a-lost", *LOOK)
    assert done.returncode == 6
    assert {row[-1] for row in cells(done)} == {"2 of 2 diverged; synthetic images, no CIFAR-10"}
    assert done.stderr.splitlines()[-1].startswith("klcli: every training of 001-1, 001-2, 001-3 diverged")


def test_a_confusion_has_the_statistics_that_its_caption_names(here: Klcli, rows: Rows) -> None:
    """The code of report 002 standardises the test images by their own statistics."""
    succeeded(here("reproduce", "a2-2019", "--only", "F4", *LOOK, "--repeats", "1"))
    run = rows("runs")[0]
    assert run["note"] == "decay of W1 halved; each split standardised by its own statistics"
    assert here("report", "--run", "1", "--plot", "confusion", "--to", "c.svg").returncode == 0
    caption = " ".join(re.findall("<!-- (.*?) -->", Path("c.svg").read_text()))
    assert f"accuracy {run['test_accuracy']:.4f}" in caption


@pytest.mark.usefixtures("unrendered")
def test_a_report_runs_what_its_code_did(here: Klcli, rows: Rows) -> None:
    """Warm-started searches with the quirks of the code, and beside them what the text says."""
    chain = ("reproduce", "a2-2019", "--only", "S01", "S02", "F3", *LOOK)
    done = succeeded(here(*chain, "--repeats", "1"))
    assert [row[0] for row in cells(done)] == ["002-F3"] * 6 + [*["002-S01"] * 3, *["002-S02"] * 3] * 2
    assert "15 lines: " not in done.stdout
    assert "9 lines: 0 reproduced" in done.stdout
    assert "besides, as the text says, 9 lines: 0 reproduced" in done.stdout
    quirks = "decay of W1 halved; each split standardised by its own statistics"
    lams = 0.0006776934919477309, 0.0008451467803311274
    found = [(run["lambda"], run["note"]) for run in rows("runs")]
    assert found[:1] == [(0.01, quirks)]
    assert sorted(found[1:4]) == [(lams[0], None), (lams[1], None), (0.01, None)]
    assert found[4:] == [(lams[0], quirks), (lams[1], f"{quirks}; begins with the weights of the training before it")]
    [quirky, plain, warm] = [json.loads(study["settings"]) for study in rows("studies")]
    assert [one.get("quirks") for one in (quirky, plain, warm)] == [quirks.split("; "), None, quirks.split("; ")]
    assert [len(one["groups"]) for one in (quirky, warm)] == [1, 1]
    again = here(*chain, "--repeats", "1", "--resume")
    assert again.stdout == done.stdout
    assert len(rows("runs")) == 6
    assert cells(here("report", "--study", "1")) == cells(done)
    best = here("report", "--best", "9", "--json")
    assert {run["note"] for run in json.loads(best.stdout)["runs"]} == {None}
    assert "3 more not ranked, range tests or with quirks of a published report: " in best.stderr
    groups = here("report", "--group-by", "lambda", "--json")
    assert sorted(one["runs"] for one in json.loads(groups.stdout)["groups"]) == ["2", "3", "4"]
    listed = json.loads(here("report", "--list", "--json").stdout)["runs"]
    warm_start = f"{quirks}; warm-started coarse search of lambda"
    assert [one["method"] for one in listed[::-1]] == [quirks, *[None] * 3, *[warm_start] * 2]
    here("runs", "note", "1", "a note of mine")
    both = here("report", "--run", "1", "2", "--diff-only").stdout
    assert re.search(f"(?m)^ *method +{quirks} +- *$", both)
    warnings = here("evaluate", "1", "2").stderr
    left_out = f"which an evaluation leaves out: {quirks}"
    assert f"run 1 was trained with the quirks of a published report, {left_out}" in warnings
    assert "run 2 was" not in warnings


def test_a_warm_start_is_drawn(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    done = here("reproduce", "a2-2019", "--only", "S02", *LOOK, "--repeats", "1")
    pictures = re.findall("^picture +(.*)$", done.stdout, re.MULTILINE)
    assert [Path(picture).name for picture in pictures] == ["study-000002-a2-2019-002-S02-warm-started.png"]
    assert all(Path(picture).read_bytes()[:4] == b"\x89PNG" for picture in pictures)
    # as an older klcli recorded it
    change(tmp_path, "UPDATE studies SET settings = json_set(settings, '$.as_published', json('true'))")
    refused(here("report", "--study", "1"), 2, "study 1 is of an older klcli, with --as-published")


def test_a_check_of_one_image_is_what_was_published(here: Klcli, rows: Rows) -> None:
    one_image = here("reproduce", "a3-2024", "--only", "T1", "--data", "synthetic", "--json")
    [document] = json.loads(one_image.stdout)["reports"]
    with_bn = document["lines"][8:]
    assert [line["mean"] for line in with_bn[:-1]] == [0.0] * 7
    assert 0 < with_bn[-1]["mean"] < 1e-8
    assert [row["images"] for row in rows("gradient_checks")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "name a report, one of a2-2019"),
        (
            ("--only", "T2", "a3-2024"),
            "--only T2 a3-2024: takes all words up to the next option, name the report before it",
        ),
        (("--check", "--only", "T2", "a3-2024"), "--only T2 a3-2024: takes all words up to the next option"),
        (("--list", "--only", "T2", "a3-2024"), "--only T2 a3-2024: takes all words up to the next option"),
        (("a3-2020",), "'a3-2020': choose one of a2-2019"),
        (("a3-2024", "--only", "F1"), "--only F1"),
        (("a3-2024", "--repeats", "0"), "--repeats 0: must be from 1"),
        (("a3-2024", "--subset", "0"), "subset 0"),
        (("a3-2024", "--subset", "50"), "--subset 50: a minibatch of a3-2024 has 100 images, give at least that"),
        (("--check", "a3-2024", "--subset", "50"), "--subset 50: a minibatch of a3-2024 has 100 images"),
        (("a3-2024", "a2-2019", "--subset", "20000"), "--subset 20000 is more than the 10000 training images"),
        (("--check", "a2-2019", "--subset", "20000"), "--subset 20000 is more than the 10000 training images"),
        (("all", "--only", "T1"), "--only T1: rows of one report, 5 are named"),
    ],
)
def test_wrong_usage_is_refused(here: Klcli, refused: Refused, args: tuple[str, ...], words: str) -> None:
    refused(here("reproduce", *args), 2, words)
