"""Scheduling priority of threads: event loops first, then decoders, then the network. Knows nothing of torch."""

import contextlib
import os
import sys
import threading

# Niceness where two want one processor; event loops have 0. 10 gets a tenth of what 0 gets, and 19 a seventh of what
# 10 gets. The network comes after the decoders, so that what they make meanwhile becomes one batch.
DECODING, COMPUTING = 10, 19


def lower_priority(niceness: int) -> None:
    """Give the current thread at least this niceness: its work takes long, and event loops have to answer at once.

    Threads and processes that it starts inherit it. Only on Linux has a thread a priority of its own; elsewhere this
    does nothing.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))
