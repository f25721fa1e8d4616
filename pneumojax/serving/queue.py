"""The durable queue: which image is where on its way from a peer to the archives.

    received -> predicted -> every result sent      an image's way, each step committed to the disk
             -> skipped                             no radiograph
             -> dead                                failed too often; kept, with its reason

Every step is done at least once: a process that is killed in the middle of one does it again. An
image is known by its SOP Instance UID and its content, so a second copy is recognised, and results
have UIDs that follow from the image, so an archive sees a result that is sent again as the same.

An attempt is counted before it is made. A file that kills the process is therefore tried no more
often than any other. UIDs are stored as hashes only.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pneumojax.serving.database import Database

_LONGEST_BACKOFF = 300.0  # seconds
_CUT_SHORT = 'the process ended while the image was predicted'
_WAITS_AT_MOST = 10  # times the quiet time, for an image of a study that never gets quiet


class Image(NamedTuple):
    """One received image."""

    number: int
    instance: str
    content: str
    received: float
    tries: int  # begun so far

    @property
    def name(self) -> str:
        """Names its files. It follows from the image alone, so that a second node agrees."""
        return file_name(self.instance, self.content)


class Delivery(NamedTuple):
    """One result on its way to one destination."""

    number: int
    image: int
    file: str
    tries: int
    received: float  # the image


class Dead(NamedTuple):
    """Something that failed too often, or a delivery to a destination that is gone."""

    kind: str  # 'image' or 'delivery'
    number: int
    image: str  # the name of the image's file in the inbox
    destination: str
    tries: int
    reason: str


def digest(content: str | memoryview) -> str:
    """A hash that stands for a UID or a data set."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:40]


def file_name(instance: str, content: str) -> str:
    """The stem of an image's files."""
    return f'{instance}-{content[:16]}'


class Queue(Database):
    """A SQLite file; safe to use from several threads. Other processes may read and retry.

    Args:
      path: of the file, which is made if it does not exist.
      clock: seconds since 1970.

    Raises:
      UsageError: it belongs to a later version, or is damaged.
    """

    def __init__(self, path: str | os.PathLike, clock: Callable[[], float] = time.time):
        super().__init__(path)
        self._clock = clock

    # --- receiving ------------------------------------------------------------------------------

    def is_known(self, instance: str, content: str) -> bool:
        """Whether an image was received before, by the hashes of its UID and data set."""
        query = 'SELECT 1 FROM images WHERE instance = ? AND content = ?'
        return bool(self.rows(query, instance, content))

    def has_instance(self, instance: str) -> bool:
        """Whether any content was received under the SOP Instance UID with this hash."""
        return bool(self.rows('SELECT 1 FROM images WHERE instance = ? LIMIT 1', instance))

    def is_known_file(self, instance: str, content: str) -> bool:
        """Whether there is an image of these parts of a file's name, see `file_name`."""
        query = 'SELECT 1 FROM images WHERE instance = ? AND substr(content, 1, 16) = ? LIMIT 1'
        return bool(self.rows(query, instance, content))

    def is_result(self, instance: str) -> bool:
        """Whether this SOP Instance UID is that of a result which this node made."""
        return bool(self.rows('SELECT 1 FROM deliveries WHERE instance = ? LIMIT 1', instance))

    def add(self, instance: str, content: str, study: str) -> int | None:
        """Takes up an image whose file is on the disk.

        Returns:
          Its number, or None if it is known already.
        """
        with self.transaction() as database:
            added = database.execute(
                'INSERT OR IGNORE INTO images (instance, content, study, received) '
                'VALUES (?, ?, ?, ?)',
                (instance, content, study, self._clock()),
            )
            return added.lastrowid if added.rowcount else None

    def polled_instances(self, study: str) -> int:
        """How many instances a study had when it was last polled; -1 if it never was."""
        rows = self.rows('SELECT instances FROM polled WHERE study = ?', study)
        return rows[0][0] if rows else -1

    def set_polled(self, study: str, instances: int) -> None:
        """Notes how many instances of a study have been dealt with."""
        with self.transaction() as database:
            database.execute(
                'INSERT OR REPLACE INTO polled VALUES (?, ?, ?)', (study, instances, self._clock())
            )

    # --- predicting -----------------------------------------------------------------------------

    def bury_unfinished(self, tries: int) -> list[int]:
        """Declares images dead that were tried so often; for the start, when no attempt is made.

        Returns:
          Their numbers.
        """
        with self.transaction() as database:
            rows = database.execute(
                "UPDATE images SET state = 'dead' WHERE state = 'received' AND tries >= ? "
                'RETURNING number',
                (tries,),
            ).fetchall()
        return [number for (number,) in rows]

    def begin_image(self, quiet: float) -> Image | None:
        """The next image to predict, whose attempt is counted; None if none is due.

        An image is due when nothing of its study has arrived for a while. Those that were tried
        before come last.

        Args:
          quiet: seconds of that while.
        """
        now = self._clock()
        with self.transaction() as database:
            # A clock that was set back must not stop the queue: what lies in the future is due.
            row = database.execute(
                'SELECT number, instance, content, received, tries FROM images AS one '
                "WHERE state = 'received' AND NOT due BETWEEN ? AND ? "
                'AND (NOT received BETWEEN ? AND ? OR NOT EXISTS (SELECT 1 FROM images AS other '
                'WHERE other.study = one.study AND other.received BETWEEN ? AND ?)) '
                'ORDER BY tries, received LIMIT 1',
                (
                    now + 1e-3, now + 2 * _LONGEST_BACKOFF,
                    now - _WAITS_AT_MOST * quiet, now + 1, now - quiet, now + 1,
                ),
            ).fetchone()  # fmt: skip
            if row is None:
                return None
            image = Image(*row)
            database.execute(
                'UPDATE images SET tries = tries + 1, due = ?, reason = ? WHERE number = ?',
                (now + _backoff(image.tries), _CUT_SHORT, image.number),
            )
            return image._replace(tries=image.tries + 1)

    def predicted(
        self, image: Image, results: Iterable[tuple[str, str]], destinations: Iterable[str]
    ) -> None:
        """An image is predicted, and its results are on the disk.

        Args:
          image: from `begin_image`.
          results: (file, hash of its SOP Instance UID) of each; none is possible.
          destinations: that each is to be sent to.
        """
        destinations = list(destinations)
        rows = [(image.number, *result, name) for result in results for name in destinations]
        with self.transaction() as database:
            database.execute(
                "UPDATE images SET state = 'predicted', reason = '', finished = ? WHERE number = ?",
                (None if rows else self._clock(), image.number),
            )
            database.executemany(
                'INSERT OR IGNORE INTO deliveries (image, file, instance, destination) '
                'VALUES (?, ?, ?, ?)',
                rows,
            )

    def skipped(self, image: Image, reason: str) -> None:
        """An image is no radiograph, so there will be no result."""
        with self.transaction() as database:
            database.execute(
                "UPDATE images SET state = 'skipped', reason = ?, finished = ? WHERE number = ?",
                (reason, self._clock(), image.number),
            )

    def failed(self, image: Image, reason: str, tries: int) -> bool:
        """An attempt failed; returns whether that was the last one, so that the image is dead."""
        with self.transaction() as database:
            is_dead = image.tries >= tries
            database.execute(
                'UPDATE images SET reason = ?, due = ?, state = ? WHERE number = ?',
                (
                    reason, self._clock() + _backoff(image.tries),
                    'dead' if is_dead else 'received', image.number,
                ),
            )  # fmt: skip
            return is_dead

    def postponed(self, image: Image, seconds: float) -> None:
        """An attempt could not be made, for a reason that is not the image's: it does not count."""
        with self.transaction() as database:
            database.execute(
                'UPDATE images SET tries = ?, due = ? WHERE number = ?',
                (image.tries - 1, self._clock() + seconds, image.number),
            )

    # --- sending --------------------------------------------------------------------------------

    def due_deliveries(self, destination: str, limit: int = 16) -> list[Delivery]:
        """Results to be sent to a destination now, the oldest first."""
        now = self._clock()
        rows = self.rows(
            'SELECT d.number, d.image, d.file, d.tries, i.received FROM deliveries AS d '
            'JOIN images AS i ON i.number = d.image '
            "WHERE d.destination = ? AND d.state = 'waiting' AND NOT d.due BETWEEN ? AND ? "
            'ORDER BY d.number LIMIT ?',
            destination, now + 1e-3, now + 2 * _LONGEST_BACKOFF, limit,
        )  # fmt: skip
        return [Delivery(*row) for row in rows]

    def sent(self, delivery: Delivery) -> None:
        """A destination has confirmed a result."""
        with self.transaction() as database:
            database.execute(
                "UPDATE deliveries SET state = 'sent', reason = '' WHERE number = ?",
                (delivery.number,),
            )
            database.execute(
                'UPDATE images SET finished = ? WHERE number = ? AND NOT EXISTS '
                "(SELECT 1 FROM deliveries WHERE image = ? AND state != 'sent')",
                (self._clock(), delivery.image, delivery.image),
            )

    def refused(self, delivery: Delivery, reason: str, tries: int) -> bool:
        """A destination refused a result; returns whether that was the last attempt."""
        is_dead = delivery.tries + 1 >= tries
        with self.transaction() as database:
            database.execute(
                'UPDATE deliveries SET tries = tries + 1, reason = ?, due = ?, state = ? '
                'WHERE number = ?',
                (
                    reason, self._clock() + _backoff(delivery.tries),
                    'dead' if is_dead else 'waiting', delivery.number,
                ),
            )  # fmt: skip
        return is_dead

    # --- keeping --------------------------------------------------------------------------------

    def finished_before(self, then: float, limit: int = 100) -> list[tuple[Image, list[str]]]:
        """Images that are finished since before a time and have files, with their results."""
        rows = self.rows(
            'SELECT number, instance, content, received, tries FROM images '
            'WHERE has_files = 1 AND finished < ? LIMIT ?', then, limit,
        )  # fmt: skip
        query = 'SELECT DISTINCT file FROM deliveries WHERE image = ?'
        return [(Image(*row), [file for (file,) in self.rows(query, row[0])]) for row in rows]

    def without_files(self, image: Image) -> None:
        """The files of a finished image are deleted."""
        with self.transaction() as database:
            database.execute('UPDATE images SET has_files = 0 WHERE number = ?', (image.number,))

    def forget_before(self, then: float) -> None:
        """Drops what is known about images without files that finished before a time."""
        with self.transaction() as database:
            database.execute('DELETE FROM images WHERE has_files = 0 AND finished < ?', (then,))
            database.execute('DELETE FROM polled WHERE seen < ?', (then,))

    # --- what a person asks for -----------------------------------------------------------------

    def counts(self) -> dict[tuple[str, str, str], int]:
        """(kind, destination, state) -> how many images and deliveries there are."""
        images = self.rows('SELECT state, COUNT(*) FROM images GROUP BY state')
        deliveries = self.rows(
            'SELECT destination, state, COUNT(*) FROM deliveries GROUP BY destination, state'
        )
        return {('image', '', state): count for state, count in images} | {
            ('delivery', destination, state): count for destination, state, count in deliveries
        }

    def oldest_waiting(self) -> float | None:
        """When the oldest image was received that is not finished and not dead; None without."""
        (row,) = self.rows(
            'SELECT MIN(received) FROM images WHERE has_files = 1 AND finished IS NULL AND ('
            "state = 'received' OR number IN "
            "(SELECT image FROM deliveries WHERE state = 'waiting'))"
        )
        return row[0]

    def dead(self) -> list[Dead]:
        """The dead letters, the oldest first."""
        rows = self.rows(
            "SELECT 'image', number, instance, content, '', tries, reason FROM images "
            "WHERE state = 'dead' UNION ALL "
            "SELECT 'delivery', d.number, i.instance, i.content, d.destination, d.tries, d.reason "
            "FROM deliveries AS d JOIN images AS i ON i.number = d.image WHERE d.state = 'dead'"
        )
        return [Dead(k, n, file_name(i, c), d, t, r) for k, n, i, c, d, t, r in rows]

    def retry_dead(self) -> int:
        """Gives every dead letter its attempts again; returns how many there were."""
        with self.transaction() as database:
            images = database.execute(
                "UPDATE images SET state = 'received', tries = 0, due = 0 WHERE state = 'dead'"
            )
            deliveries = database.execute(
                "UPDATE deliveries SET state = 'waiting', tries = 0, due = 0 WHERE state = 'dead'"
            )
            return images.rowcount + deliveries.rowcount


def _backoff(tries: int) -> float:
    """Seconds until the next attempt: 1, 2, 4 ..."""
    return min(_LONGEST_BACKOFF, 2.0 ** min(tries, 20))
