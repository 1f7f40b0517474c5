"""How many uploads are being answered, and how many may be.

One more is refused at its head, for a tenth of what it costs to read it and to refuse it at the queue: else a service
that is asked ten times as much as it can answer is busy with refusing. Uploads that still arrive do not count: they
cost little, and a slow line would shut out others. Knows nothing of HTTP.
"""

import asyncio
from collections.abc import Callable

from torchlight.app.telemetry.logs import logger

TELL_S = 1.0  # refusals come by the thousand: the log has their number once in this time


class Admission:
    """The count of this process. Bound to the event loop that runs it."""

    def __init__(self, limit: int, *, on_refusal: Callable[[], None], is_stopping: Callable[[], bool]) -> None:
        """Begin with none.

        Args:
            on_refusal: called for each upload that is refused.
            is_stopping: whether clients should go to another process.
        """
        self.limit = limit
        self.is_stopping = is_stopping
        self._on_refusal = on_refusal
        self._inside = 0
        self._untold = 0

    @property
    def is_full(self) -> bool:
        """Whether one more is too many."""
        return self._inside >= self.limit

    def enter(self) -> None:
        """Count an upload that is complete, until :meth:`leave`."""
        self._inside += 1

    def leave(self) -> None:
        """Make room for another one."""
        self._inside -= 1

    def refuse(self) -> None:
        """Note an upload that found no room."""
        self._on_refusal()
        if self._untold == 0:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)
        self._untold += 1

    def _tell(self) -> None:
        logger.info("refused", extra={"facts": {"status": 503, "code": "overloaded", "requests": self._untold}})
        self._untold = 0
