"""The Lab: the same results from Python as from the command line, and no side effects in the calling process."""

import gc
import inspect
import json
import multiprocessing
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import psutil
import pytest
import threadpoolctl
from machine import set_machine
from PIL import Image

import klcli
from klcli import Lab, SplitConfig, TrainConfig
from klcli.errors import ConfigError, Interrupted, StoreError
from klcli.procedures import trainings
from klcli.procedures.observer import Observer
from klcli.settings.presets import preset
from klcli.settings.procedures import CheckSettings, EvaluationSettings, ReproductionSettings, SearchSettings
from klcli.settings.run_command import resuming_command
from klcli.store.records import Run, RunFilter
from klcli.training.result import EpochMetrics
from tests.raw_sql import execute

pytestmark = pytest.mark.usefixtures("known_machine")

SMALL = TrainConfig(
    split=SplitConfig(subset=200), hidden=(12,), batch_norm=True, batch_size=20, step_epochs=1, cycles=2
)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """With studies in this process: others take seconds to begin."""
    return Lab(tmp_path / "lab.db", data="synthetic", jobs=1)


@pytest.fixture(scope="module")
def lab_of_one_run(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """For calls that are refused, and change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        set_machine(patch, shared_cache)
        lab = Lab(tmp_path_factory.mktemp("one-run") / "lab.db", data="synthetic", jobs=1)
        lab.train(replace(SMALL, epochs=0))
    return lab


def state_of_the_process() -> dict[str, Any]:
    """What a library must leave as it was."""
    return {
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "threads": [pool["num_threads"] for pool in threadpoolctl.threadpool_info()],
        "buffer": np.getbufsize(),
        "errors": np.geterr(),
        "folder": Path.cwd(),
        "environment": dict(os.environ),
    }


def metrics(lab: Lab, run: int) -> list[tuple[float, ...]]:
    return [(one.epoch, one.train_cost, one.validation_loss, one.validation_accuracy) for one in lab.epochs(run)]


def test_a_training_is_recorded_and_observed_and_leaves_nothing_behind(lab: Lab) -> None:
    lab.train(SMALL)  # loads what is loaded once
    before, seen = state_of_the_process(), []
    run = lab.train(SMALL, on_evaluation=seen.append)
    assert state_of_the_process() == before
    assert (run.state, run.id, run.config) == ("complete", 2, SMALL)
    assert [one.validation.accuracy for one in seen] == [one.validation_accuracy for one in lab.epochs(run)]
    assert run.command == (
        f"Lab({str(lab.store.path)!r}, data='synthetic').train(TrainConfig(hidden=(12,), batch_norm=True, "
        "step_epochs=1.0, batch_size=20, split=SplitConfig(subset=200)))"
    )
    assert metrics(lab, 1) == metrics(lab, 2)


def test_an_evaluation_is_observed_once_where_the_next_one_has_no_finite_cost(lab: Lab) -> None:
    seen = list[EpochMetrics]()
    run = lab.train(replace(SMALL, batch_norm=False, eta_max=1e6), on_evaluation=seen.append)
    assert run.state == "diverged"
    assert [one.step for one in seen] == [one.step for one in lab.epochs(run)] != []


def test_the_stored_command_of_python_is_python_that_makes_the_config(lab: Lab) -> None:
    run = lab.train(SMALL)
    assert run.command.startswith(f"{lab!r}.train(")
    text = run.command.partition(".train(")[2].removesuffix(")")
    assert eval(text, {"TrainConfig": TrainConfig, "SplitConfig": SplitConfig}) == SMALL


def test_the_stored_command_of_a_study_is_python_that_finds_it_again(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab.db", data="synthetic", threads=1, jobs=1)
    lab.repeat(SMALL, 2, vary="init")
    lab.sigma_sweep(SMALL, (0.1, 0.02), repeats=2, vary="order")
    lab.search_lambda(SMALL, SearchSettings(values=(0.1, 0.001), final=True), repeats=2)
    studies = lab.store.studies.all()
    assert [study.stage for study in studies] == ["train", "sweep", "values", "final"]
    names = {"Lab": Lab, "TrainConfig": TrainConfig, "SplitConfig": SplitConfig, "SearchSettings": SearchSettings}
    for study in studies:
        assert study.command is not None
        eval(resuming_command(study.command, study.kind), names)
    assert lab.store.studies.all() == studies
    for study in studies:
        commands = [run.command for run in lab.runs_of(study)]
        assert len(set(commands)) == len(commands)
        assert all(command.startswith("klcli train --hidden 12 ") for command in commands)


REPORT = """
report = "mine"
course = "c"
date = "d"
summary = "s"
conditions = "as the code, not as the text"
[common]
hidden = [10]
step_epochs = 1
cycles = 1
[[experiments]]
name = "single"
rows = [{ row = "mine-1", train_loss = 1.0 }]
"""


def test_the_command_of_a_reproduction_in_the_home_folder_completes_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reproduce` is a generator, which does nothing until somebody asks for its results."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "mine.toml").write_text(REPORT)
    settings = ReproductionSettings(subset=200, quick=True)
    [whole] = lab.reproduce("~/mine.toml", settings=settings, repeats=1)
    for table in ("runs", "studies"):
        execute(lab.store.path, f"UPDATE {table} SET state = 'interrupted'")
    [study] = lab.store.studies.all()
    with pytest.raises(ConfigError, match="belongs to study 1, continue that with `") as told:
        lab.resume(1)
    again = str(told.value).partition("`")[2].rpartition("`")[0]
    found = eval(again, {"Lab": Lab, "ReproductionSettings": ReproductionSettings})
    assert [run.state for run in lab.runs_of(study.id)] == ["complete"]
    assert [one.report for one in found] == [whole.report]


def test_every_thread_reads_the_store_of_a_lab(lab: Lab) -> None:
    run = lab.train(SMALL)
    for _ in range(30):  # one connection for all threads failed in one of these, under Python 3.13
        with ThreadPoolExecutor(3) as pool:
            assert [*pool.map(lambda _: lab.best(), range(9))] == [[run]] * 9
    assert lab.run(run.id) == run


@pytest.mark.skipif(os.name != "posix", reason="Windows renames no open file")
def test_a_lab_reads_the_database_that_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after another folder has become the current one, and after the file has been replaced."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    lab = Lab("lab.db", data="synthetic")
    assert lab.train(replace(SMALL, epochs=0)) == lab.run(1)
    monkeypatch.chdir("other")
    with pytest.raises(StoreError, match=r"lab\.db: there is no database here"):
        lab.best()
    again = lab.train(replace(SMALL, epochs=0, seed=1))
    assert lab.run(1) == again
    Path("lab.db").rename("old.db")
    with pytest.raises(StoreError, match=r"lab\.db: there is no database here"):
        lab.runs_of(1)
    assert lab.train(replace(SMALL, epochs=0, seed=2)) == lab.run(2)  # 1 is the number of a checkpoint of old.db


def test_a_lab_without_a_database_uses_that_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Lab(data="synthetic").train(replace(SMALL, epochs=0))
    assert Path("results/klcli.db").is_file()
    monkeypatch.setenv("KLCLI_DB", "~/mine.db")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for lab in (Lab(data="synthetic"), Lab(None, data="synthetic")):
        assert lab.train(replace(SMALL, epochs=0)) == Lab(tmp_path / "mine.db").run(-1)
    with pytest.raises(Interrupted, match=r"`klcli train --resume 2 --db results/klcli\.db`"):
        Lab("results/klcli.db", data="synthetic").train(
            SMALL, on_evaluation=lambda _: os.kill(os.getpid(), signal.SIGINT)
        )


def test_settings_that_are_none_are_the_defaults(lab: Lab) -> None:
    run = lab.train(SMALL)
    [[_], [default]], [[_], [none]] = lab.evaluate([run.id]), lab.evaluate([run.id], None)
    assert (none.test_loss, none.command) == (default.test_loss, default.command)
    assert [one.passed for one in lab.check_gradients(SMALL, None)] == [True, True]
    assert len(lab.search_lambda(SMALL, None).tried) == SearchSettings().trials
    with pytest.raises(ConfigError, match="nobody-1999"):
        list(lab.reproduce("nobody-1999", settings=None))


@pytest.mark.slow
def test_the_name_of_a_preset_without_its_settings_is_refused(lab: Lab, tmp_path: Path) -> None:
    quick = preset("quick").config
    calls: list[Callable[[], object]] = [
        lambda: lab.train(TrainConfig(preset="quick")), lambda: lab.train(replace(SMALL, preset="quick", cycles=1)),
        lambda: lab.repeat(TrainConfig(preset="quick", seed=1, split=SMALL.split), 2),
        lambda: lab.export_gradients(tmp_path / "x.npz", TrainConfig(preset="quick")),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ConfigError, match=r"preset 'quick': only the name is here.* begin with preset\('quick'\)"):
            call()
    lab.export_gradients(tmp_path / "x.npz", replace(quick, hidden=(12,)), CheckSettings(images=2, dims=3))
    for allowed in (replace(quick, epochs=0, batch_size=20, whitening=9, hidden=(12,)), replace(SMALL, preset="mine")):
        assert lab.train(replace(allowed, split=SMALL.split)).state == "complete"


@pytest.mark.parametrize(("order", "held"), [("all", []), ("init", ["shared_seed"]), ("order", ["seed"])])
def test_repeats_hold_what_they_do_not_vary(lab: Lab, order: str, held: list[str]) -> None:
    runs = lab.runs_of(lab.repeat(SMALL, 2, vary=order))
    same = [name for name in ("seed", "shared_seed") if len({getattr(run.config, name) for run in runs}) == 1]
    assert same == held
    assert len({run.validation_loss for run in runs}) == 2


def test_the_page_names_the_module_of_whatever_a_lab_takes() -> None:
    page, modules = files("klcli").joinpath("docs/python.md").read_text(encoding="utf-8"), set()
    for name, method in inspect.getmembers(Lab, inspect.isfunction):
        if name == "__init__" or not name.startswith("_"):
            hints = [one.annotation for one in inspect.signature(method).parameters.values()]
            classes = {part for hint in hints for part in (hint, *get_args(hint)) if isinstance(part, type)}
            modules |= {
                one.__module__ for one in classes if one.__module__.startswith("klcli.") and one is not TrainConfig
            }
    assert len(modules) == 4  # of settings, of those of an assignment, of records, and of the observer
    assert all(f"`{module}`" in page for module in modules)


@pytest.mark.parametrize(("jobs", "helpers"), [({"jobs": 1}, 0), ({"jobs": 2}, 1), ({}, 1)])
def test_a_second_core_helps_unless_there_is_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: dict[str, int], helpers: int
) -> None:
    seen = []
    monkeypatch.setattr(trainings, "cores", lambda: 2)
    lab = Lab(tmp_path / "lab.db", data="synthetic", **jobs)
    lab.train(SMALL, on_evaluation=lambda _: seen.append([one.name for one in threading.enumerate()]))
    assert {names.count("klcli helper") for names in seen} == {helpers}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="chooses one of the kernels of OpenBLAS for x86")
def test_the_runs_of_a_study_hold_the_versions_of_the_processes_that_trained_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Dask worker on another host can have another processor, and thus other bits."""
    lab = Lab(tmp_path / "lab.db", data="synthetic", jobs=2)
    own = lab.train(SMALL).versions["blas"]
    if "openblas" not in own:
        pytest.skip("this NumPy has another BLAS")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")  # read when OpenBLAS is loaded: only by the workers
    for run in lab.runs_of(lab.repeat(SMALL, 2)):
        assert run.versions["blas"].split()[-1] == "Nehalem" != own.split()[-1]
        assert json.loads(lab.store.runs.checkpoint(run).origin["versions"]) == run.versions


def test_trainings_in_several_threads_have_the_blas_threads_of_their_lab(lab: Lab) -> None:
    """The first to end gave the others those of the program, and they were recorded as trained with them."""
    begun, ended, seen = threading.Event(), threading.Event(), []

    def first() -> None:
        lab.train(replace(SMALL, cycles=1), on_evaluation=lambda _: begun.set() or meet.wait(60))
        ended.set()

    def on_evaluation(one: Any) -> None:
        meet.set()
        ended.wait(60)
        seen.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())

    meet = threading.Event()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = state_of_the_process()
        thread = threading.Thread(target=first)
        thread.start()
        assert begun.wait(60)
        run = lab.train(SMALL, on_evaluation=on_evaluation)
        thread.join()
        assert state_of_the_process() == before
    assert (run.threads, set(seen)) == (1, {1})


def test_ctrl_c_leaves_a_run_that_continues_to_the_same_bits(lab: Lab) -> None:
    whole = lab.train(SMALL)
    before = state_of_the_process()
    with pytest.raises(Interrupted, match=r"run 2 keeps its 1 epoch, continue with `klcli train --resume 2"):
        lab.train(SMALL, on_evaluation=lambda one: os.kill(os.getpid(), signal.SIGINT) if one.epoch == 1 else None)
    assert state_of_the_process() == before
    assert lab.store.runs.get(2).state == "interrupted"
    resumed = lab.resume()
    assert (resumed.id, resumed.state) == (2, "complete")
    assert metrics(lab, 2) == metrics(lab, whole.id)
    assert (resumed.test_loss, resumed.test_accuracy) == (whole.test_loss, whole.test_accuracy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "printed"),
    [
        ("default_int_handler", ["deferred", "KeyboardInterrupt"]),
        # As ipykernel has it between cells, and a shell for its jobs in the background.
        ("SIG_IGN", ["deferred", "ignored", "Interrupted"]),
    ],
)
def test_a_second_ctrl_c_ends_the_training_and_not_the_program(
    tmp_path: Path, handler: str, printed: list[str]
) -> None:
    """A notebook would lose all of its variables."""
    script = f"""
import os, signal, time
from klcli import Lab, SplitConfig, TrainConfig
signal.signal(signal.SIGINT, signal.{handler})
config, lab = {SMALL!r}, Lab({str(tmp_path / "lab.db")!r}, data="synthetic")
def interrupt_twice(one):
    if one.epoch == 1:
        os.kill(os.getpid(), signal.SIGINT)
        print("deferred")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        print("ignored")
try:
    lab.train(config, on_evaluation=interrupt_twice)
except BaseException as stopped:
    print(type(stopped).__name__, signal.getsignal(signal.SIGINT) is signal.{handler})
print(lab.run(-1).state, lab.resume().state)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [*printed, "True", "interrupted", "complete"]


def test_the_second_signal_of_a_training_meets_the_handler_of_the_program(lab: Lab) -> None:
    """That of asyncio, for example, raises nothing at once: the training ends after its current update."""
    seen = list[int]()
    before = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
    try:
        with pytest.raises(Interrupted, match="terminated: run 1 "):
            lab.train(SMALL, on_evaluation=lambda _: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert lab.store.runs.get(1).state == "interrupted"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process ends itself by a signal on POSIX alone")
def test_a_second_signal_ends_a_program_that_just_makes_a_file(tmp_path: Path) -> None:
    """It waited without end for itself to have made it, and could only be killed."""
    script = f"""
import signal
from pathlib import Path
from klcli import Lab, SplitConfig, TrainConfig
touch = Path.touch
def interrupted_touch(path):
    touch(path)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
def begin(one):
    Path.touch = interrupted_touch
Lab({str(tmp_path / "lab.db")!r}, data="synthetic").train({SMALL!r}, on_evaluation=begin)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "klcli: terminated\n")
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a handler of the C library, which has another name there")
def test_a_signal_handler_of_a_program_that_embeds_python_stays(tmp_path: Path) -> None:
    """Python knows that there is a handler set in C, as None, but cannot put it back."""
    script = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal({signal.SIGTERM:d}, ctypes.cast(libc._exit, ctypes.c_void_p))  # as before the start of Python
for name in ("_signal", "signal"):
    sys.modules.pop(name, None)
import signal
assert signal.getsignal(signal.SIGTERM) is None
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the new import has taken for one in C, too
from klcli import Lab, SplitConfig, TrainConfig
from klcli.errors import Interrupted
lab = Lab({str(tmp_path / "lab.db")!r}, data="synthetic")
print(lab.train({SMALL!r}).state, flush=True)
def interrupt(one):
    os.kill(os.getpid(), signal.SIGINT)
try:
    lab.train({SMALL!r}, on_evaluation=interrupt)
except Interrupted:
    print(lab.run(-1).state, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.split(), done.stderr) == (["complete", "interrupted"], "")
    assert done.returncode == signal.SIGTERM  # the handler calls _exit(15)


class Cancelled(BaseException):
    """Like asyncio.CancelledError and pytest's Failed."""


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (Cancelled(), "interrupted", "interrupted"),
        (ValueError("caf\udce9"), "failed", r"ValueError: caf\xe9"),
        (ValueError("two\nlines"), "failed", "ValueError: two lines"),
        (MemoryError(), "failed", "MemoryError: MemoryError"),
    ],
)
def test_whatever_a_callback_raises_ends_the_run_in_a_state(
    lab: Lab, error: BaseException, state: str, text: str
) -> None:
    def fail(_: object) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        lab.train(SMALL, on_evaluation=fail)
    assert raised.value is error
    [run] = lab.store.runs.where("1")
    assert (run.state, run.error) == (state, text)
    assert lab.resume(1).state == "complete"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork as POSIX has it")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_a_callback_forks_can_be_terminated(lab: Lab) -> None:
    """It inherited the handler that defers the first signal: a pool waited for its workers without end."""
    context, codes = multiprocessing.get_context("fork"), []

    def fork(_: object) -> None:
        begun = context.Event()
        child = context.Process(target=lambda: (begun.set(), time.sleep(100)))
        child.start()
        begun.wait(60)
        child.terminate()
        child.join(60)
        codes.append(child.exitcode)

    assert lab.train(replace(SMALL, cycles=1), on_evaluation=fork).state == "complete"
    assert codes and set(codes) == {-signal.SIGTERM}


@pytest.mark.slow
def test_ctrl_c_interrupts_a_training_whose_callback_has_trained_another(lab: Lab, tmp_path: Path) -> None:
    """The inner training had ended the deferral of signals with its own, and the next one ended the process."""
    script = f"""
import os, signal
from klcli import Lab, SplitConfig, TrainConfig
config, lab = {SMALL!r}, Lab({str(tmp_path / "lab.db")!r}, data="synthetic")
def train_another(one):
    if one.epoch == 1:
        lab.train(config)
        os.kill(os.getpid(), signal.SIGINT)
try:
    lab.train(config, on_evaluation=train_another)
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("interrupted: run 1 keeps its 1 epoch, continue with `")
    assert [run.state for run in lab.store.runs.where("1 ORDER BY id")] == ["interrupted", "complete"]


def test_a_setting_that_a_resumed_run_did_not_have_is_refused_by_its_option(lab: Lab) -> None:
    with pytest.raises(Interrupted):
        lab.train(SMALL, on_evaluation=lambda one: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(ConfigError, match=r"--resume 1: its --lambda is 0\.005, not 0\.1"):
        lab.resume("last", wanted={"lam": 0.1})
    with pytest.raises(ConfigError, match="it used --threads 1, not 2"):
        lab.resume(1, threads=2)
    for key in ("sugar", "split", 1):
        with pytest.raises(ConfigError, match=f"--resume 1: {key!r} is no setting, name one as 'lam' or"):
            lab.resume(1, wanted={key: 1})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"--lambda '0\.005': must be a number"):
        lab.resume(1, wanted={"lam": "0.005"})
    same = {"lam": np.float64(0.005), "hidden": [12], "split.subset": 200}
    assert lab.resume(1, wanted=same, threads=1).state == "complete"


def test_messages_reach_the_observer_and_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warn(self, message: str) -> None:
            self.warnings.append(message)

    listener = Listener()
    Lab(tmp_path / "lab.db", data="synthetic", observer=listener).train(SMALL)
    assert "SYNTHETIC" in listener.warnings[0]
    assert capsys.readouterr() == ("", "")


def test_a_run_is_given_by_number_name_or_record(lab: Lab, tmp_path: Path) -> None:
    for seed in range(12):
        run = lab.train(replace(SMALL, epochs=0, seed=seed))
    for given in (12, "12", run, [12], [run]):
        assert [one.id for one in lab.evaluate(given)[0]] == [12]
    assert lab.run(run) == run and lab.epochs("last") == lab.epochs(run) == lab.epochs(12)
    picture = tmp_path / "grey.png"
    Image.new("RGB", (32, 32)).save(picture)
    assert lab.predict(str(picture), run).pictures == lab.predict([picture], 12).pictures
    for wrong in (lambda: lab.epochs(99), lambda: lab.runs_of(99)):
        with pytest.raises(StoreError, match="there is no"):
            wrong()
    with pytest.raises(ConfigError, match="at least one picture"):
        lab.predict([])
    with pytest.raises(ConfigError, match="run '': give the number of a run"):
        lab.predict(picture, "")
    with pytest.raises(ConfigError, match="best -1: must be a whole number, at least 0"):
        lab.best(-1)


@pytest.mark.slow
def test_a_record_of_another_database_is_refused(lab: Lab, tmp_path: Path) -> None:
    """Its number is that of another run here."""
    other, short = Lab(tmp_path / "other.db", data="synthetic"), replace(SMALL, epochs=0)
    run, study = other.train(short), other.repeat(replace(short, seed=5), 2)
    lab.train(short)
    lab.repeat(short, 2)
    assert (lab.run(run.id).config, lab.store.studies.get(study.id).state) == (short, study.state)
    calls: list[Callable[[], object]] = [
        lambda: lab.run(run), lambda: lab.epochs(run), lambda: lab.evaluate([1, run]), lambda: lab.rerun(run),
        lambda: lab.predict("a.png", run), lambda: lab.export(run), lambda: lab.resume(run),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ConfigError, match=r"run 1: this record is of another database than .*lab\.db, give it to"):
            call()
    with pytest.raises(ConfigError, match=r"study 1: this record is of another database than .*lab\.db, give it to"):
        lab.runs_of(study)
    assert len(lab.store.runs.where("1")) == 3


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lab: Lab(jobs=4, executor="tcp://host:1"), "--jobs 4: no effect, --executor trains in the workers of"),
        (lambda lab: lab.search_lambda(SMALL, SearchSettings(fine=1, between=(1e-4, 1e-2))), "--range 0.0001 0.01"),
        (lambda lab: lab.search_lambda(SMALL, SearchSettings(rounds=1, scale="linear")), "--scale linear"),
        (lambda lab: lab.search_lambda(SMALL, SearchSettings(values=(0.1, 0.01), trials=20)), "--trials 20"),
    ],
)
def test_settings_without_an_effect_are_refused_as_by_the_commands(
    lab: Lab, call: Callable[[Lab], object], named: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        call(lab)
    assert str(raised.value).startswith(named)
    assert ": no effect, " in str(raised.value)


def test_a_search_that_an_older_klcli_began_is_completed_with_a_setting_without_an_effect(lab: Lab) -> None:
    lab.search_lambda(SMALL, SearchSettings(values=(0.1, 0.01)))
    lab.search_lambda(SMALL, SearchSettings(values=(0.1, 0.01), trials=20), resume=True)
    assert len(lab.store.studies.all()) == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lab: Lab(3), "Lab(db=3): give a path"),
        (lambda lab: Lab(data=b"x"), "Lab(data=b'x'): give a path"),
        (lambda lab: Lab(threads="2"), "Lab(threads='2'): give a whole number"),
        (lambda lab: Lab(jobs=1.5), "Lab(jobs=1.5): give a whole number"),
        (lambda lab: Lab(executor=1), "Lab(executor=1): give a text"),
        (lambda lab: Lab(observer=print), "Lab(observer=<built-in function print>): give an Observer"),
        (lambda lab: lab.train({}), "train(config={}): give a TrainConfig"),
        (lambda lab: lab.train(None), "train(config=None): give a TrainConfig"),
        (lambda lab: lab.train(lab.run()), "train(config=Run(id=1, stu"),
        (lambda lab: lab.train(SMALL, on_evaluation=3), "train(on_evaluation=3): give a function"),
        (lambda lab: lab.resume(wanted=[1]), "resume(wanted=[1]): give a dictionary"),
        (lambda lab: lab.repeat("best", 2), "repeat(config='best'): give a TrainConfig"),
        (lambda lab: lab.repeat(SMALL, "2"), "repeat(repeats='2'): give a whole number"),
        (lambda lab: lab.repeat(SMALL, True), "repeat(repeats=True): give a whole number"),
        (lambda lab: lab.repeat(SMALL, np.float64(1.5)), "repeat(repeats=1.5): give a whole number"),
        (lambda lab: lab.repeat(SMALL, 2, resume="no"), "repeat(resume='no'): give True or False"),
        (lambda lab: lab.sigma_sweep({}, (0.1,)), "sigma_sweep(config={}): give a TrainConfig"),
        (lambda lab: lab.sigma_sweep(SMALL, "0.1"), "sigma_sweep(sigmas='0.1'): give a list"),
        (lambda lab: lab.best(np.dtype("int64")), "best(n=dtype('int64')): give a whole number"),
        (lambda lab: lab.sigma_sweep(SMALL, 0.1), "sigma_sweep(sigmas=0.1): give a list"),
        (lambda lab: lab.sigma_sweep(SMALL, [0.1, None]), "sigma_sweep(sigmas=None): give a number"),
        (lambda lab: lab.search_lambda(SMALL, {"fine": 1}), "search_lambda(what={'fine': 1}): give a SearchSettings"),
        (lambda lab: lab.check_gradients(SMALL, {"dims": 3}), "check_gradients(settings={'dims': 3}): give a Check"),
        (lambda lab: lab.export_gradients(None), "export_gradients(path=None): give a path"),
        (lambda lab: lab.evaluate(None), "evaluate(runs=None): give a list, a whole number, a text or a Run"),
        (lambda lab: lab.evaluate(b"\x01"), "evaluate(runs=b'\\x01'): give a list, a whole number, a text or a Run"),
        (lambda lab: lab.evaluate([]), "evaluate(runs=()): give at least one run"),
        (lambda lab: lab.evaluate([1, 1.5]), "evaluate(runs=1.5): give a whole number, a text or a Run"),
        (lambda lab: lab.predict(None), "predict(pictures=None): give a list or a path"),
        (lambda lab: lab.predict(b"a.png"), "predict(pictures=b'a.png'): give a list or a path"),
        (lambda lab: lab.predict([3]), "predict(pictures=3): give a path"),
        (lambda lab: lab.predict("a.png", shifts=1.5), "predict(shifts=1.5): give a whole number"),
        (lambda lab: lab.predict("a.png", flips="no"), "predict(flips='no'): give True or False"),
        (lambda lab: lab.export(1, file=3), "export(file=3): give a path"),
        (lambda lab: lab.reproduce(3), "reproduce(names=3): give a text"),
        (lambda lab: lab.reproduce("a3-2024", settings={"quick": True}), "reproduce(settings={'quick': True}): give a"),
        (lambda lab: lab.plan_assignment("x"), "plan_assignment(settings='x'): give an AssignmentSettings"),
        (lambda lab: lab.assignment("x"), "assignment(settings='x'): give an AssignmentSettings"),
        (lambda lab: lab.best("x"), "best(n='x'): give a whole number"),
        (lambda lab: lab.best(3, "bn"), "best(chosen='bn'): give a RunFilter"),
        (lambda lab: RunFilter(hidden="50 30"), "RunFilter(hidden='50 30'): give a list"),
        (lambda lab: RunFilter(hidden=(50, "30")), "RunFilter(hidden='30'): give a whole number"),
        (lambda lab: RunFilter(lam="0.1"), "RunFilter(lam='0.1'): give a number"),
        (lambda lab: RunFilter(batch_norm="yes"), "RunFilter(batch_norm='yes'): give True or False"),
        (lambda lab: RunFilter(since=datetime(2020, 1, 1, tzinfo=UTC)), "RunFilter(since=datetime.dat"),
        (lambda lab: RunFilter(tag=("a", "b")), "RunFilter(tag=('a', 'b')): give a text"),
        (lambda lab: lab.epochs([1]), "epochs(run=[1]): give a whole number, a text or a Run"),
        (lambda lab: lab.runs_of([1]), "runs_of(study=[1]): give a Study, a whole number or a text"),
        (lambda lab: lab.runs_of("best"), "study 'best': give the number of a study, as 3, -1 for the newest one, or"),
        (lambda lab: lab.runs_of(lab.run()), "runs_of(study=Run(id=1, stu"),
        (lambda lab: TrainConfig(split={"subset": 300}), "split {'subset': 300}: must be a SplitConfig"),
    ],
)  # fmt: skip
def test_an_argument_of_another_type_is_named(lab_of_one_run: Lab, call: Callable[[Lab], object], named: str) -> None:
    before = lab_of_one_run.store.runs.where("1")
    assert [run.id for run in before] == [1]
    with pytest.raises(ConfigError) as refused:
        call(lab_of_one_run)
    assert str(refused.value).startswith(named)
    assert lab_of_one_run.store.runs.where("1") == before


def test_a_second_seed_for_one_network_is_refused(lab: Lab) -> None:
    """It was ignored, and stored with the check."""
    with pytest.raises(ConfigError, match=r"check_gradients\(seed=3\): the config has the seed 5, set it there"):
        lab.check_gradients(replace(SMALL, seed=5), seed=3)
    few = CheckSettings(images=3, dims=5)
    assert {one.configs[0].seed for one in lab.check_gradients(replace(SMALL, seed=5), few, seed=5)} == {5}
    assert {one.configs[0].seed for one in lab.check_gradients(replace(SMALL, seed=5), few)} == {5}
    assert {one.configs[0].seed for one in lab.check_gradients(None, few, seed=3)} == {3}


def test_runs_are_chosen_by_the_widths_of_their_layers(lab: Lab) -> None:
    wide, narrow = (lab.train(replace(SMALL, epochs=0, hidden=hidden)) for hidden in ((4, 3), (4,)))
    for widths in ((4, 3), [4, 3], np.array([4, 3])):
        assert lab.best(3, RunFilter(hidden=widths)) == [wide]  # type: ignore[arg-type]
    assert lab.best(3, RunFilter(hidden=(4,))) == [narrow]
    assert lab.best(3, RunFilter(hidden=range(4, 5), batch_norm=True)) == [narrow]
    assert lab.best(3, RunFilter(hidden=(3, 4))) == []


def test_a_store_refuses_what_sqlite_cannot_take(lab: Lab) -> None:
    run, store, found = lab.train(replace(SMALL, epochs=0)), lab.store, []

    def read(key: Any) -> None:
        try:
            store.runs.epochs(key)
        except StoreError as error:
            found.append(str(error))

    read(run)
    for thread in [threading.Thread(target=read, args=[run.id])]:
        thread.start()
        thread.join()
    assert len(found) == 2
    assert all("take `lab.store` anew in each thread" in one and "restore" not in one for one in found)
    read(run.id)
    assert len(found) == 2


def test_numbers_of_numpy_and_any_iterables_are_what_they_contain(lab: Lab) -> None:
    study, one = lab.repeat(SMALL, np.int64(2)), np.int64(1)  # type: ignore[arg-type]
    assert study.command is not None and study.command.endswith(", 2, vary='all')")
    assert lab.runs_of(np.int64(study.id)) == lab.runs_of(study)  # type: ignore[arg-type]
    assert lab.run(one) == lab.evaluate(one)[0][0] == lab.evaluate([one])[0][0]  # type: ignore[arg-type, list-item]
    assert lab.evaluate(np.array([2, 1]))[0] == lab.evaluate(n for n in (2, 1))[0] == lab.runs_of(study)[::-1]
    for chosen in (RunFilter(seed=one), RunFilter(batch_norm=np.True_, seed=one)):  # type: ignore[arg-type]
        assert lab.best(3, chosen) == [lab.run(2)]
    assert lab.store.runs.get(one) == lab.run(1)  # type: ignore[arg-type]
    for sigmas in (np.array([0.1, 0.02]), (sigma for sigma in (0.1, 0.02))):
        swept = lab.sigma_sweep(SMALL, sigmas)
        assert swept.command is not None and swept.command.endswith(", (0.1, 0.02), repeats=1, vary='all')")
        assert [run.config.sigma for run in lab.runs_of(swept)] == [0.1, 0.02] * 2


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of that name is made in the current one, which somebody would remove with `rm -r ~`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    lab = Lab("~/lab.db", data="synthetic")
    run = lab.train(replace(SMALL, epochs=0))
    assert lab.export(1, file=Path("~/network.npz")) == tmp_path / "network.npz"
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    checkpoint = lab.store.runs.file_of(run)
    assert Lab().predict(["~/a.png"], checkpoint=f"~/{checkpoint.relative_to(tmp_path)}").config == run.config
    assert (tmp_path / "lab.db").is_file() and [*Path().iterdir()] == []


@pytest.mark.parametrize("how", [{"shifts": 40}, {"shifts": -1}])
def test_views_of_a_picture_are_checked(lab: Lab, tmp_path: Path, how: dict[str, Any]) -> None:
    lab.train(replace(SMALL, epochs=0))
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    [(name, value)] = how.items()
    with pytest.raises(ConfigError, match=f"--{name} {value!r}: must be "):
        lab.predict(tmp_path / "a.png", **how)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"jobs": 0}, {"threads": 10**30}, {"jobs": 1025}], ids=str)
def test_a_lab_without_threads_or_jobs_or_with_too_many_is_refused(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} {value!r}: must be a whole number from 1 to 1024"):
        Lab(**wrong)


def test_a_lab_and_its_exceptions_reach_another_process(lab: Lab) -> None:
    lab.train(replace(SMALL, epochs=0))
    assert lab.best() != []  # opens a database, which cannot be pickled
    assert pickle.loads(pickle.dumps(lab)).best() == lab.best()
    error = pickle.loads(pickle.dumps(Interrupted("stopped", signal.SIGTERM)))
    assert (str(error), error.signum, error.exit_code) == ("stopped", signal.SIGTERM, 143)


def test_a_gradient_check_counts_entries_after_the_code_is_loaded(tmp_path: Path) -> None:
    """The first check on a machine compiles it for seconds."""

    class Listener(Observer):
        steps: ClassVar[list[str]] = []

        def step(self, name: str, total: float | None = None) -> Any:
            self.steps.append(name)
            return super().step(name, total)

    Lab(tmp_path / "lab.db", data="synthetic", observer=Listener()).check_gradients(SMALL)
    assert Listener.steps.index("loading the compiled arithmetic") < Listener.steps.index("checking entries")


def test_a_study_of_repeats_gives_the_digits_of_the_single_trainings_in_float64(lab: Lab) -> None:
    config = TrainConfig(**{**SMALL.__dict__, "dtype": "float64", "order_seed": 0})
    study = lab.repeat(config, 2)
    runs = lab.runs_of(study)
    assert (study.kind, study.state, [run.config.seed for run in runs]) == ("repeats", "complete", [0, 1])
    for run in runs:
        alone = lab.train(run.config)
        assert alone.test_loss == pytest.approx(run.test_loss, rel=1e-9)


def test_a_study_is_given_by_number_name_or_record(lab: Lab) -> None:
    with pytest.raises(ConfigError, match=r"study last: .*lab\.db holds no complete study, give -1 or a number"):
        lab.train(replace(SMALL, epochs=0)) and lab.runs_of("last")
    first, second = (lab.repeat(replace(SMALL, epochs=0, seed=seed), 2) for seed in (0, 5))
    for given in (second, 2, "2", "last", -1, "-1"):
        assert [run.study_id for run in lab.runs_of(given)] == [second.id, second.id]
    execute(lab.store.path, "UPDATE studies SET created_at = '2020' WHERE id = 2")  # as after a merge
    assert [run.study_id for run in lab.runs_of("last")] == [first.id, first.id]
    what = SearchSettings(fine=1, from_study=1)
    assert what == SearchSettings(fine=1, from_study="1") and what.from_study == "1"
    with pytest.raises(ConfigError, match=r"--from '1\.5': give the number of a study"):
        SearchSettings(fine=1, from_study=1.5)  # type: ignore[arg-type]


def test_a_search_is_a_chain_of_studies_that_narrows_to_a_choice(lab: Lab) -> None:
    found = lab.search_lambda(SMALL, SearchSettings(between=(1e-4, 1e-1), trials=3, fine=1, coarse=True, final=True))
    assert [stage for stage, _ in found.stages] == ["coarse", "fine"]
    assert found.choice is not None and found.choice.chosen.lam in {
        r.config.lam for _, runs in found.stages for r in runs
    }
    assert [run.config.lam for run in found.final] == [found.choice.chosen.lam]
    assert [lab.store.studies.get(number).parent for number in found.studies] == [None, found.studies[0]]
    tried = {run.config.lam: run.validation_accuracy for _, runs in found.stages for run in runs}
    assert found.choice.chosen.lam in tried
    assert found.choice.best.accuracy == max(value for value in tried.values() if value is not None)


def test_a_sweep_has_every_sigma_without_and_with_bn(lab: Lab) -> None:
    runs = lab.runs_of(lab.sigma_sweep(SMALL, (0.1, 0.01)))
    assert [(run.config.batch_norm, run.config.sigma) for run in runs] == [
        (False, 0.1), (False, 0.01), (True, 0.1), (True, 0.01),
    ]  # fmt: skip


def test_gradients_are_checked_and_stored(lab: Lab) -> None:
    checks = lab.check_gradients(TrainConfig(hidden=(4,), batch_norm=True), CheckSettings(images=5, dims=6))
    assert [check.configs[0].lam for check in checks] == [0.0, 0.005]
    assert all(error.passed and error.max_absolute < 1e-7 for check in checks for error in check.errors)
    assert lab.store.gradient_checks.suite() == checks


def test_stored_networks_are_evaluated_again(lab: Lab) -> None:
    runs = [lab.train(SMALL), lab.train(TrainConfig(**{**SMALL.__dict__, "seed": 1, "order_seed": 0}))]
    again, same = lab.evaluate([run.id for run in runs])
    assert [run.id for run in again] == [1, 2]
    assert [one.test_accuracy for one in same] == [run.test_accuracy for run in runs]
    _, [ensemble] = lab.evaluate([1, 2], EvaluationSettings(flips=True), ensemble=True)
    assert (ensemble.runs, ensemble.flips) == ([1, 2], True)
    assert lab.store.evaluations.of_runs([1])[-1] == ensemble


@pytest.mark.parametrize("changed", ["checkpoint_sha256 = 'another'", None], ids=["trained further", "deleted"])
def test_an_evaluation_of_a_network_that_changes_meanwhile_is_refused(
    lab: Lab, tmp_path: Path, changed: str | None
) -> None:
    """It was recorded beside the accuracy of the later network, as if it were that of it."""

    class Meanwhile(Observer):
        def warn(self, message: str) -> None:
            if message.startswith("run 1 is not complete"):  # its network is loaded
                execute(lab.store.path, f"UPDATE runs SET {changed}" if changed else "DELETE FROM runs")

    lab.train(SMALL)
    execute(lab.store.path, "UPDATE runs SET state = 'interrupted'")
    other = Lab(lab.store.path, data="synthetic", observer=Meanwhile())
    with pytest.raises(StoreError, match=r"^run 1 was trained further or deleted meanwhile: evaluate it after that$"):
        other.evaluate([1])
    assert lab.store.evaluations.of_runs([1]) == []


def test_an_evaluation_is_of_the_network_of_the_moment(lab: Lab) -> None:
    """Of several runs, the last ones are trained further while the first ones are evaluated."""

    class Meanwhile(Observer):
        def warn(self, message: str) -> None:
            if message.startswith("run 1 is not complete"):
                trained.append(lab.resume(2))

    trained = list[Run]()
    for seed in (0, 1):
        with pytest.raises(Interrupted):
            lab.train(
                replace(SMALL, seed=seed),
                on_evaluation=lambda one: os.kill(os.getpid(), signal.SIGINT) if one.epoch == 1 else None,
            )
    runs, found = Lab(lab.store.path, data="synthetic", observer=Meanwhile()).evaluate([1, 2])
    assert [run.state for run in runs] == ["interrupted", "complete"]
    assert runs[1] == trained[0]
    assert found[1].test_accuracy == trained[0].test_accuracy
    assert [one.runs for one in lab.store.evaluations.of_runs([1, 2])] == [[1], [2]]


def test_pictures_are_classified(lab: Lab, tmp_path: Path) -> None:
    from PIL import Image

    lab.train(SMALL)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    found = lab.predict([tmp_path / "a.png"], run="last")
    [(name, probabilities)] = found.pictures
    assert name == str(tmp_path / "a.png")
    assert sum(probabilities.values()) == pytest.approx(1) and len(probabilities) == 10
    [checkpoint] = tmp_path.glob("*/*.npz")
    alone = lab.predict(tmp_path / "a.png", checkpoint=checkpoint)
    assert alone.pictures == found.pictures  # a Lab that names its images takes a checkpoint, which needs none


def test_queries(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database here"):
        lab.best()
    runs = [lab.train(SMALL), lab.train(TrainConfig(**{**SMALL.__dict__, "lam": 0.3}))]
    ranked = sorted(runs, key=lambda run: -(run.validation_accuracy or 0))
    assert [run.id for run in lab.best(2)] == [run.id for run in ranked]
    assert lab.run("best") == ranked[0]
    assert lab.run(1) == lab.store.runs.get(1)
    lab.store.close()
    assert lab.run() == runs[-1]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["C:\\x.db", "a\\b", "\\x41", "a\nb", "a?mode=ro", "50%41#", "\udcff.db", "-.db"])
def test_a_database_can_have_any_name(tmp_path: Path, name: str) -> None:
    lab = Lab(tmp_path / name, data="synthetic")
    run = lab.train(replace(SMALL, epochs=0))
    assert (run.state, lab.evaluate(run)[1][0].test_loss) == ("complete", pytest.approx(run.test_loss))
    assert lab.store.upkeep.check()[0] == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="psutil lists the open files of POSIX")
def test_no_database_stays_open_behind_a_call(tmp_path: Path) -> None:
    """SQLite's connection refers to itself: without a close, it waits for the collector, which may be off."""
    lab, files = Lab(tmp_path / "lab.db", data="synthetic", jobs=1), psutil.Process().open_files
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    calls: list[Callable[[], object]] = [
        lambda: lab.train(replace(SMALL, epochs=0)), lambda: lab.rerun(1), lambda: lab.evaluate(1),
        lambda: lab.predict(tmp_path / "a.png", 1), lambda: lab.export(1, file=tmp_path / "network.npz"),
        lambda: lab.repeat(replace(SMALL, epochs=0), 2), lab.plan_assignment,
    ]  # fmt: skip
    gc.collect()
    gc.disable()
    try:
        for call in calls:
            call()
            assert [one.path for one in files() if one.path == str(tmp_path / "lab.db")] == []
    finally:
        gc.enable()


def test_what_klcli_offers_is_imported_when_it_is_asked_for() -> None:
    assert klcli.Lab is Lab
    with pytest.raises(AttributeError, match="no attribute 'Labor'"):
        _ = klcli.Labor


SCRIPT = """
from klcli import Lab, SplitConfig, TrainConfig

config = TrainConfig(split=SplitConfig(subset=200), hidden=(12,), batch_size=20, step_epochs=1, cycles=1)
lab = Lab("lab.db", data="synthetic", jobs=2)
lab.train(config)
print(lab.sigma_sweep(config, (0.1, 0.01)).state, len(lab.store.runs.where("1")))

import multiprocessing
multiprocessing.set_start_method("spawn")  # refused once it is determined
"""


@pytest.mark.slow
@pytest.mark.parametrize(("file", "stdin"), [("script.py", ""), ("-", SCRIPT)])
def test_workers_do_not_begin_a_script_again(tmp_path: Path, file: str, stdin: str) -> None:
    """Neither one without `if __name__ == "__main__":`, nor one from stdin, which they could not even find."""
    (tmp_path / "script.py").write_text(SCRIPT)
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "cwd": tmp_path}
    done = subprocess.run([sys.executable, file], input=stdin, check=False, **how)
    assert (done.stdout, done.stderr) == ("complete 5\n", "")


def states_of_a_study(lab: Lab) -> list[str]:
    return [run.state for run in lab.runs_of(lab.repeat(replace(SMALL, dtype="float64"), 2, vary="split"))]


@pytest.mark.slow
def test_a_process_of_a_pool_trains_a_study_of_several_jobs_by_itself(tmp_path: Path) -> None:
    """It is a daemon, which may start no processes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        lab = Lab(tmp_path / "lab.db", data="synthetic", jobs=2)
        assert pool.apply(states_of_a_study, [lab]) == ["complete", "complete"]


def endless_training(folder: Path) -> None:
    """A script that expects failures must not take a request to end for one, and go on."""
    with suppress(Exception):
        lab = Lab(folder / "lab.db", data="synthetic")
        lab.train(replace(SMALL, cycles=10_000), on_evaluation=lambda _: (folder / "begun").touch())
    (folder / "went on").touch()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows ends a process without a signal")
@pytest.mark.parametrize("is_pool", [True, False])
def test_a_process_without_a_handler_ends_once_its_run_is_recorded(tmp_path: Path, is_pool: bool) -> None:
    """A pool sends one SIGTERM and waits without end for its workers, which took Interrupted for a result."""
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(1) if is_pool else None
    process = pool._pool[0] if pool else context.Process(target=endless_training, args=[tmp_path])  # type: ignore[attr-defined]
    if pool:
        pool.apply_async(endless_training, [tmp_path])
    else:
        process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    ending = threading.Thread(target=pool.terminate if pool else process.terminate, daemon=True)
    ending.start()
    ending.join(60)  # of two threads that wait for one process, one would not learn how it ended
    is_waiting = ending.is_alive()
    process.join(60)
    code = process.exitcode
    process.kill()
    assert (code, is_waiting, [*tmp_path.glob("went*")]) == (-signal.SIGTERM, False, [])
    [run] = Lab(tmp_path / "lab.db").store.runs.where("1")
    assert (run.state, run.error) == ("interrupted", "terminated")


@pytest.mark.slow
def test_the_cells_of_a_notebook_give_the_bits_of_the_command_line(tmp_path: Path, klcli: Any) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [
        "from klcli import Lab, SplitConfig, TrainConfig\nlab = Lab('notebook.db', data='synthetic')",
        "seen = []\nconfig = TrainConfig(split=SplitConfig(subset=300), hidden=(20, 10), batch_norm=True, epochs=2)\n"
        "run = lab.train(config, on_evaluation=seen.append)",
        "import json\nprint(json.dumps([run.train_cost, run.validation_loss, run.test_loss, len(seen)]))",
        "import os, signal, threading\nfrom klcli.errors import Interrupted\n"
        "try:\n    lab.train(config, on_evaluation=lambda one: os.kill(os.getpid(), signal.SIGINT))\n"
        "except Interrupted as stopped:\n    print(stopped)",
        "again = lab.resume()\nprint(json.dumps([again.train_cost, again.validation_loss, again.test_loss, again.id]))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [cell.outputs[0]["text"].strip() if cell.outputs else "" for cell in notebook.cells]
    options = "--data synthetic --subset 300 --hidden 20 10 --bn --epochs 2 --json --quiet"
    run = json.loads(klcli("train", *options.split()).stdout)["run"]
    bits = [run["train_cost"], run["validation_loss"], run["test_loss"]]
    assert json.loads(printed[2]) == [*bits, 3]  # two epochs, and before the first update
    assert printed[3].startswith("interrupted: run 2 has no epoch yet, continue with `")
    assert json.loads(printed[4]) == [*bits, 2]
