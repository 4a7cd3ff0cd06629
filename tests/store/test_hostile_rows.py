"""A database may come from another person: a row never reaches a file that is not its own."""

import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_sql import execute

from klcli.errors import ExitCode, StoreError
from klcli.settings.train_config import TrainConfig
from klcli.store import checkpoints, upkeep
from klcli.store.store import Store
from klcli.training.networks import initialize, network_shapes
from klcli.training.trainer import train

FOREIGN = [
    "../outside/precious.npz", "../../outside/precious.npz", "checkpoints/../../outside/precious.npz",
    "checkpoints/run-000002.npz", "checkpoints/run-000001.previous.npz", "klcli.db", "plots/run-000001.png", "",
    ".", "checkpoints", "checkpoints/", "checkpoints/run-1.npz", "run-000001.npz", "//.",
    "checkpoints\\run-000001.npz", "a/b-checkpoints/run-000001.npz", "checkpoints/run-000001.npz\n", "\x1b[2J",
]  # fmt: skip


@pytest.fixture
def here(three_runs_here: Path) -> Path:
    outside = three_runs_here.parent / "outside"
    outside.mkdir()
    shutil.copy(three_runs_here / "checkpoints" / "run-000001.npz", outside / "precious.npz")
    return three_runs_here


def refused(act: Callable[[], object], *words: str) -> str:
    with pytest.raises(StoreError) as error:
        act()
    message = str(error.value)
    assert error.value.exit_code == ExitCode.STORE
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.parent.rglob("*") if path.is_file() and path.suffix != ".db")
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", [*FOREIGN, "/outside"])
def test_a_row_that_names_another_file_is_refused_and_that_file_is_left_alone(here: Path, name: str) -> None:
    if name == "/outside":
        name = str(here.parent / "outside" / "precious.npz")
    execute(here / "klcli.db", "UPDATE runs SET checkpoint = ? WHERE id = 1", name)
    before = content(here)
    with closing(Store(here / "klcli.db")) as store:
        run = store.runs.get(1)
        for act in (lambda: store.runs.checkpoint(run), lambda: store.upkeep.delete([1])):
            refused(act, "run 1", "names the file" if name else "")
        assert any("run 1" in line for line in store.upkeep.check()[0])
        assert store.runs.get(1) == run
    assert content(here) == before


def test_a_folder_that_is_a_link_to_another_is_not_followed(here: Path) -> None:
    """As in a hand-in that was unpacked from an archive."""
    for kind in ("checkpoints", "plots"):
        (here / kind).rename(here.parent / "outside" / kind)
        (here / kind).symlink_to(here.parent / "outside" / kind)
    before = content(here)
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.runs.checkpoint(store.runs.get(1)), "checkpoints: this is a link to another folder")
        refused(lambda: store.upkeep.delete([1]), "checkpoints: this is a link to another folder")
        assert "link to another folder" in store.upkeep.check()[0][0]
    assert content(here) == before


def put_nothing(path: Path) -> None:
    pass


def put_link(path: Path) -> None:
    path.symlink_to(path.parent.parent.parent / "outside" / "precious.npz")


def put_socket(path: Path) -> None:
    folder = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(folder)


def put_bomb(path: Path) -> None:
    """A thousand times as many zeros as the file has bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("linear1.W.npy", bytes(2**20))


def put_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize(
    ("put", "word"),
    [
        (put_nothing, "missing"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a pipe"),
        (put_socket, "a socket"),
        (put_link, "a link"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (put_bomb, "compressed"),
        (put_sparse, "bytes"),
    ],
    ids=["missing", "folder", "pipe", "socket", "link", "device", "bomb", "sparse"],
)
def test_only_a_regular_file_of_bounded_size_is_read(here: Path, put: Callable[[Path], object], word: str) -> None:
    path = here / "checkpoints" / "run-000001.npz"
    path.unlink()
    put(path)
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.runs.checkpoint(store.runs.get(1)), word)
        assert any("run 1" in line for line in store.upkeep.check()[0])


def put_state(folder: Path, change_state: Callable[[dict[str, Any]], object]) -> None:
    """Store other arrays as the checkpoint of run 1, with the right checksum in file and row."""
    path = folder / "checkpoints" / "run-000001.npz"
    found = checkpoints.load(path)
    change_state(found.state)
    sha256 = checkpoints.save(path, found.state, found.config, found.step)
    execute(folder / "klcli.db", "UPDATE runs SET checkpoint_sha256 = ? WHERE id = 1", sha256)


def not_finite(value: float) -> Callable[[dict[str, Any]], object]:
    return lambda state: np.put(state["linear1.W"], 7, value)


@pytest.mark.parametrize(
    ("change_state", "word"),
    [
        (lambda state: state.pop("linear1.b"), "linear1.b is missing"),
        (lambda state: state.update({"linear1.W": state["linear1.W"].T}), "(5, 3072)"),
        (lambda state: state.update({"linear2.b": np.zeros((10, 1), np.float32)}), "linear2.b"),
        (lambda state: state.update({"linear3.W": np.zeros((10, 10), np.float32)}), "linear3.W"),
        (lambda state: state.update({"cycle1.linear1.b": np.zeros(9, np.float32)}), "cycle1.linear1.b"),
        (lambda state: state.update({"linear1.b": np.zeros(5, np.int64)}), "int64"),
        (lambda state: state.update({"linear1.b": np.zeros(5, complex)}), "complex"),
        (not_finite(np.nan), "not finite"),
        (not_finite(np.inf), "not finite"),
        (not_finite(-np.inf), "not finite"),
    ],
)
def test_a_network_of_another_form_is_refused(
    here: Path, change_state: Callable[[dict[str, Any]], object], word: str
) -> None:
    put_state(here, change_state)
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.runs.checkpoint(store.runs.get(1)), "not a network of run 1", word)
        [damage] = store.upkeep.check()[0]
    assert word in damage


CONFIGS = [
    TrainConfig(hidden=(4,), optimizer="adam", eta_max=0.001),
    TrainConfig(hidden=(4, 3), batch_norm=True, momentum=0.9),
    TrainConfig(hidden=(4,), batch_norm=True, bn_position="after", dtype="float64"),
    TrainConfig(hidden=(4,), whitening=20, dropout=0.2),
    TrainConfig(hidden=(4,), weight_average=0.9, snapshots=True, optimizer="adam", eta_max=0.001, batch_norm=True),
]


@pytest.mark.parametrize(
    "config", [pytest.param(one, marks=[pytest.mark.slow] if one.whitening else [], id=str(one)) for one in CONFIGS]
)
def test_every_checkpoint_that_a_training_writes_has_the_expected_form(
    small_dataset: Any, tmp_path: Path, config: TrainConfig
) -> None:
    from klcli.data.dataset import split
    from klcli.settings.split_config import SplitConfig
    from klcli.training.budget import budget_of
    from klcli.training.environment import environment

    division = SplitConfig(validation=50, subset=200)
    config = replace(config, split=division, batch_size=50, step_epochs=1, cycles=2)
    splits = split(small_dataset, division)
    with closing(Store(tmp_path / "klcli.db")) as store:
        run_id = store.runs.begin(config, budget_of(config, 200), small_dataset, environment(), "klcli train")

        def on_evaluation(results: list[Any]) -> None:
            store.runs.record_epochs(run_id, results[0].epochs[-1], result=results[0])
            store.runs.checkpoint(store.runs.get(run_id))

        train([config], splits, on_evaluation=on_evaluation)
        assert store.upkeep.check()[0] == []


@pytest.mark.parametrize("config", [one for one in CONFIGS if one.whitening is None], ids=str)
def test_the_shapes_are_those_of_the_network(config: TrainConfig) -> None:
    network = initialize(config)
    shapes = {name: array.shape for name, array in network.state().items()}
    expected = network_shapes(config)
    assert shapes == {name: shape for name, shape in expected.items() if name in shapes}
    assert all("running" in name for name in expected.keys() - shapes.keys())


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, put_socket, lambda path: path.symlink_to("/dev/null")])
def test_a_database_that_is_no_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "klcli.db"
    make(path)
    refused(lambda: Store(path), "not a database", "--db")
    refused(lambda: Store.existing(path), "not a database", "--db")


def test_checkpoints_are_beside_the_database_and_not_beside_a_link_to_it(here: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "mine.db"
    link.parent.mkdir()
    link.symlink_to(here / "klcli.db")
    with closing(Store(link)) as store:
        assert store.runs.checkpoint(store.runs.get(1)).step > 0
        assert store.upkeep.check() == ([], [])
        assert store.folder("plots") == here / "plots"
        checkpoints.write_atomically(store.folder("plots") / "a.png", b"x")
        assert (here / "plots" / "a.png").read_bytes() == b"x"
        assert len(store.upkeep.delete([1])) == 2
    assert sorted(path.name for path in link.parent.iterdir()) == ["mine.db"]
    assert not (here / "checkpoints" / "run-000001.npz").exists()


def test_a_run_whose_file_cannot_be_removed_keeps_its_row_and_all_of_its_files(here: Path) -> None:
    picture = here / "plots" / "run-000001-weights.png"
    picture.write_text("x")
    blocked = here / "plots" / "run-000001-weights.png.deleted"
    blocked.mkdir()  # the file cannot be moved aside
    (blocked / "full").touch()
    before = content(here)
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.upkeep.delete([2, 1]), "nothing was deleted")
        assert [store.runs.get(number).state for number in (1, 2)] == ["complete", "complete"]
    assert content(here) == before


def test_a_file_that_another_program_of_windows_has_open_is_not_deleted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PermissionError(13, "The process cannot access the file")
    error.winerror = 32  # type: ignore[attr-defined]
    monkeypatch.setattr(upkeep, "replace", lambda *files: (_ for _ in ()).throw(error))
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.upkeep.delete([1]), "cannot access", "close the program that has it open, nothing was")


def test_a_folder_in_place_of_a_checkpoint_is_not_deleted(here: Path) -> None:
    path = here / "checkpoints" / "run-000001.npz"
    path.unlink()
    path.mkdir()
    (path / "precious").touch()
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.upkeep.delete([2, 1]), "run-000001.npz", "a folder", "nothing was deleted")
        assert [store.runs.get(number).state for number in (1, 2)] == ["complete", "complete"]
    assert (path / "precious").exists()


def test_the_number_of_a_deleted_run_is_never_given_again(recorder: Any) -> None:
    assert [recorder.begin() for _ in range(3)] == [1, 2, 3]
    for number in (2, 3):
        recorder.store.runs.finish(number, "failed", None, 1.0)
    recorder.store.upkeep.delete([2, 3])
    with closing(Store(recorder.path)) as store:
        assert [run.id for run in store.runs.where("1")] == [1]
    assert recorder.begin() == 4


@pytest.mark.parametrize("sql", [
    "UPDATE runs SET versions = '[1]' WHERE id = 1",
    "UPDATE runs SET versions = '7' WHERE id = 1",
    "UPDATE runs SET validation_accuracy = 9e999, test_loss = -9e999 WHERE id = 1",
    "UPDATE runs SET seconds = 9e999, cycles = 9e999 WHERE id = 1",
    "UPDATE epochs SET train_cost = 9e999 WHERE run_id = 1",
])  # fmt: skip
@pytest.mark.parametrize("view", [
    ["--list", "--json"], ["--run", "1", "--json"], ["--run", "1", "2"], ["--group-by", "hidden"], ["--best", "3"],
], ids=" ".join)  # fmt: skip
def test_a_foreign_number_or_value_fails_no_report(here: Path, sql: str, view: list[str], answer: Any) -> None:
    execute(here / "klcli.db", sql)
    code, out, err = answer("report", *view, "--db", str(here / "klcli.db"))
    assert code == 0, err
    if "--json" in view:
        json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


@pytest.mark.parametrize(("change_to", "shown"), [
    ("cycles = 9e999", "cycles = inf"), ("cycles = 1e300", "cycles = 1e+300"), ("cycles = -1", "cycles = -1"),
    ("epochs = 9e999", "epochs = inf"), ("epochs = 5e-324", "epochs = 4.94066e-324"),
    ("step_size = 9223372036854775807", "step_size = 9.22337e+18"), ("step_size = -3", "step_size = -3"),
])  # fmt: skip
def test_a_length_that_no_training_has_is_damage_of_the_row_not_of_the_checkpoint(
    here: Path, change_to: str, shown: str, answer: Any
) -> None:
    execute(here / "klcli.db", f"UPDATE runs SET state = 'interrupted', {change_to} WHERE id = 1")
    words = f"run 1: its stored settings are damaged ({shown})"
    for command in (["train", "--resume", "1"], ["report", "--run", "1", "--plot", "curves"]):
        code, _, err = answer(*command, "--quiet", "--db", str(here / "klcli.db"))
        assert (code, err.count("\n")) == (4, 1), err
        assert f"{words}, restore a copy" in err
    with closing(Store(here / "klcli.db")) as store:
        words += ", restore a copy"
        assert store.upkeep.check()[0] == [words]
        assert "checkpoint is damaged" not in refused(lambda: store.runs.checkpoint(store.runs.get(1)), words)


def test_a_study_that_refines_itself_is_named(here: Path) -> None:
    execute(here / "klcli.db", "INSERT INTO studies (id, kind, stage, settings, state, created_at) "
                 "VALUES (7, 'lambda', 'coarse', '{}', 'complete', '2026-01-01T00:00:00+00:00'), "
                 "(8, 'lambda', 'fine', '{}', 'complete', '2026-01-01T00:00:00+00:00')")  # fmt: skip
    execute(here / "klcli.db", "UPDATE studies SET parent = 15 - id WHERE id IN (7, 8)")
    with closing(Store(here / "klcli.db")) as store:
        refused(lambda: store.studies.chain(8), "study 8 refines itself")


@pytest.mark.parametrize(("path", "cure"), [("file/x.png", "choose a folder that can be written"), ("ok/x.png", None)])
def test_a_file_that_cannot_be_written_is_named_with_its_own_cure(tmp_path: Path, path: str, cure: str | None) -> None:
    (tmp_path / "file").touch()
    if cure is None:
        checkpoints.write_atomically(tmp_path / path, b"x")
        assert (tmp_path / path).read_bytes() == b"x"
    else:
        assert "space" not in refused(lambda: checkpoints.write_atomically(tmp_path / path, b"x"), cure)
