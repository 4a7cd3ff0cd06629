"""The number of cores that this process may use."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may use: by its affinity, and by the CPU quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the cores that the control groups of this process allow: cgroups of Linux, versions 1 and 2."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup", "cpu" if controllers else "")
        # In a container, the name may be that of the host, and only the root is there.
        for folder in (root / name.lstrip("/"), *(root / name.lstrip("/")).parents):
            files = [folder / file for file in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")]
            with suppress(OSError, ValueError):  # no such file; "max" is no limit
                texts = [file.read_text(encoding="utf-8") for file in files if file.exists()]
                quota, period = " ".join(texts).split()
                if int(quota) > 0:
                    yield int(quota) / int(period)
