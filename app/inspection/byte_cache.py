"""What was computed lately, bounded in bytes. Knows nothing of what it holds."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class ByteCache:
    """Keeps the values used last, as many as ``max_bytes`` hold. Any thread may use it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def find(self, key: Hashable, make: Callable[[], Value], measure: Callable[[Value], int]) -> Value:
        """Return the value of a key; what ``make`` returns if it is not here.

        Threads that miss the same key at once each make it.

        Args:
            measure: how many bytes a value takes; one that takes more than the bound is not kept.
        """
        kept: Value | None = self.get(key)
        if kept is not None:
            return kept
        value = make()
        self.put(key, value, measure(value))
        return value

    def get(self, key: Hashable) -> Any | None:
        """Return the value of a key, or None if it is not here."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: object, size: int) -> None:
        """Keep a value if it fits the bound; those not used for longest make room for it."""
        if size > self._max_bytes:
            return
        with self._lock:
            self.bytes -= self._entries.pop(key, (None, 0))[1]
            self._entries[key] = (value, size)
            self.bytes += size
            while self.bytes > self._max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self.bytes -= freed
