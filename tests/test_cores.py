"""The number of cores: affinity, and the quota of a container, which this machine enforces."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from klcli.training.cores import cores

V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PRINT = "from klcli.training.cores import cores; print(cores())"


@pytest.fixture
def group() -> Iterator[Path]:
    root = V1 if V1.is_dir() else V2
    folder = root / f"klcli-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    yield folder
    folder.rmdir()


@pytest.mark.parametrize("quota", [30_000, 100_000, 150_000, 10_000_000])
def test_the_quota_of_a_container_is_respected(group: Path, quota: int) -> None:
    mine = cores_in(group)  # fewer than the affinity if all groups are in a container with a quota
    try:
        if group.parent == V1:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} 100000")
    except OSError:
        pytest.skip("no quota can be set here")
    expected = {30_000: 1, 100_000: 1, 150_000: min(mine, 2), 10_000_000: mine}[quota]
    assert cores_in(group) == expected


def cores_in(group: Path) -> int:
    enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    command = ["sh", "-c", enter, "-", sys.executable, "-c", PRINT]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_affinity_is_respected() -> None:
    mine = os.sched_getaffinity(0)
    assert 1 <= cores() <= len(mine)
    one = f"import os; os.sched_setaffinity(0, {{{min(mine)}}}); {PRINT}"
    assert subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, check=True).stdout == "1\n"


def test_cores_without_the_help_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() <= 7
