"""CSV tables of people's own: what they say about each image, read without guessing."""

import csv
from collections.abc import Iterator, Sequence

from pneumojax.errors import UsageError


def read(path: str, optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line number and cells of each row.

    Args:
      path: UTF-8 text, separated by commas; the first line names the columns. Upper and lower case,
        spaces and underscores make no difference there (`patient_id` is PatientId).
      optional: names of the columns to give beside ImageId, those that are there. Others are
        passed over.

    Yields:
      The line, and column name to cell without surrounding spaces; 'ImageId' is never empty.

    Raises:
      UsageError: not such a file, with the line; no cell is repeated, as it may name a patient.
    """
    wanted = {_plain(name): name for name in ('ImageId', *optional)}
    expected = f'expected UTF-8 text with the columns ImageId[,{"][,".join(optional)}]'
    rows = 0
    try:
        # utf-8-sig drops the mark that Excel puts in front of the header.
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            header = [wanted.get(_plain(name), '') for name in next(reader, [])]
            if 'ImageId' not in header:
                raise UsageError(f'{path}: the first line names no column ImageId; {expected}')
            twice = [name for name in header if name and header.count(name) > 1]
            if twice:
                raise UsageError(f'{path}: the column {twice[0]} is there twice; remove one')
            for row in reader:
                cells = list(map(str.strip, row))
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise UsageError(
                        f'{path}, line {reader.line_num}: the row has {len(cells)} cells, the '
                        f'first line {len(header)}; mend the row'
                    )
                named = {name: cell for name, cell in zip(header, cells, strict=True) if name}
                if not named['ImageId']:
                    raise UsageError(f'{path}, line {reader.line_num}: the ImageId is missing')
                rows += 1
                yield reader.line_num, named
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f'{path}: cannot be read as a CSV ({type(error).__name__}); {expected}'
        ) from error
    if not rows:
        raise UsageError(f'{path}: holds no rows; {expected}')


def _plain(name: str) -> str:
    return ''.join(filter(str.isalnum, name.casefold()))
