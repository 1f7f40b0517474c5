"""How many uploads are inside, from the head of the request to the end of its answer, and how many may be.

One more is refused at its head, for a tenth of what it costs to read it and to refuse it at the queue: else a service
that is asked ten times as much as it can answer is busy with refusing. Knows nothing of HTTP.
"""

import asyncio

from app.logs import logger

TELL_S = 1.0  # refusals come by the thousand: the log has their number once in this time


class Admission:
    """The count of this process. Bound to the event loop that runs it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._untold = 0

    def enter(self) -> bool:
        """Count an upload that comes, until :meth:`leave`; or return False, if there is no room for it."""
        if self._inside >= self.limit:
            self._note()
            return False
        self._inside += 1
        return True

    def leave(self) -> None:
        """Make room for another one."""
        self._inside -= 1

    def _note(self) -> None:
        if self._untold == 0:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)
        self._untold += 1

    def _tell(self) -> None:
        logger.info("refused", extra={"facts": {"status": 503, "code": "overloaded", "requests": self._untold}})
        self._untold = 0
