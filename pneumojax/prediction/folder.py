"""The folder that a prediction writes into: whose it is, and what is done in it."""

import json
import os
import pathlib
from typing import Any

from pneumojax.errors import UsageError
from pneumojax.prediction.journal import Journal
from pneumojax.system import atomic, limits

STATEMENT, JOURNAL = 'predict.json', '.journal.jsonl'
# What the folder holds. The documentation's reference is made of this.
FILES = {
    'results.csv': 'One row per input file: status, reason, probability, area in pixels and mm².',
    'submission.csv': "Kaggle's format: ImageId and run-length code, `-1` for an empty mask.",
    'report.html': 'All of it on one page, to sort and search (`--noreport` leaves it out).',
    'masks/': 'One PNG per image, 0 and 255, in the original size.',
    'overlays/': 'The outline on the radiograph (`--nooverlays` leaves them out).',
    'heatmaps/': 'The probability on the radiograph, with `--heatmap`.',
    'seg/': 'One DICOM SEG per DICOM file; `--seg` chooses masks, probabilities or none.',
    STATEMENT: 'What is predicted with which weights; another prediction is refused here.',
    JOURNAL: 'What is done so far: the same command continues from it.',
}
_FOLDERS = ('masks', 'overlays', 'heatmaps', 'seg')


class OutputFolder:
    """A context: the folder is made or continued at its start, its journal closed at its end.

    Args:
      path: of the folder.
      statement: JSON; what is predicted. The same statement continues.

    Raises:
      UsageError: it cannot be written, holds other files, or belongs to another prediction.
    """

    def __init__(self, path: str | os.PathLike, statement: dict[str, Any]):
        self.path = pathlib.Path(path)
        self._statement = json.loads(json.dumps(statement))

    def __enter__(self):
        try:
            self._claim()
            for name in _FOLDERS:
                (self.path / name).mkdir(exist_ok=True)
            self.journal = Journal(self.path / JOURNAL)
        except OSError as error:
            raise UsageError(
                f'--output: cannot write in {self.path}: {error.strerror}; give another folder'
            ) from None
        return self

    def __exit__(self, *_):
        self.journal.close()
        for name in _FOLDERS:  # those that were not asked for
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
        keys = before.keys() | self._statement.keys()
        return '; '.join(
            f'{key}: {before.get(key)} -> {self._statement.get(key)}'
            for key in sorted(keys)
            if before.get(key) != self._statement.get(key)
        )
