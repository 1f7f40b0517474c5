"""How many uploads are being answered, and how many may be.

An upload above the limit is refused once its headers are read. That costs a tenth of reading its body and refusing it
at the queue; without it, a service that is asked ten times as much as it can answer would do nothing but refuse.
Uploads that still arrive do not count: they cost little, and slow clients would shut out others.
"""

import asyncio
from collections.abc import Callable

from torchlight.app.telemetry.logs import logger

LOG_INTERVAL_S = 1.0  # refusals come by the thousand: the log has their number once in this time


class UploadLimit:
    """The count of this process. Bound to the event loop that runs it.

    Args:
        limit: how many uploads may be answered at a time.
        on_shed: called for each upload that is refused, to count it as a request.
        is_draining: whether clients should go to another process.
    """

    def __init__(self, limit: int, *, on_shed: Callable[[], None], is_draining: Callable[[], bool]) -> None:
        self.limit = limit
        self.is_draining = is_draining
        self._on_shed = on_shed
        self._admitted = 0
        self._refused = 0  # since the last line in the log

    @property
    def is_reached(self) -> bool:
        """Whether one more is too many."""
        return self._admitted >= self.limit

    def admit(self) -> None:
        """Count an upload that is complete, until :meth:`release`."""
        self._admitted += 1

    def release(self) -> None:
        """Make room for another one."""
        self._admitted -= 1

    def refuse(self) -> None:
        """Count an upload that found no room."""
        self._on_shed()
        if self._refused == 0:
            asyncio.get_running_loop().call_later(LOG_INTERVAL_S, self._log_refusals)
        self._refused += 1

    def _log_refusals(self) -> None:
        logger.info("refused", extra={"facts": {"status": 503, "code": "overloaded", "requests": self._refused}})
        self._refused = 0
