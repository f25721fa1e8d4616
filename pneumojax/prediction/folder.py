"""The folder that a prediction writes to, and which prediction it belongs to."""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, Self

from pneumojax.errors import UsageError
from pneumojax.prediction.journal import Journal
from pneumojax.runtimes.choose import FORMER_PRECISIONS
from pneumojax.system import atomic, limits

STATEMENT, JOURNAL = 'predict.json', '.journal.jsonl'


class OutputFolder:
    """A context that creates or continues the folder, and closes its journal at the end.

    Args:
      path: of the folder.
      statement: JSON that identifies the prediction; only the same statement may continue it.
      subfolders: names of folders in it; those that stay empty are removed at the end.

    Raises:
      UsageError: it cannot be written, holds other files, or belongs to another prediction.
    """

    def __init__(
        self, path: str | os.PathLike, statement: dict[str, Any], subfolders: Iterable[str]
    ):
        self.path = pathlib.Path(path)
        self._statement = json.loads(json.dumps(statement))
        self._subfolders = tuple(subfolders)

    def __enter__(self) -> Self:
        try:
            self._claim()
            for name in self._subfolders:
                (self.path / name).mkdir(exist_ok=True)
            self.journal = Journal(self.path / JOURNAL)
        except OSError as error:
            raise UsageError(
                f'--output: cannot write in {self.path}: {error.strerror}; give another folder'
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        for name in self._subfolders:
            try:
                (self.path / name).rmdir()
            except OSError:
                continue

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def _claim(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        marker = self.path / STATEMENT
        if marker.is_file():
            changed = self._differences(marker)
            if changed:
                raise UsageError(
                    f'--output: {self.path} holds another prediction ({changed}); '
                    'give another folder, or the same arguments to continue it'
                )
            return
        if any(self.path.iterdir()):
            raise UsageError(
                f'--output: {self.path} is not empty and holds no {STATEMENT}; '
                'give a new or empty folder'
            )
        atomic.write(marker, json.dumps(self._statement, indent=2) + '\n')

    def _differences(self, marker: pathlib.Path) -> str:
        try:
            before = json.loads(limits.read_text(marker))
            if not isinstance(before, dict):
                raise ValueError('not a JSON object')
        except (ValueError, RecursionError):
            return f'{STATEMENT} is damaged'
        runtime = before.get('runtime')
        if isinstance(runtime, dict) and runtime.get('precision') in [*FORMER_PRECISIONS]:
            runtime['precision'] = FORMER_PRECISIONS[runtime['precision']]
        keys = before.keys() | self._statement.keys()
        return '; '.join(
            f'{key}: {before.get(key)} -> {self._statement.get(key)}'
            for key in sorted(keys)
            if before.get(key) != self._statement.get(key)
        )
