"""Asks a DICOMweb archive for new chest radiographs, and fetches them.

DICOMweb cannot be asked for what has arrived since a time, only for dates of studies. So the
studies of the last days are listed, and one is looked into when its number of instances has changed
since.
"""

import datetime
import sqlite3
import time
from collections.abc import Callable

from pneumojax.data.files import headers
from pneumojax.serving import events
from pneumojax.serving.dicomweb import Archive, Failed, TooLarge
from pneumojax.serving.health import Figures
from pneumojax.serving.inbox import Inbox, Refused, split
from pneumojax.serving.queue import Queue, digest
from pneumojax.serving.settings import Poll


class Poller:
    """Takes images from one archive.

    Args:
      settings: the table [poll].
      queue: of images; it also keeps the cursor.
      inbox: of their files.
      figures: what is counted.
      is_ending: whether to stop after the file at hand.
    """

    def __init__(
        self,
        settings: Poll,
        queue: Queue,
        inbox: Inbox,
        figures: Figures,
        is_ending: Callable[[], bool],
    ):
        self._settings, self._queue, self._inbox = settings, queue, inbox
        self._figures, self._is_ending = figures, is_ending
        self._archive = Archive(
            settings.url, settings.login, settings.tls, settings.timeout_seconds
        )
        self._not_before, self.is_reachable = 0.0, True

    def step(self) -> bool:
        """Asks, if it is time to; returns whether anything was fetched."""
        if time.monotonic() < self._not_before:
            return False
        fetched, problem = 0, ''
        try:
            for modality in self._settings.modalities:
                fetched += self._poll(modality)
        except Failed as error:
            problem = str(error)
        except (OSError, sqlite3.OperationalError) as error:
            problem = f'the disk is full or cannot be written ({type(error).__name__})'
        self._figures.count('polls')
        self.is_reachable = not problem
        if problem:
            self._figures.count('polls_failed')
            events.problem('polling failed', why=problem)
        self._not_before = time.monotonic() + self._settings.every_seconds
        return fetched > 0

    def _poll(self, modality: str) -> int:
        since = datetime.date.today() - datetime.timedelta(days=self._settings.days)
        fetched = 0
        for study, count in self._archive.studies(modality, since.strftime('%Y%m%d')).items():
            key = digest(f'{modality} {study}')
            if count >= 0 and self._queue.polled_instances(key) == count:
                continue
            is_complete = True
            for series, sop_class, instance in self._archive.instances(study, modality):
                if self._is_ending():
                    return fetched
                is_other = sop_class and sop_class not in headers.STORAGE_CLASSES
                if is_other or self._is_known(instance):
                    continue
                try:
                    fetched += self._fetch(study, series, instance)
                except Failed as error:
                    if error.status is None:  # the archive itself is away
                        raise
                    is_complete = False  # the next poll tries this one again, after the others
                    events.problem('not fetched', why=str(error))
            if is_complete:
                self._queue.set_polled(key, count)
        return fetched

    def _is_known(self, instance: str) -> bool:
        key = digest(instance)
        return self._queue.has_instance(key) or self._queue.is_result(key)

    def _fetch(self, study: str, series: str, instance: str) -> bool:
        limit = self._settings.max_object_mb << 20
        try:
            content = self._archive.fetch(study, series, instance, limit)
            outcome, number = self._inbox.store(split(memoryview(content)))
        except (Refused, TooLarge) as error:
            self._figures.count('objects_refused')
            events.problem('object refused', why=str(error))
            return False
        self._figures.count(f'objects_{outcome.replace(" ", "_")}')
        events.event('fetched', image=number, outcome=outcome)
        return outcome == 'new'
