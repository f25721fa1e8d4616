"""Deletes the files of images whose results every destination has confirmed, after a while.

Only files that the queue names are deleted. What is dead or waiting is kept.
"""

import pathlib
import time

from pneumojax.serving import events
from pneumojax.serving.inbox import Inbox
from pneumojax.serving.queue import Queue
from pneumojax.serving.settings import Node

_EVERY = 10.0  # seconds


class Keeper:
    """Deletes what is due.

    Args:
      settings: the table [node].
      queue: which knows what is finished.
      inbox: of images.
      results: folder of results.
    """

    def __init__(self, settings: Node, queue: Queue, inbox: Inbox, results: pathlib.Path):
        self._settings, self._queue, self._inbox, self._results = settings, queue, inbox, results
        self._not_before = 0.0

    def step(self) -> bool:
        """Deletes some files; returns whether there may be more."""
        if time.monotonic() < self._not_before:
            return False
        now = time.time()
        finished = self._queue.finished_before(now - 3600 * self._settings.keep_hours)
        for image, results in finished:
            self._inbox.path(image.name).unlink(missing_ok=True)
            for file in results:
                (self._results / file).unlink(missing_ok=True)
            self._queue.without_files(image)
        if finished:
            events.event('deleted', images=len(finished))
            return True
        self._queue.forget_before(now - 86400 * self._settings.remember_days)
        self._not_before = time.monotonic() + _EVERY
        return False
