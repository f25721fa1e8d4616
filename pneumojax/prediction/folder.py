"""The folder that a prediction writes to, and which prediction it belongs to."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, Self

from pneumojax.errors import UsageError
from pneumojax.prediction.journal import Journal
from pneumojax.system import atomic, limits, locks

STATEMENT, JOURNAL, LOCK = 'predict.json', '.journal.jsonl', '.lock'


class OutputFolder:
    """A context that creates or continues the folder, which no other process may write meanwhile.

    Args:
      path: of the folder.
      statement: JSON that identifies the prediction; only the same statement may continue it.
      subfolders: names of folders in it; those that stay empty are removed at the end.
      private: nobody else may enter the folder, or read what is written inside the context.

    Raises:
      UsageError: it cannot be written, holds other files, belongs to another prediction, or another
        process predicts into it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        statement: dict[str, Any],
        subfolders: Iterable[str],
        *,
        private: bool = False,
    ):
        self.path = pathlib.Path(path)
        self._statement = json.loads(json.dumps(statement))
        self._subfolders, self._private = tuple(subfolders), private

    def __enter__(self) -> Self:
        try:
            with contextlib.ExitStack() as stack:
                self._open(stack)
                self._stack = stack.pop_all()
        except OSError as error:
            raise UsageError(
                f'--output: cannot write in {self.path}: {error.strerror}; give another folder'
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __truediv__(self, name: str) -> pathlib.Path:
        # Names are UTF-8 on the disk in every locale, as in the tables and the report.
        return self.path / os.fsdecode(name.encode())

    def _open(self, stack: contextlib.ExitStack) -> None:
        if self._private:
            stack.callback(os.umask, os.umask(0o077))
        self.path.mkdir(parents=True, exist_ok=True)
        self._is_claimed()  # before anything is written in it
        if self._private:
            self.path.chmod(0o700)  # files of an earlier run may be readable
        stack.enter_context(locks.LockFile(self.path / LOCK))
        if not self._is_claimed():  # another process may have done so before the lock was ours
            atomic.write(self.path / STATEMENT, json.dumps(self._statement, indent=2) + '\n')
        atomic.sweep(self.path)
        for name in self._subfolders:
            (self.path / name).mkdir(exist_ok=True)
            stack.callback(_remove_empty, self.path / name)
            atomic.sweep(self.path / name)
        self.journal = stack.enter_context(Journal(self.path / JOURNAL))

    def _is_claimed(self) -> bool:
        """Whether it holds this prediction; False if it is empty. Refuses any other folder."""
        marker = self.path / STATEMENT
        if marker.is_file():
            self._compare(marker)
            return True
        if {entry.name for entry in self.path.iterdir()} - {LOCK}:
            raise UsageError(
                f'--output: {self.path} is not empty and holds no {STATEMENT}; '
                'give a new or empty folder'
            )
        return False

    def _compare(self, marker: pathlib.Path) -> None:
        try:
            before = json.loads(limits.read_text(marker))
            if not isinstance(before, dict):
                raise ValueError('not a JSON object')
        except (ValueError, RecursionError):
            raise UsageError(f'--output: {marker} is damaged; give another folder') from None
        old, new = _leaves(before), _leaves(self._statement)
        changed = [
            f'{key}: {old.get(key)!r} -> {new.get(key)!r}'
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if changed and not any(key.endswith('.digest') for key in old):
            raise UsageError(
                f'--output: {self.path} was written by an earlier version, which did not record '
                'which weights predicted; give another folder, or delete this one, to predict '
                'everything anew'
            )
        if changed:
            raise UsageError(
                f'--output: {self.path} holds another prediction ({"; ".join(changed[:5])}'
                f'{"; ..." if len(changed) > 5 else ""}); give another folder, or the same '
                'arguments to continue it'
            )


def _leaves(value: Any, path: str = '') -> dict[str, Any]:
    """Dotted path -> value, for each value in JSON objects and lists."""
    if not isinstance(value, dict | list) or not value:
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        key: leaf
        for name, part in items
        for key, leaf in _leaves(part, f'{path}.{name}' if path else str(name)).items()
    }


def _remove_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
