"""Processor cores, and work in threads with results in order and a bound on memory."""

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def ordered_map(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Like `pool.map`, but lazy: at most `ahead` items are in progress or waiting to be taken.

    Args:
      pool: does the work.
      function: of one item. An exception is raised when its result is due.
      items: any number, taken one by one.
      ahead: 1 or more.
    """
    items = iter(items)
    pending = collections.deque(
        pool.submit(function, item) for item in itertools.islice(items, ahead)
    )
    try:
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
    finally:
        for future in pending:
            future.cancel()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
