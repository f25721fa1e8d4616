"""Predicts one image of the queue after the other, with the network kept loaded."""

import errno
import pathlib
from collections.abc import Sequence

import pydicom

from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict_file
from pneumojax.prediction.streaming import Item
from pneumojax.serving import events
from pneumojax.serving.health import Figures
from pneumojax.serving.inbox import Inbox
from pneumojax.serving.queue import Image, Queue, digest
from pneumojax.serving.settings import Node

# What is wrong with the disk, and not with the image.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
         errno.EMFILE, errno.ENFILE)  # fmt: skip
_DISK_WAIT = 10.0  # seconds until the next attempt where the disk is full


class Worker:
    """Makes results of images.

    Args:
      queue: of images.
      inbox: of their files.
      results: folder of results.
      ensemble: what predicts.
      options: which results.
      settings: the table [node].
      destinations: names of where each result is to be sent.
      figures: what is counted.
    """

    def __init__(
        self,
        queue: Queue,
        inbox: Inbox,
        results: pathlib.Path,
        ensemble: Ensemble,
        options: Options,
        settings: Node,
        destinations: Sequence[str],
        figures: Figures,
    ):
        self._queue, self._inbox, self._results = queue, inbox, results
        self._ensemble, self._options, self._settings = ensemble, options, settings
        self._destinations, self._figures = destinations, figures

    def step(self) -> bool:
        """Predicts an image that is due; returns whether there was one.

        Raises:
          OSError, sqlite3.OperationalError: the disk is full, or cannot be written.
        """
        self._inbox.check_space()
        image = self._queue.begin_image(self._settings.quiet_seconds)
        if image is None:
            return False
        path = self._inbox.path(image.name)
        item = Item(str(path), path.name, image.name)
        try:
            row = predict_file(self._ensemble, item, self._results, self._options)
        # Anything may go wrong with a hostile image, and the next one must be predicted all the
        # same. Messages of libraries may quote the image, so only the type is passed on.
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                self._queue.postponed(image, _DISK_WAIT)
                events.problem('prediction postponed', image=image.number, why=error.strerror)
            else:
                self._failed(image, type(error).__name__)
            return True
        if row['status'] == 'skipped':
            self._queue.skipped(image, row['reason'])
            self._figures.count('images_skipped')
            events.event('skipped', image=image.number, why=row['reason'])
        elif row['status'] == 'error':
            self._failed(image, row['reason'])
        else:
            files = [(file, self._instance(file)) for file in row['written']]
            self._queue.predicted(image, files, self._destinations)
            self._figures.count('images_predicted')
            events.event('predicted', image=image.number, results=len(files))
        return True

    def _failed(self, image: Image, reason: str) -> None:
        is_dead = self._queue.failed(image, reason, self._settings.tries)
        self._figures.count('predictions_failed')
        what = 'dead letter' if is_dead else 'prediction failed'
        events.problem(what, image=image.number, tries=image.tries, why=reason)

    def _instance(self, file: str) -> str:
        return digest(str(pydicom.filereader.read_file_meta_info(
            self._results / file
        ).MediaStorageSOPInstanceUID))  # fmt: skip
