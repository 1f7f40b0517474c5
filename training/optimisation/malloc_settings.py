"""A setting of glibc's malloc, for memory that a training step frees."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 1 << 30  # bytes; more than any tensor of a step


def raise_malloc_thresholds() -> None:
    """Set glibc to keep what is freed for the next allocation instead of giving it back to the system.

    A training step frees and takes the same hundreds of megabytes, and each page given back costs a page fault:
    50,000 to 100,000 a step, 5 to 25% of the time (docs/log.md, 2026-11-24). For the whole process, and nothing where
    the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, LARGE)
