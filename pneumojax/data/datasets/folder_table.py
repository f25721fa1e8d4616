"""What the table of one's own images says of each of them.

A CSV `ImageId[,PatientId][,Pneumothorax][,split][,fold]`: whose image it is, 0 or 1 for without or
with a pneumothorax, and the side of the split or the fold it belongs to.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from pneumojax.data.datasets import tables
from pneumojax.data.files import inputs
from pneumojax.errors import UsageError

FILE = 'table.csv'  # below the root, unless data.table says otherwise
COLUMNS = ('PatientId', 'Pneumothorax', 'split', 'fold')
_SIDES = {'train': 'train', 'validation': 'validation', 'val': 'validation', 'test': 'test'}


class Row(NamedTuple):
    """What the table says of an image."""

    patient: str
    positive: bool | None  # None where it does not say
    side: str  # 'train', 'validation', 'test' or ''


def read(root: str, table: str, fold: int, num_folds: int) -> dict[str, Row] | None:
    """What the table says, by ImageId; None without a table."""
    path = table or os.path.join(root, FILE)
    if not os.path.isfile(path):
        if table:
            raise UsageError(
                f'config.data.table: there is no file {table!r}; expected a CSV with the column '
                'ImageId'
            )
        return None
    rows: dict[str, Row] = {}
    for line, cells in tables.read(path, ('ImageId',), COLUMNS):
        where, name = f'{path}, line {line}', inputs.stem(cells['ImageId'])
        row = Row(
            cells.get('PatientId', ''),
            _positive(where, cells.get('Pneumothorax', '')),
            _side(where, cells, fold, num_folds),
        )
        if 'PatientId' in cells and not row.patient:
            raise UsageError(f'{where}: ImageId {name} has no PatientId; fill it in')
        if rows.setdefault(name, row) != row:
            raise UsageError(f'{where}: ImageId {name} has another row before; remove one of them')
    return rows


def _positive(where: str, cell: str) -> bool | None:
    if cell not in ('', '0', '1'):
        raise UsageError(
            f'{where}: the column Pneumothorax holds none of 0 (no), 1 (yes) and nothing (not said)'
        )
    return {'': None, '0': False, '1': True}[cell]


def _side(where: str, cells: Mapping[str, str], fold: int, num_folds: int) -> str:
    if 'split' in cells and 'fold' in cells:
        raise UsageError(f'{where}: the table has both a column split and a column fold; keep one')
    if 'split' in cells:
        if fold != 0:
            raise UsageError(
                f'config.data.fold is {fold}, but the table has a column split, which makes one '
                'split only; leave config.data.fold at 0, or give the table a column fold instead'
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
            f'{where}: the column fold holds no whole number from 0 to {num_folds - 1}; mend it, '
            'or say config.data.num_folds'
        )
    return 'validation' if int(stated) == fold else 'train'
