"""The second core: the same results, wherever the work is done."""

import os
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from klcli import second_core
from klcli.second_core import ahead, both


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest, use_cores: Callable[[int], None]) -> int:
    use_cores(request.param)
    return int(request.param)


def test_both_give_their_results_in_order(cores: int) -> None:
    assert both(lambda: "first", lambda: "second") == ("first", "second")


def test_work_ahead_is_done_once(cores: int) -> None:
    done: list[int] = []
    result = ahead(lambda: done.append(1) or "ready")
    assert result() == "ready"
    assert done == [1]


def test_two_cores_work_at_once(use_cores: Callable[[int], None]) -> None:
    use_cores(2)
    meeting = threading.Barrier(2, timeout=10)  # nobody passes alone
    both(meeting.wait, meeting.wait)


def test_work_that_nobody_begins_is_done_here(use_cores: Callable[[int], None]) -> None:
    use_cores(2)
    end = threading.Event()
    busy = ahead(end.wait)
    where = ahead(threading.get_ident)
    assert where() == threading.get_ident()
    end.set()
    assert busy()


def test_an_error_of_either_part_arrives(cores: int) -> None:
    def fail() -> None:
        raise ValueError("no")

    finished: list[int] = []

    def slow() -> None:
        time.sleep(0.02)
        finished.append(1)

    with pytest.raises(ValueError, match="no"):
        both(slow, fail)
    with pytest.raises(ValueError, match="no"):
        both(fail, slow)
    assert finished == [1, 1]  # nothing goes on behind the back of whoever handles the error


def test_the_errstate_of_numpy_comes_along(cores: int, recwarn: pytest.WarningsRecorder) -> None:
    huge = np.full((4, 4), 1e38, np.float32)
    with np.errstate(over="ignore"):
        both(lambda: huge @ huge, lambda: huge @ huge)
    assert not recwarn.list


def test_a_machine_with_one_core_has_no_second(
    monkeypatch: pytest.MonkeyPatch, use_cores: Callable[[int], None]
) -> None:
    use_cores(1)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    second_core.use()
    assert ahead(threading.get_ident)() == threading.get_ident()
    assert not second_core._allowed.is_set()


def test_cores_without_the_help_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert second_core.cores() == len(psutil.Process().cpu_affinity())
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert second_core.cores() == 7
