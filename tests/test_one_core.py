"""Without a second core, this process does all the work."""

import os
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from klcli import second_core
from klcli.engine.products import multiply
from klcli.second_core import begin, ended, left, tell, then

MEGABYTE = 1 << 20


def test_without_leave_there_is_no_other_process(use_cores: Callable[[int], None]) -> None:
    use_cores(1)
    second_core.start(MEGABYTE)
    assert begin(os.getpid) is None
    assert then(multiply, out=np.ones(3), parts=3) is None
    assert not tell(os.getpid)
    assert not ended(None)
    assert list(left(None)) == [(0, 1)]


def test_a_machine_with_one_core_has_no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    second_core.use()
    assert not second_core.start(MEGABYTE)


def test_cores_without_the_help_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert second_core.cores() == len(psutil.Process().cpu_affinity())
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert second_core.cores() == 7
