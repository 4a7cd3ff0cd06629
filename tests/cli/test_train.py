"""`klcli train`, as a process: the stored run, the output on stdout and stderr, and refused options."""

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Klcli, Refused, Rows, change, read, succeeded
from light import LIGHT

pytestmark = pytest.mark.usefixtures("unrendered")

TINY = ("--data", "synthetic", "--subset", "500")
ONE_CYCLE = (*TINY, "--cycles", "1", "--step-epochs", "1")  # 2 epochs of 5 updates


# What the options become


@pytest.mark.parametrize(
    ("options", "hidden", "batch_norm"),
    [
        (["--hidden", "50", "30", "20", "--bn"], [50, 30, 20], True),
        (["--bn", "--hidden", "50,30,20"], [50, 30, 20], True),
        (["--hidden=50,30"], [50, 30], False),
        (["-H", "50", "30"], [50, 30], False),
        (["--hidden", "50", "--hidden", "30,20", "--no-bn"], [50, 30, 20], False),
        ([], [50, 50], False),
    ],
)
def test_hidden_in_every_spelling_reaches_the_stored_config(
    here: Klcli, rows: Rows, options: list[str], hidden: list[int], batch_norm: bool
) -> None:
    succeeded(here("train", *options, *TINY, "--epochs", "0", "--quiet"))
    [run] = rows("runs")
    config = json.loads(run["config"])
    assert config["hidden"] == hidden
    assert config["batch_norm"] is batch_norm
    assert run["hidden"] == " ".join(map(str, hidden))
    assert run["batch_norm"] == int(batch_norm)


def test_every_option_reaches_its_column(here: Klcli, rows: Rows) -> None:
    done = here(
        *("train", *TINY, "--init", "normal", "--sigma", "0.01", "--lambda", "0.001", "--seed", "7"),
        *("--eta-min", "1e-4", "--eta-max", "0.05", "--batch-size", "50", "--step-size", "10", "--cycles", "1"),
        *("--bn", "--bn-position", "after", "--bn-momentum", "0.8", "--bn-eps", "1e-5", "--dtype", "float64"),
        *("--validation", "4000", "--evaluations-per-cycle", "4"),
    )
    assert done.returncode == 0, done.stderr
    [run] = rows("runs")
    columns = {
        "initializer": "normal",
        "sigma": 0.01,
        "lambda": 0.001,
        "seed": 7,
        "eta_min": 1e-4,
        "eta_max": 0.05,
        "batch_size": 50,
        "step_size": 10,
        "cycles": 1,
        "epochs": 2,
        "bn_position": "after",
        "dtype": "float64",
        "threads": 1,
        "schedule": "cyclical",
        "optimizer": "sgd",
    }
    assert {name: run[name] for name in columns} == columns
    config = json.loads(run["config"])
    assert config["bn_momentum"] == 0.8
    assert config["bn_eps"] == 1e-5
    assert config["split"]["validation"] == 4000
    assert [epoch["step"] for epoch in rows("epochs")] == [0, 5, 10, 15, 20]


# What is stored


def test_the_run_ends_complete_with_its_columns_filled(klcli: Klcli, rows: Rows, tmp_path: Path) -> None:
    succeeded(klcli("train", "--hidden", "20", "--bn", *ONE_CYCLE))
    [run] = rows("runs")
    assert run["state"] == "complete"
    assert run["command"] == "klcli train --hidden 20 --bn " + " ".join(ONE_CYCLE)
    empty = {name for name, value in run.items() if value is None}
    ensemble = {name for name in run if name.startswith("ensemble_")} | {"snapshots"}  # of --snapshots
    assert len(ensemble) == 5
    not_set = {"preset", "sigma", "whitening", "bn_samples", "evaluations_per_cycle", "order_seed", "split_seed"}
    of_a_merge = {"origin", "origin_run"}
    assert empty == {"study_id", "member", "error", "note", "tags"} | ensemble | not_set | of_a_merge
    assert run["dataset"] == "synthetic"
    assert re.fullmatch("[0-9a-f]{64}", run["dataset_sha256"])
    assert run["epochs_done"] == run["epochs"] == 2
    assert run["finished_at"] >= run["started_at"]

    untrained, first, last = rows("epochs")
    assert (untrained["epoch"], untrained["step"], untrained["learning_rate"]) == (0, 0, 1e-5)
    assert [first["epoch"], last["epoch"]] == [1, 2]
    assert [first["step"], last["step"]] == [5, 10]
    # n_s = 5: update 4 is one below the top of the triangle, update 9 one above its foot.
    for epoch, share in ((first, 0.8), (last, 0.2)):
        assert epoch["learning_rate"] == pytest.approx(1e-5 + share * (1e-1 - 1e-5))
    for split in ("train", "validation"):
        for measure in ("loss", "cost", "accuracy"):
            assert run[f"{split}_{measure}"] == last[f"{split}_{measure}"]
    assert run["best_validation_accuracy"] == max(first["validation_accuracy"], last["validation_accuracy"])
    for split in ("train", "validation", "test"):
        assert 0 <= run[f"{split}_accuracy"] <= 1
        assert run[f"{split}_cost"] > run[f"{split}_loss"] > 0

    checkpoint = np.load(tmp_path / "results" / run["checkpoint"], allow_pickle=False)
    assert checkpoint["linear1.W"].shape == (3072, 20)
    assert checkpoint["linear2.W"].shape == (20, 10)
    assert checkpoint["linear1.W"].dtype == np.float32
    picture = (tmp_path / "results/plots/run-000001.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", picture[16:24])
    assert width >= 800
    assert height >= 500
    # J = loss + lambda * sum of W squared, from the stored weights alone.
    penalty = 0.005 * sum((checkpoint[f"linear{k}.W"].astype(np.float64) ** 2).sum() for k in (1, 2))
    assert run["test_cost"] - run["test_loss"] == pytest.approx(penalty, rel=1e-4)


def test_a_diverged_training_is_shown_as_such(here: Klcli) -> None:
    diverging = ("--data", "synthetic", "--subset", "200", "--eta-max", "1e6", "--jobs", "1")
    done = here("train", *diverging)
    assert done.returncode == 6
    assert "1 epoch is kept, try a smaller --eta-max than 1e+06" in done.stderr
    assert not re.search(r"\d{9}", done.stdout + done.stderr)  # a cost near 1e15 has four digits
    done = here("train", *diverging, "--repeats", "2")
    assert done.returncode == 6
    title, *rest = done.stdout.splitlines()
    assert title.startswith("Study 1, runs 2-3: ")
    assert [line.split()[0] for line in rest] == ["database"]  # without any result no table, and nothing to report
    assert "next " not in done.stderr
    succeeded(here("runs", "delete", "2", "--yes"))
    again = here("train", *diverging, "--repeats", "2", "--resume", "last")  # run 4 replaces run 2
    assert again.stdout.startswith("Study 1, runs 3-4: ")


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        ("--lambda 1e308", "smaller lambda than 1e+308"),
        ("--lambda 1e308 --eta-max 1e6", "smaller lambda than 1e+308"),
        ("--optimizer adam --lambda 1e39", "smaller lambda than 1e+39"),
        ("--weight-decay 1e300", "smaller --weight-decay than 1e+300"),
        ("--init normal --sigma 1e30", "smaller --sigma than 1e+30"),
        ("--activation silu --silu-slope 1e39", "smaller --silu-slope than 1e+39"),
        ("--bn --bn-eps 1e-46 --init normal --sigma 1e-30", "larger --bn-eps than 1e-46"),
        ("--lambda 0.1 --eta-max 1e10", "smaller --eta-max than 1e+10"),
        ("--optimizer adam --lambda 1e9 --eta-max 1e38", "smaller --eta-max than 1e+38"),
    ],
)
def test_the_setting_at_fault_is_named(here: Klcli, given: str, cure: str) -> None:
    done = here("train", *TINY, "--epochs", "2", *given.split())
    assert done.returncode == 6, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"try a {cure}")


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bits(klcli: Klcli, rows: Rows, tmp_path: Path) -> None:
    for _ in range(2):
        assert klcli("train", "--hidden", "50", "30", "20", "--bn", *ONE_CYCLE).returncode == 0
    one, two = ([epoch for epoch in rows("epochs") if epoch["run_id"] == run] for run in (1, 2))
    for epoch in one + two:
        del epoch["seconds"], epoch["run_id"]
    assert one == two
    first, second = (np.load(tmp_path / "results" / run["checkpoint"]) for run in rows("runs"))
    assert first.files == second.files
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])


def test_another_seed_gives_other_bits(here: Klcli, rows: Rows) -> None:
    for seed in "01":
        assert here("train", *TINY, "--epochs", "1", "--seed", seed).returncode == 0
    _, one, _, two = rows("epochs")
    assert one["train_loss"] != two["train_loss"]


def test_zero_epochs_evaluate_the_untrained_network(here: Klcli, rows: Rows) -> None:
    succeeded(here("train", *TINY, "--epochs", "0", "--init", "normal", "--sigma", "1e-4"))
    [run], [epoch] = rows("runs"), rows("epochs")
    assert (run["state"], run["epochs_done"], epoch["step"]) == ("complete", 0, 0)
    assert run["test_loss"] == pytest.approx(np.log(10), abs=0.05)  # every class is equally likely


def test_another_database_keeps_its_files_apart(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    assert here("train", *TINY, "--epochs", "0", "--db", "elsewhere/mine.db").returncode == 0
    assert here("train", *TINY, "--epochs", "0", KLCLI_DB="elsewhere/mine.db").returncode == 0
    assert not (tmp_path / "results").exists()
    for run in rows("runs", "elsewhere/mine.db"):
        assert (tmp_path / "elsewhere" / run["checkpoint"]).is_file()
    assert len(list((tmp_path / "elsewhere" / "mine-plots").iterdir())) == 2


@pytest.mark.parametrize("renamed", [True, False], ids=["renamed", "of another suffix"])
def test_a_database_keeps_its_networks_if_another_one_has_its_folder(
    here: Klcli, rows: Rows, tmp_path: Path, renamed: bool
) -> None:
    first = tmp_path / "results/klcli.db"
    for seed in "12":
        here("train", *TINY, "--epochs", "1", "--seed", seed)
    checkpoints = {file: file.read_bytes() for file in (tmp_path / "results/checkpoints").iterdir()}
    if renamed:
        first = first.rename(first.with_name("old.db"))
    other = str(first.with_name("klcli.db" if renamed else "klcli.sqlite"))
    here("train", *TINY, "--epochs", "1", "--seed", "3", "--db", other)
    here("train", *TINY, "--epochs", "1", "--repeats", "2", "--jobs", "1", "--db", other)
    here("runs", "merge", str(first), "--db", other)
    assert [row["id"] for row in rows("runs", other)] == [3, 4, 5, 6, 7]
    assert {file: file.read_bytes() for file in checkpoints} == checkpoints
    for database in (str(first), other):
        assert succeeded(here("runs", "check", "--db", database)).stdout.endswith("are sound, 0 orphans\n")


@pytest.mark.parametrize("folder", ["[draft]", "[/x]", ":fire:", "with space", "ünïcödé", "-"])
def test_a_folder_may_have_any_name(here: Klcli, folder: str) -> None:
    done = succeeded(here("train", *TINY, "--epochs", "0", f"--db={folder}/klcli.db"))
    assert f"database    {folder}/klcli.db" in done.stdout.splitlines()
    succeeded(here("report", f"--db={folder}/klcli.db"))


@pytest.mark.slow
def test_a_folder_may_have_a_name_that_is_no_text(klcli: Klcli) -> None:
    succeeded(klcli("train", *TINY, "--epochs", "0", "--db", os.fsdecode(b"\xff/klcli.db")))


# What is printed, and where


def test_results_on_stdout_and_talk_on_stderr(here: Klcli, rows: Rows) -> None:
    done = here("train", "--hidden", "20", *ONE_CYCLE)
    assert done.returncode == 0
    [run] = rows("runs")
    assert "Run 1: 2-layer 20, 2 epochs on synthetic" in done.stdout
    for split in ("train", "validation", "test"):
        values = [f"{run[f'{split}_{measure}']:.4f}" for measure in ("loss", "cost", "accuracy")]
        assert [split, *values] in [line.split() for line in done.stdout.splitlines()]
    for what, path in (
        ("database", "results/klcli.db"),
        ("checkpoint", "results/checkpoints/run-000001.npz"),
        ("picture", "results/plots/run-000001.png"),
    ):
        assert [what, path] in [line.split() for line in done.stdout.splitlines()]

    assert "\x1b" not in done.stdout + done.stderr  # no colour, no cursor movement in a pipe
    assert "\r" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    for line, epoch in zip(lines, rows("epochs"), strict=True):
        assert line.startswith(f"epoch {epoch['epoch']:g}/2  cost {epoch['train_cost']:.4f}")
        assert f"train {epoch['train_accuracy']:.4f}" in line
        assert f"validation {epoch['validation_accuracy']:.4f}" in line


def test_quiet_is_silent_on_stderr(here: Klcli) -> None:
    done = here("train", *TINY, "--epochs", "1", "--quiet")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "test" in done.stdout


@pytest.mark.slow
def test_quiet_is_silent_without_a_home_that_can_be_written(klcli: Klcli) -> None:
    nowhere = {"HOME": "/proc/nowhere", "XDG_CONFIG_HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    done = succeeded(klcli("train", *TINY, "--epochs", "0", "--quiet", **nowhere))
    assert done.stderr == ""


def test_json_is_one_document_with_the_stored_numbers(here: Klcli, rows: Rows) -> None:
    done = here("train", "--json", "--hidden", "20", *ONE_CYCLE)
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["schema"] == 2
    assert document["command"] == "train"
    [run] = rows("runs")
    for name in ("config", "versions"):
        run[name] = json.loads(run[name])
    assert document["run"] == run | {"method": None}  # which a reproduction has
    assert document["epochs"] == rows("epochs")
    assert document["picture"] == "results/plots/run-000001.png"


def test_synthetic_images_are_announced_loudly(here: Klcli) -> None:
    done = here("train", *TINY, "--epochs", "0")
    [warning] = [line for line in done.stderr.splitlines() if "SYNTHETIC" in line]
    assert "klcli data fetch" in warning
    assert "synthetic" in done.stdout


@pytest.mark.parametrize(("epochs", "warned"), [("1", True), ("3", True), ("20", False), ("0", False)])
def test_epochs_that_do_not_end_a_cycle_are_warned_of(here: Klcli, epochs: str, warned: bool) -> None:
    done = here("train", "--data", "synthetic", "--subset", "200", "--epochs", epochs)
    assert done.returncode == 0
    assert ("end of a whole cycle" in done.stderr) == warned


@pytest.mark.parametrize(
    "command", [("train", "--repeats", "2"), ("search-lambda", "--values", "0.01"), ("sigma-sweep", "--sigmas", "0.1")]
)
def test_studies_that_do_not_end_a_cycle_are_warned_of_once(here: Klcli, command: tuple[str, ...]) -> None:
    images = ("--data", "synthetic", "--subset", "200", "--jobs", "1", "--step-epochs", "2")
    done = here(*command, *images, "--epochs", "3")
    assert done.returncode == 0
    assert done.stderr.count("0.75 cycles: training ends where eta is 0.05, networks are best compared") == 1
    assert "end of a whole cycle" not in here(*command, *images, "--epochs", "4").stderr


@pytest.mark.parametrize(("epochs", "warned"), [("1", True), ("0", True), ("2", False), ("3", False)])
def test_snapshots_without_the_end_of_a_cycle_are_warned_of(here: Klcli, epochs: str, warned: bool) -> None:
    images = ("--data", "synthetic", "--subset", "200", "--step-epochs", "1")
    done = here("train", *images, "--epochs", epochs, "--snapshots")
    assert done.returncode == 0
    assert ("--snapshots: no network is kept" in done.stderr) == warned
    assert ("mean of 1 snapshot " in done.stdout) == (not warned)


# What is refused: one line with the value, the exit code, nothing printed, nothing left running


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--hidden"], ["--hidden", "at least one value"]),
        (["--hidden", "--bn"], ["--hidden", "at least one value"]),
        (["--hidden="], ["--hidden"]),
        (["--hidden", "0"], ["0", "hidden"]),
        (["--hidden", "-5"], ["-5", "hidden"]),
        (["--hidden", "50", "abc"], ["'abc'", "--hidden"]),
        (["--hidden", "50.5"], ["'50.5'", "--hidden"]),
        (["--hidden", "1e9"], ["'1e9'", "--hidden"]),
        (["--hidden", "1000000000"], ["1000000000", "hidden"]),
        (["--lambda", "nan"], ["nan", "lambda"]),
        (["--lambda", "much"], ["'much'", "--lambda"]),
        (["--eta-min", "0.2", "--eta-max", "0.1"], ["0.2", "0.1", "--eta-min"]),
        (["--batch-size", "501"], ["501", "500"]),
        (["--batch-size", "ten"], ["'ten'", "--batch-size"]),
        (["--epochs", "1.5"], ["'1.5'", "--epochs"]),
        (["--init", "kaiming"], ["'kaiming'", "he, xavier, normal"]),
        (["--sigma", "0.1"], ["0.1", "--init normal"]),
        (["--threads", "0"], ["0", "--threads"]),
        (["--threads", "-2"], ["-2", "--threads"]),
        (["--subset", "0"], ["0", "subset"]),
        (["--validation", "0"], ["0", "validation"]),
        (["--validation", "50000"], ["50000", "validation"]),
        (["--train-batches", "6"], ["6"]),
        (["--train-batches", "1", "--validation-batches", "1"], ["1"]),
        (["--hiden", "50"], ["--hiden", "--hidden"]),
        (["--no-such-thing"], ["--no-such-thing"]),
        (["stray"], ["stray"]),
    ],
    ids=" ".join,
)
def test_wrong_usage(here: Klcli, refused: Refused, tmp_path: Path, options: list[str], named: list[str]) -> None:
    refused(here("train", *TINY, *options), 2, *named)
    assert not (tmp_path / "results").exists()  # refused before anything was written


def test_a_message_of_usage_points_to_the_help_of_its_command(here: Klcli, refused: Refused) -> None:
    for options in (["--hidden"], ["--hiden", "5"]):
        assert "`klcli train --help`" in refused(here("train", *options), 2)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits the memory of a process")
@pytest.mark.parametrize("options", ["--epochs 1000000000", "--cycles 100000000", "--evaluations-per-cycle 1000000000"])
def test_a_training_of_centuries_is_refused(refused: Refused, tmp_path: Path, options: str) -> None:
    """Its evaluations must not fill the memory first: 3 GB of addresses are all there is."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + "from klcli.__main__ import main\nmain()", "train", *TINY, *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    refused(done, 2, options.split()[1])


@pytest.mark.slow
def test_what_a_process_is_refused(klcli: Klcli, refused: Refused, cifar: Path) -> None:
    """One of each kind of the cases below, which run in this process."""
    refused(klcli("train", *TINY, "--db", "/proc/x/klcli.db"), 4, "/proc/x", "--db")
    (cifar / "data_batch_3.bin").unlink()
    refused(klcli("train", "--data", str(cifar)), 3, "data_batch_3.bin")


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder in the binary layout whose first batch file a test replaces; the others only have to be there."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        with (folder / f"{name}.bin").open("wb") as file:
            file.truncate(30_730_000)  # label 0 and black everywhere, and no room taken
    return folder


def test_a_data_path_that_does_not_exist(here: Klcli, refused: Refused) -> None:
    refused(here("train", "--data", "/no/such/folder"), 3, "/no/such/folder", "klcli data fetch")
    refused(here("train", KLCLI_DATA="/no/such/folder"), 3, "/no/such/folder", "KLCLI_DATA")


def test_cifar10_that_is_not_there(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    empty = {"HOME": home, "KLCLI_CACHE": home, "XDG_CACHE_HOME": home}
    refused(here("train", "--data", "cifar10", **empty), 3, "klcli data fetch", "--data PATH")


def test_a_missing_batch_file(here: Klcli, refused: Refused, cifar: Path) -> None:
    (cifar / "data_batch_3.bin").unlink()
    refused(here("train", "--data", str(cifar)), 3, "data_batch_3.bin")


@pytest.mark.parametrize("place", ["/proc/x/klcli.db", "file/klcli.db", "file/deeper/klcli.db", "folder"])
def test_a_database_that_cannot_be_there(here: Klcli, refused: Refused, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("a file where a folder is needed")
    (tmp_path / "folder").mkdir()
    refused(here("train", *TINY, "--db", place), 4, "--db")
    refused(here("train", *TINY, "--db", ""), 2, "--db ''")


@pytest.mark.parametrize("content", [b"# notes\n" * 100, b"\x00" * 4096, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_file_that_is_no_database(here: Klcli, refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.db").write_bytes(content)
    refused(here("train", *TINY, "--db", "notes.db"), 4, "notes.db")
    refused(here("report", "--db", "notes.db"), 4, "notes.db")
    assert (tmp_path / "notes.db").read_bytes() == content


def test_a_database_of_a_newer_klcli(here: Klcli, refused: Refused, trained: Path) -> None:
    change(trained, "UPDATE _sqlite_migrations SET name = 'm999_from_the_future' WHERE name LIKE 'm001%'")
    refused(here("train", *TINY), 4, "results/klcli.db", "newer klcli")


# A disk without space


@pytest.mark.slow
@pytest.mark.parametrize("size", [16 * 2**10, 10 * 2**20])
def test_no_space_before_training(klcli: Klcli, refused: Refused, small_disk: Callable[[int], Path], size: int) -> None:
    folder = small_disk(size)
    line = refused(klcli("train", *TINY, "--db", str(folder / "klcli.db")), 4, str(folder))
    assert "space" in line


@pytest.mark.slow
def test_no_space_beside_a_linked_database(
    klcli: Klcli, refused: Refused, small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    """Its checkpoints are written beside the file itself."""
    folder = small_disk(10 * 2**20)
    (tmp_path / "mine.db").symlink_to(folder / "klcli.db")
    line = refused(klcli("train", *TINY, "--db", "mine.db"), 4, f"{folder}: only 1")
    assert "MB are free here" in line


@pytest.mark.slow
def test_no_space_left_while_training(klcli: Klcli, tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(24 * 2**20)
    with subprocess.Popen(
        [*LIGHT, "train", *TINY, "--cycles", "10000", "--db", str(folder / "klcli.db")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while not process.stderr.readline().startswith("epoch 3/"):
            assert process.poll() is None
        with (folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass
        *_, line = process.stderr.read().splitlines()
        assert process.stdout.read() == ""
        assert process.wait(60) == 4
    assert line.startswith("klcli: ")
    assert "space" in line
    (folder / "ballast").unlink()
    assert klcli("report", "--db", str(folder / "klcli.db")).returncode == 0  # marks it
    [run], epochs = (read(folder, f"SELECT * FROM {table}", "klcli.db") for table in ("runs", "epochs"))
    assert run["state"] in ("interrupted", "failed")
    assert run["epochs_done"] == len(epochs) - 1 >= 3


# A cost that becomes NaN


def test_a_network_that_diverges_is_recorded_as_such(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    """The rate grows by 1 with every update: the first epochs are finite, later ones are not."""
    done = here(
        *("train", *TINY, "--hidden", "50", "--lambda", "1", "--eta-min", "1e-6", "--eta-max", "1e5"),
        *("--step-size", "100000", "--cycles", "1"),
    )
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("klcli: ")]
    assert line == done.stderr.splitlines()[-1]
    assert "diverged" in line
    assert "--eta-max" in line
    [run], epochs = rows("runs"), rows("epochs")
    assert run["state"] == "diverged"
    assert "update" in run["error"]
    assert run["epochs_done"] == len(epochs) - 1 >= 1
    assert run["test_accuracy"] is None
    if run["checkpoint"]:  # of the last good epoch
        checkpoint = np.load(tmp_path / "results" / run["checkpoint"])
        assert all(np.isfinite(checkpoint[name]).all() for name in checkpoint.files if name.startswith("linear"))
    assert all(np.isfinite(epoch["train_cost"]) for epoch in epochs)


def test_a_network_that_diverges_at_once(here: Klcli, rows: Rows) -> None:
    done = here("train", *TINY, "--eta-min", "1e9", "--eta-max", "1e9", "--json")
    assert done.returncode == 6, done.stderr
    document = json.loads(done.stdout)
    assert document["run"]["state"] == "diverged"
    assert [epoch["step"] for epoch in document["epochs"]] == [0]
    [run] = rows("runs")
    assert (run["state"], run["epochs_done"], run["validation_accuracy"]) == ("diverged", 0, None)
