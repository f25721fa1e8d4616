"""The two tables of a prediction: results.csv for people and scripts, submission.csv for Kaggle."""

import csv
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pneumojax.data.files.inputs import printable
from pneumojax.system.atomic import replacing

COLUMNS = ('file', 'ImageId', 'status', 'reason', 'probability', 'area_px', 'area_mm2')


class Results:
    """results.csv, a row at a time; every row is on the disk when `add` returns.

    Args:
      path: of the file, which is begun anew.
    """

    def __init__(self, path):
        self._file = open(path, 'w', newline='', encoding='utf-8')  # noqa: SIM115
        self._writer = csv.DictWriter(
            self._file, COLUMNS, extrasaction='ignore', lineterminator='\n'
        )
        self._writer.writeheader()
        self._file.flush()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes one row; empty cells where it has no value."""
        self._writer.writerow(_formatted(row))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def write_results(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes results.csv at once; the old file stays until the new one is whole.

    Args:
      path: of the file.
      rows: with the keys of `COLUMNS`; others are left out.
    """
    with replacing(path) as unfinished, Results(unfinished) as results:
        for row in rows:
            results.add(row)


def write_submission(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes Kaggle's submission: `ImageId,EncodedPixels`, `-1` for an empty mask.

    An image that could not be read gets no row: `-1` would claim that it shows nothing.

    Args:
      path: of the file.
      rows: with 'ImageId', 'status' and 'rle', see `pneumojax.data.rle`.

    Returns:
      How many rows were written.
    """
    count = 0
    with replacing(path) as unfinished, open(unfinished, 'w', encoding='utf-8') as file:
        file.write('ImageId,EncodedPixels\n')
        for row in rows:
            if row['status'] == 'ok':
                file.write(f'{row["ImageId"]},{row["rle"]}\n')
                count += 1
    return count


def _formatted(row):
    row = dict(row, file=printable(row['file']))
    if row.get('probability') is not None:
        row['probability'] = f'{row["probability"]:.6f}'
    if row.get('area_mm2') is not None:
        row['area_mm2'] = f'{row["area_mm2"]:.1f}'
    return row
