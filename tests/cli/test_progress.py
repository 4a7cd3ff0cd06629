"""The time left, compared with a simulation of workers; and the plain lines of a log."""

import math
import re

import pytest
from command import Klcli, succeeded
from rich.progress import Progress, Task

from klcli.cli import progress
from klcli.cli.invocation import Invocation
from klcli.cli.progress import Forecast, Step, StudyProgress, TrainingProgress
from klcli.settings.train_config import TrainConfig
from klcli.studies.execution import ImagesReference, StackOutcome, StackTask
from klcli.training.budget import budget_of

POLL = 0.2  # seconds between two readings of the workers


def simulated(totals: list[int], done: list[int], jobs: int, pace: float, start: float) -> list[list[tuple[int, int]]]:
    """Return, for every poll, the index and the updates of each stack that has begun; workers take stacks in order.

    A worker needs `start` seconds before its first stack, and `pace` seconds per update.
    """
    free, spans = [start] * jobs, []
    for index, total in enumerate(totals):
        worker = free.index(min(free))
        end = free[worker] + (total - done[index]) * pace
        spans.append((index, free[worker], end))
        free[worker] = end
    return [
        [
            (index, done[index] + round((min(poll * POLL, end) - begun) / pace))
            for index, begun, end in spans
            if poll * POLL > begun + pace
        ]
        for poll in range(int(max(free) / POLL) + 2)
    ]


@pytest.mark.parametrize(
    ("totals", "done", "jobs"),
    [
        ([9000], [0], 1), ([9000], [4000], 1), ([900] * 10, [0] * 10, 1), ([3000] * 3, [0] * 3, 2),
        ([3000, 1000, 2000, 4000, 500], [0] * 5, 2), ([3000] * 5, [0, 2000, 0, 2999, 0], 2), ([700] * 9, [0] * 9, 4),
    ],
)  # fmt: skip
def test_the_time_left_is_right_within_a_tenth_after_the_first_tenth(
    totals: list[int], done: list[int], jobs: int
) -> None:
    forecast, polls, ended = Forecast(totals, done), simulated(totals, done, jobs, 0.013, 5.0), set[int]()
    length, tested = len(polls) * POLL, 0
    for number, begun in enumerate(polls):
        now = number * POLL
        for index, step in begun:
            if index in ended:
                continue
            if step >= totals[index]:
                ended.add(index)
                forecast.end(index, now)
            else:
                forecast.update(index, step, now)
        if now > 5 + 0.1 * (length - 5) and len(ended) < len(totals):
            seconds = forecast.seconds_left(now)
            assert seconds is not None
            assert seconds == pytest.approx(length - now, rel=0.1, abs=3 * POLL)
            tested += 1
    assert tested > 20


def test_a_stack_that_diverged_adds_no_updates() -> None:
    forecast = Forecast([1000, 1000], [0, 0])
    for step in (1, 100):
        forecast.update(0, step, step / 10)
    forecast.end(0, 10.0, diverged=True)
    assert forecast.seconds_left(10.0) == pytest.approx(1000 * 0.1, rel=0.01)
    assert forecast.line().startswith("100 of 1100 updates, ")


def test_a_step_whose_first_part_is_long_shows_its_time() -> None:
    step = Step(Invocation(), "checking entries", 1740)
    step._begun -= 12
    assert re.fullmatch(r"0 of 1740, \d\d\.\d s so far", step.words())
    step(870)
    assert re.fullmatch(r"870 of 1740, \d\d\.\d s left", step.words())


@pytest.mark.parametrize(
    ("stacks", "lines"),
    [
        ([[(1e-5, 0.01), (0.003, 0.01)], [(0.1, 0.01)]], ["2 x lambda 1e-05 to 0.003", "1 x lambda 0.1"]),
        ([[(1e-5, None), (0.003, None)], [(0.1, None)]], ["2 x lambda 1e-05 to 0.003", "1 x lambda 0.1"]),
        ([[(0.2, 0.1), (0.2, 0.01)], [(0.2, 0.001)]], ["2 x sigma 0.01 to 0.1 with BN", "1 x sigma 0.001 with BN"]),
        ([[(0.2, 0.1)] * 2], ["2 x sigma 0.1 with BN"]),
        ([[(0.2, 0.1)], [(0.3, 0.01)]], ["1 x sigma 0.1 with BN", "1 x sigma 0.01 with BN"]),
    ],
)
def test_the_line_of_a_stack_has_what_differs_in_the_study(
    stacks: list[list[tuple[float, float | None]]], lines: list[str]
) -> None:
    """In a search, all networks may have one sigma."""
    tasks, images = [], ImagesReference("", "", "")
    for number, stack in enumerate(stacks):
        ways = [(lam, sigma, "he" if sigma is None else "normal") for lam, sigma in stack]
        own = [TrainConfig(lam=lam, sigma=sigma, initializer=way, batch_norm=True) for lam, sigma, way in ways]
        tasks.append(StackTask((number,), tuple(own), images, evaluate_test=False, threads=1))
    shown = StudyProgress(Invocation(quiet=True), "study 1", tasks, [9] * len(tasks))
    assert [task.description for task in shown.bar.tasks[1:]] == [f"  {n}: {one}" for n, one in enumerate(lines, 1)]


def test_the_line_of_a_stack_of_repeats_has_its_seeds() -> None:
    images = ImagesReference("", "", "")
    stacks = [[(1023, 0.1), (1024, 0.1)], [(1025, 0.1)]]
    for lam, lines in ((0.1, ["2 x seed 1023 to 1024", "1 x seed 1025"]), (0.2, ["2 x lambda 0.1", "1 x lambda 0.2"])):
        stacks[1] = [(1025, lam)]
        tasks = [
            StackTask((i,), tuple(TrainConfig(seed=n, lam=x) for n, x in own), images, evaluate_test=False, threads=1)
            for i, own in enumerate(stacks)
        ]
        shown = StudyProgress(Invocation(quiet=True), "study 1", tasks, [9] * len(tasks))
        assert [task.description for task in shown.bar.tasks[1:]] == [f"  {n}: {one}" for n, one in enumerate(lines, 1)]


@pytest.mark.parametrize("count", [3, 300])
def test_the_bar_of_a_study_adds_up_its_stacks_from_one_list(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """rich makes a new list each time: with one per stack, a redraw took a time that grew with their square."""
    config, images = TrainConfig(), ImagesReference("", "", "")
    tasks = [StackTask((i,), (config,), images, evaluate_test=False, threads=1) for i in range(count)]
    shown = StudyProgress(Invocation(quiet=True), "study 1", tasks, range(1, count + 1))
    lists, tasks_of = 0, Progress.tasks.fget

    def counted(bar: Progress) -> list[Task]:
        nonlocal lists
        lists += 1
        return tasks_of(bar)

    monkeypatch.setattr(Progress, "tasks", property(counted))
    shown.on_outcome(StackOutcome((1,), [], 1.0, {}))
    shown.on_outcome(StackOutcome((2,), [], 1.0, {}))
    assert lists == 2
    assert shown.bar.tasks[0].completed == 2 + 3


def test_the_best_accuracy_of_a_study_is_that_of_all_its_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    """Each stack reports its own best."""
    config, images = TrainConfig(), ImagesReference("", "", "")
    tasks = [StackTask((i,), (config,), images, evaluate_test=False, threads=1) for i in range(2)]
    shown = StudyProgress(Invocation(), "study 1", tasks, [9, 9])
    for index, best, is_due in ((0, 0.2, True), (0, 0.3, False), (1, 0.1, True), (1, 0.2, True), (1, 0.4, True)):
        shown._pace.due = 0.0 if is_due else math.inf
        shown.on_progress(index, 1, best)
    found = re.findall(r"best validation accuracy (0\.\d{4})$", capfd.readouterr().err, re.MULTILINE)
    assert found == ["0.2000", "0.3000", "0.3000", "0.4000"]


@pytest.mark.parametrize("width", [80, 100, 111, 112, 127, 128])
def test_the_live_bar_shows_the_digits_of_a_small_eta(width: int) -> None:
    """With Adam, eta_max is about 0.001, and a range test begins at 1e-05."""
    (invocation := Invocation()).err.width = width
    shown = TrainingProgress(invocation, budget_of(TrainConfig(eta_min=2e-5, eta_max=1e-3), 45000))
    text = "epoch 0.0/20 validation 0.1234 12 min 59 s left "
    shown.bar.update(
        shown.bar.task_ids[0], validation="0.1234", train="0.1234", cost="2.3456", speed="12345", left=text[31:47]
    )
    with invocation.err.capture() as printed:
        invocation.err.print(shown.bar.make_tasks_table(shown.bar.tasks))
    [line] = printed.get().splitlines()
    assert line.startswith("epoch 0.0/20 validation 0.1234 12 min 59 s left ") and len(line.rstrip()) <= width
    assert ("eta 2e-05" in line) is (width >= 112)
    assert ("12345 updates/s" in line) is (width >= 128)


@pytest.mark.slow
def test_a_study_whose_stderr_is_a_file_prints_lines_between_its_stacks(
    here: Klcli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    words = "train --data synthetic --subset 2000 --hidden 100 --epochs 30 --repeats 2 --jobs 1"
    done = succeeded(here(*words.split()))
    line = r"study \d+ train: (\d+) of (\d+) updates, [\d.]+ s left, best validation accuracy 0\.\d{4}"
    found = [match for text in done.stderr.splitlines() if (match := re.fullmatch(line, text))]
    assert found, done.stderr
    steps = [int(match[1]) for match in found]
    assert steps == sorted(steps)
    assert {int(match[2]) for match in found} == {2 * 30 * 20}
    assert re.search(r"stack 1 done \(1 of 2\), best validation 0\.\d{4}, [\d.]+ s, [\d.]+ s left", done.stderr)


@pytest.mark.usefixtures("unrendered")
def test_a_long_epoch_prints_lines_of_its_own(here: Klcli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    done = succeeded(here(*["train", "--data", "synthetic", "--subset", "400", "--hidden", "10", "--epochs", "2"]))
    assert re.search(r"^2 of 8 updates, [\d.]+ s left, validation 0\.\d{4}$", done.stderr, re.MULTILINE)
    assert re.search(r"^epoch 1/2  cost .* s  [\d.]+ s left$", done.stderr, re.MULTILINE)
    assert re.search(r"^epoch 2/2  cost .* eta [\d.]+  [\d.]+ s$", done.stderr, re.MULTILINE)
