"""The two tables of a prediction: results.csv for people and scripts, submission.csv for Kaggle."""

import csv
import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pneumojax.data.files.inputs import printable
from pneumojax.system.atomic import replacing

COLUMNS = ('file', 'ImageId', 'status', 'reason', 'probability', 'area_px', 'area_mm2')


class Results:
    """Writes results.csv row by row; a row is on the disk when `add` returns.

    Args:
      path: of the file, which is overwritten.
    """

    def __init__(self, path: str | os.PathLike):
        self._file = open(path, 'w', newline='', encoding='utf-8')  # noqa: SIM115
        self._writer = csv.DictWriter(
            self._file, COLUMNS, extrasaction='ignore', lineterminator='\n'
        )
        self._writer.writeheader()
        self._file.flush()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes one row; missing values give empty cells."""
        self._writer.writerow(_formatted(row))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_results(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes all of results.csv; the old file stays until the new one is complete.

    Args:
      path: of the file.
      rows: with the keys of `COLUMNS`; other keys are ignored.
    """
    with replacing(path) as unfinished, Results(unfinished) as results:
        for row in rows:
            results.add(row)


def write_submission(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes Kaggle's submission: `ImageId,EncodedPixels`, `-1` for an empty mask.

    An image that could not be read gets no row: `-1` would claim that it has no pneumothorax.

    Args:
      path: of the file.
      rows: with 'ImageId', 'status' and 'rle', see `pneumojax.data.rle`.

    Returns:
      The number of rows written.
    """
    count = 0
    with replacing(path) as unfinished, open(unfinished, 'w', encoding='utf-8') as file:
        file.write('ImageId,EncodedPixels\n')
        for row in rows:
            if row['status'] == 'ok':
                file.write(f'{row["ImageId"]},{row["rle"]}\n')
                count += 1
    return count


def _formatted(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = dict(row, file=printable(row['file']))
    for column, form in (('probability', '.6f'), ('area_mm2', '.1f')):
        if cells.get(column) is not None:
            cells[column] = format(cells[column], form)
    return cells
