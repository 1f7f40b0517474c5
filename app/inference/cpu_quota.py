"""How many CPUs this process may use: in a container that is its quota, not the host's number. Knows no torch."""

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Return how many threads can compute at a time, at least 1.

    That is the number of CPUs the process may run on, or the quota of its control group or of one around it if that is
    less. A part of a CPU does not count: a thread more than the quota would be stopped for a while in each period.

    Args:
        root: where ``proc`` and ``sys`` are.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max), Documentation/scheduler/sched-bwc.rst (version 1).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _quotas(root))]))


def cpus_per_process(processes: int) -> int:
    """Return how many threads each of so many processes may compute with, at least 1."""
    return max(1, available_cpus() // processes)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limit in CPUs of each control group around this process that has one."""
    for folder in _groups(root):
        version_1 = (folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
        words = _read_words(folder / "cpu.max") or [word for path in version_1 for word in _read_words(path)]
        if len(words) == 2 and words[0].isdecimal():  # else it is "max" or -1, which is no limit
            yield int(words[0]) / int(words[1])


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups for CPU time that hold this process, outermost first.

    Inside a container the inner ones are often not to be seen; then the mounted folder itself is the container's own.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            folder = root / "sys/fs/cgroup" / controllers
            yield folder
            for name in Path(path.lstrip("/")).parts:
                folder /= name
                yield folder


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
