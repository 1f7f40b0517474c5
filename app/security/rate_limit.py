"""How often one client may ask. Knows nothing of HTTP; counts in this process alone."""

import ipaddress
import math
import time

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from torchlight.app.errors import TooManyRequests

MAX_CLIENTS = 4096  # the library looks through all of them at each request: 0.7 ms for as many


class RateLimit:
    """A sliding window for each client: two counters, however high the limit is.

    At most ``max_clients`` are remembered; of more, those that asked last.
    """

    def __init__(self, limit: str, max_clients: int = MAX_CLIENTS) -> None:
        """Take a limit such as ``60/minute``."""
        self._limit = limit
        self._item = parse(limit)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._clients: dict[str, None] = {}  # the one that asked least lately first
        self._max_clients = max_clients

    async def hit(self, client: str) -> None:
        """Count a request.

        Raises:
            TooManyRequests: it is one too many; it does not count then.
        """
        self._clients.pop(client, None)
        self._clients[client] = None
        if len(self._clients) > self._max_clients:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            await self._limiter.clear(self._item, oldest)
        if not await self._limiter.hit(self._item, client):
            window = await self._limiter.get_window_stats(self._item, client)
            wait_s = max(1, math.ceil(window.reset_time - time.time()))
            raise TooManyRequests(
                f"you may ask {self._limit} of this service; ask again in {wait_s} s, or ask its operator for more",
                wait_s,
            )


def network_of(address: str) -> str:
    """Return whom an address stands for: itself, or of IPv6 the /64, which one customer has to himself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a name, as of a Unix socket or a test
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
