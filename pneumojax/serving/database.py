"""The SQLite file of the queue: its tables, and transactions that are on the disk when they end."""

import contextlib
import os
import pathlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Self

from pneumojax.errors import UsageError

VERSION = 1
SCHEMA = """
CREATE TABLE images (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  instance TEXT NOT NULL,            -- hash of the SOP Instance UID
  content TEXT NOT NULL,             -- hash of the data set
  study TEXT NOT NULL,               -- hash of the Study Instance UID
  state TEXT NOT NULL DEFAULT 'received',
  received REAL NOT NULL,            -- times are seconds since 1970
  tries INTEGER NOT NULL DEFAULT 0,  -- begun so far
  due REAL NOT NULL DEFAULT 0,       -- not to be tried before
  reason TEXT NOT NULL DEFAULT '',
  finished REAL,                     -- when it was skipped, or its last result sent
  has_files INTEGER NOT NULL DEFAULT 1,
  UNIQUE (instance, content)
);
CREATE INDEX images_by_state ON images (state, tries, received);
CREATE INDEX images_by_study ON images (study, received);
CREATE INDEX images_by_age ON images (has_files, finished);
CREATE TABLE deliveries (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
  file TEXT NOT NULL,                -- below the folder of results
  instance TEXT NOT NULL,            -- hash of the result's SOP Instance UID
  destination TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting',
  tries INTEGER NOT NULL DEFAULT 0,  -- that were refused
  due REAL NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  UNIQUE (image, file, destination)
);
CREATE INDEX deliveries_by_state ON deliveries (destination, state, due);
CREATE INDEX deliveries_by_image ON deliveries (image);
CREATE INDEX deliveries_by_instance ON deliveries (instance);
CREATE TABLE polled (                -- the cursor of polling
  study TEXT PRIMARY KEY,            -- hash of the Study Instance UID
  instances INTEGER NOT NULL,        -- that it had
  seen REAL NOT NULL
);
"""


class Database:
    """An open file; safe to use from several threads and processes.

    Args:
      path: of the file, which is made if it does not exist.

    Raises:
      UsageError: it belongs to a later version, is damaged, or does not fit on the disk.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            self.path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._database.close()
            if isinstance(error, sqlite3.OperationalError) and 'full' in str(error):
                raise UsageError(f'{self.path}: no space left on the disk; make room') from None
            raise UsageError(
                f'{self.path} is damaged ({error}); move it away, and what is in the inbox is '
                'taken up again'
            ) from None

    def _open(self) -> None:
        self._database.execute('PRAGMA journal_mode = WAL')
        self._database.execute('PRAGMA synchronous = FULL')
        self._database.execute('PRAGMA foreign_keys = ON')
        with self.transaction() as database:
            version = database.execute('PRAGMA user_version').fetchone()[0]
            if version > VERSION:
                raise UsageError(
                    f'{self.path} was written by a later version of pneumojax; use that one'
                )
            if version == 0:
                for statement in SCHEMA.split(';'):
                    database.execute(statement)
                database.execute(f'PRAGMA user_version = {VERSION}')

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A block that happens as a whole or not at all, and is on the disk when it ends."""
        with self._lock:
            self._database.execute('BEGIN IMMEDIATE')
            try:
                yield self._database
                self._database.execute('COMMIT')
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._database.execute('ROLLBACK')
                raise

    def rows(self, query: str, *values: object) -> list[tuple]:
        """What a query finds."""
        with self._lock:
            return self._database.execute(query, values).fetchall()
