"""The tables of a prediction: results.csv for people, results.jsonl for scripts, submission.csv.

Both results have the same rows in the same order. A name in results.csv is as `system.text.cell`
shows it; in results.jsonl it is the file's own, and numbers are not rounded.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from pneumojax.system import text
from pneumojax.system.atomic import naming, replacing

COLUMNS = (
    'file', 'ImageId', 'status', 'reason', 'probability', 'score', 'area_px', 'area_mm2',
)  # fmt: skip


class Results:
    """Writes results.csv and results.jsonl row by row; a row can be read when `add` returns.

    Args:
      table, lines: paths of the two files, which are overwritten.
    """

    def __init__(self, table: str | os.PathLike, lines: str | os.PathLike):
        self._paths = table, lines
        self._table = open(table, 'w', newline='', encoding='utf-8')  # noqa: SIM115
        self._lines = open(lines, 'w', encoding='ascii')  # noqa: SIM115
        self._writer = csv.DictWriter(
            self._table, COLUMNS, extrasaction='ignore', lineterminator='\n'
        )
        self._write(self._writer.writeheader, '')

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes one row; missing values give empty cells and null."""
        line = json.dumps({name: row[name] for name in COLUMNS}, allow_nan=False) + '\n'
        self._write(lambda: self._writer.writerow(_formatted(row)), line)

    def _write(self, write_table: Callable[[], Any], line: str) -> None:
        with naming(self._paths[0]):
            write_table()
            self._table.flush()
        with naming(self._paths[1]):
            self._lines.write(line)
            self._lines.flush()

    def close(self) -> None:
        """Closes the files."""
        with naming(self._paths[0]):
            self._table.close()
        with naming(self._paths[1]):
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_results(
    table: str | os.PathLike, lines: str | os.PathLike, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes all of results.csv and results.jsonl; the old ones stay until the new are complete.

    Args:
      table, lines: paths of the two files.
      rows: with the keys of `COLUMNS`; other keys are ignored.
    """
    with replacing(table) as first, replacing(lines) as second, Results(first, second) as results:
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
    cells = dict(row)
    for column in ('file', 'ImageId', 'reason'):
        cells[column] = text.cell(row[column])
    for column, form in (('probability', '.6f'), ('score', '.6f'), ('area_mm2', '.1f')):
        if cells.get(column) is not None:
            cells[column] = format(cells[column], form)
    return cells
