"""How many threads may compute: the affinity of the process, the quotas around it, and the share of a worker."""

import os
from pathlib import Path

import pytest

from torchlight.app.inference import cpu_quota

ALLOWED = 16


@pytest.fixture(autouse=True)
def _many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(ALLOWED)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/\n"}, ALLOWED),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, ALLOWED),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, ALLOWED),
        (
            {
                "proc/self/cgroup": "0::/pod/service\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/pod/service/cpu.max": "max 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n2:cpuset:/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/docker/not-to-be-seen-from-inside\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            ALLOWED,
        ),
        ({}, ALLOWED),
    ],
    ids=[
        "no quota file", "no quota", "quota", "part of a CPU", "less than one CPU", "more than there are",
        "quota of an outer group", "version 1", "version 1 from inside", "version 1 without quota", "not Linux",
    ],
)  # fmt: skip
def test_the_quota_bounds_the_threads(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert cpu_quota.available_cpus(write(tmp_path, files)) == expected


@pytest.mark.parametrize(("processes", "expected"), [(1, 4), (2, 2), (3, 1), (8, 1)])
def test_processes_share_them(monkeypatch: pytest.MonkeyPatch, processes: int, expected: int) -> None:
    monkeypatch.setattr(cpu_quota, "available_cpus", lambda: 4)
    assert cpu_quota.cpus_per_process(processes) == expected
