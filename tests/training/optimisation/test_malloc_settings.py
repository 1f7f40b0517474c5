"""Freed memory stays with the process, so that a training step does not fault it in again."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from torchlight.training.optimisation.malloc_settings import raise_malloc_thresholds

def step():
    for _ in range(4):
        torch.ones(16_000_000)  # 64 MB, taken and freed

if "keep" in sys.argv:
    raise_malloc_thresholds()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    process = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
    return int(process.stdout)


@pytest.mark.slow  # that the C library takes the setting is tested quickly, with the other private parts
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_large_tensors_are_not_faulted_in_again() -> None:
    assert page_faults("keep") < page_faults() / 3
