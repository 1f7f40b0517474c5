"""The cache of what was computed lately."""

import sys
from concurrent.futures import ThreadPoolExecutor

from torchlight.app.inspection.byte_cache import ByteCache


def find(cache: ByteCache, key: object, size: int = 10) -> bytes:
    return cache.find(key, lambda: bytes(size), len)


def has(cache: ByteCache, key: str) -> bool:
    """Whether the key's value need not be made again; makes none that stays."""
    return cache.find(key, lambda: None, lambda _: sys.maxsize) is not None


def test_value_is_made_once_while_it_is_kept() -> None:
    cache = ByteCache(100)
    assert find(cache, "a") is find(cache, "a")


def test_those_not_used_for_longest_make_room() -> None:
    cache = ByteCache(30)
    for key in ("a", "b", "c", "a", "d"):
        find(cache, key)
    assert [has(cache, key) for key in "abcd"] == [True, False, True, True]
    assert cache.bytes == 30


def test_value_larger_than_the_bound_is_returned_but_displaces_nothing() -> None:
    cache = ByteCache(30)
    find(cache, "a")
    assert len(find(cache, "big", 31)) == 31
    assert (has(cache, "a"), has(cache, "big")) == (True, False)


def test_value_put_again_counts_once() -> None:
    cache = ByteCache(30)
    cache.put("a", b"", 20)
    cache.put("a", b"", 5)
    assert cache.bytes == 5


def test_bound_of_zero_keeps_nothing() -> None:
    cache = ByteCache(0)
    find(cache, "a")
    assert not has(cache, "a")


def test_many_threads_leave_the_count_right() -> None:
    cache = ByteCache(500)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: find(cache, n % 70, n % 20), range(4000)))
    assert 0 <= cache.bytes <= 500
