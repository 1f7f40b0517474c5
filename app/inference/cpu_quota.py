"""How many CPUs this process may really use: in a container the host's number is not it. Knows nothing of torch."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

# Who goes first on a processor that two want, event loops (0) before all: 10 gets a tenth of what 0 gets, and 19 a
# seventh of what 10 gets. The network comes after the decoders, so that what they make meanwhile is one batch.
DECODING, COMPUTING = 10, 19


def available(root: Path = Path("/")) -> int:
    """Return how many threads can compute at a time, at least 1.

    That is the number of CPUs the process may run on, or the quota of its control group or of one around it if that is
    less. A part of a CPU does not count: a thread more than the quota would be stopped for a while in each period.

    Args:
        root: where ``proc`` and ``sys`` are.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max), Documentation/scheduler/sched-bwc.rst (version 1).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _quotas(root))]))


def share(processes: int) -> int:
    """Return how many threads each of so many processes may compute with, at least 1."""
    return max(1, available() // processes)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the limit in CPUs of each control group around this process that has one."""
    for folder in _groups(root):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
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


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def compute_last() -> None:
    """Let event loops and decoders go before this thread."""
    step_back(COMPUTING)


def step_back(niceness: int) -> None:
    """Let others go first: what this thread computes takes long, and event loops have to answer at once.

    On Linux alone a thread has a priority of its own. Threads and processes that it starts have the same.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))
