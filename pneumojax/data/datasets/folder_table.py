"""The table of a folder of your own images.

A CSV `ImageId[,PatientId][,Pneumothorax][,split][,fold]`: the patient, 0 or 1 for images without or
with a pneumothorax, and the side of the split or the fold that the image belongs to.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from pneumojax.data.datasets import tables
from pneumojax.data.files import inputs
from pneumojax.errors import UsageError

FILE = 'table.csv'  # below the root, unless data.table names another
COLUMNS = ('PatientId', 'Pneumothorax', 'split', 'fold')
_SIDES = {'train': 'train', 'validation': 'validation', 'val': 'validation', 'test': 'test'}


class TableRow(NamedTuple):
    """What the table states about an image."""

    patient: str
    positive: bool | None  # None if not stated
    side: str  # 'train', 'validation', 'test' or ''


def read(root: str, table: str, fold: int, num_folds: int) -> dict[str, TableRow] | None:
    """Reads the rows by ImageId; None without a table.

    Args:
      root: folder with the images.
      table: path of the CSV; '' for `table.csv` in the root, if there is one.
      fold: the one held out; 0 if the table has a column `split`.
      num_folds: how many folds the column `fold` holds.

    Raises:
      UsageError: no such file, or a row that makes no sense, with its line.
    """
    path = table or os.path.join(root, FILE)
    if not os.path.isfile(path):
        if table:
            raise UsageError(
                f'config.data.table: there is no file {table!r}; expected a CSV with the column '
                'ImageId'
            )
        return None
    rows: dict[str, TableRow] = {}
    for line, cells in tables.read(path, ('ImageId',), COLUMNS):
        where, name = f'{path}, line {line}', inputs.stem(cells['ImageId'])
        row = TableRow(
            cells.get('PatientId', ''),
            _positive(where, cells.get('Pneumothorax', '')),
            _side(where, cells, fold, num_folds),
        )
        if 'PatientId' in cells and not row.patient:
            raise UsageError(f'{where}: ImageId {name} has no PatientId; fill it in')
        if rows.setdefault(name, row) != row:
            raise UsageError(
                f'{where}: ImageId {name} has another row in an earlier line; remove one'
            )
    return rows


def _positive(where: str, cell: str) -> bool | None:
    if cell not in ('', '0', '1'):
        raise UsageError(
            f'{where}: the column Pneumothorax holds none of 0 (no), 1 (yes) and nothing (unknown)'
        )
    return {'': None, '0': False, '1': True}[cell]


def _side(where: str, cells: Mapping[str, str], fold: int, num_folds: int) -> str:
    if 'split' in cells and 'fold' in cells:
        raise UsageError(f'{where}: the table has both a column split and a column fold; keep one')
    if 'split' in cells:
        if fold != 0:
            raise UsageError(
                f'config.data.fold is {fold}, but the table has a column split, which makes one '
                'split only; leave config.data.fold at 0, or replace it with a column fold'
            )
        side = _SIDES.get(cells['split'].lower())
        if side is None:
            raise UsageError(
                f'{where}: the column split holds none of train, validation and test (left out)'
            )
        return side
    if 'fold' not in cells:
        return ''
    stated = cells['fold']
    if not (stated.isdecimal() and int(stated) < num_folds):
        raise UsageError(
            f'{where}: the column fold holds no whole number from 0 to {num_folds - 1}; correct it '
            'or set config.data.num_folds'
        )
    return 'validation' if int(stated) == fold else 'train'
