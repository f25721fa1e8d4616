"""CSV tables written by users, read without guessing: a row that makes no sense is an error."""

import csv
import unicodedata
from collections.abc import Iterator, Sequence

from pneumojax.errors import UsageError
from pneumojax.system import limits


def read(
    path: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line number and cells of each row.

    No oddity is ignored: an extra cell may be half a mask, and an open quotation mark hides the
    rows after it.

    Args:
      path: UTF-8 text, separated by commas; the first line names the columns, in which case, spaces
        and underscores do not matter (`patient_id` is PatientId).
      needed: names of required columns; cells of the first one may not be empty.
      optional: names of optional columns. All others are ignored.

    Yields:
      The line number, and a dict from column name to cell, without surrounding spaces and in
      Unicode's form NFC.

    Raises:
      UsageError: the file is malformed; names the line, but no cell, as that may name a patient.
    """
    expected = f'expected {",".join(needed)}{"".join(f"[,{name}]" for name in optional)}'
    names = {_plain(name): name for name in (*needed, *optional)}
    rows = 0
    try:
        limits.check_file(path, limits.MAX_TABLE_BYTES)
        # utf-8-sig drops the byte order mark that Excel puts before the header.
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            first = next(reader, [])
            header = [names.get(_plain(name), '') for name in first]
            if any(map(str.strip, first)):
                _check_header(path, header, needed, expected)
            for row in reader:
                if any(map(str.strip, row)):
                    where = f'{path}, line {reader.line_num}'
                    yield reader.line_num, _cells(where, header, row, needed[0], expected)
                    rows += 1
                if rows > limits.MAX_TABLE_ROWS:
                    raise limits.TooLarge(f'more than {limits.MAX_TABLE_ROWS} rows')
    except limits.TooLarge as error:
        raise UsageError(f'{path}: {error}; {expected}') from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f'{path}: cannot be read as a CSV in UTF-8 ({type(error).__name__}); {expected}'
        ) from error
    if not rows:
        raise UsageError(f'{path}: holds no rows; {expected}')


def columns(path: str) -> list[str]:
    """The names of the columns, without empty ones; [] where `read` says what is wrong."""
    try:
        limits.check_file(path, limits.MAX_TABLE_BYTES)
        with open(path, newline='', encoding='utf-8-sig') as file:
            first = next(csv.reader(file, skipinitialspace=True, strict=True), [])
    except (limits.TooLarge, OSError, UnicodeDecodeError, csv.Error):
        return []
    return [name.strip() for name in first if _plain(name)]


def _check_header(path: str, header: list[str], needed: Sequence[str], expected: str) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        # Without a header the first line is a row, which may name a patient.
        raise UsageError(
            f'{path}: the column {" and ".join(missing)} is missing from the first line; {expected}'
        )
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UsageError(f'{path}: the column {twice[0]} appears twice; remove one of them')


def _cells(
    where: str, header: list[str], row: list[str], key: str, expected: str
) -> dict[str, str]:
    # In one form, as the names of files are: see `inputs.stem`.
    row = [unicodedata.normalize('NFC', cell.strip()) for cell in row]
    cells = {name: cell for name, cell in zip(header, row, strict=False) if name}
    missing = [name for name in header if name and name not in cells]
    if not cells.get(key) or missing:
        lacking = missing[0] if cells.get(key) else key
        raise UsageError(f'{where}: the row has no {lacking}; {expected}')
    if any(row[len(header) :]):
        raise UsageError(f'{where}: {len(row)} cells under a header of {len(header)}; {expected}')
    if not ''.join(cells.values()).replace('\t', ' ').isprintable():
        raise UsageError(
            f'{where}: a cell holds line breaks or other control characters (an open quotation '
            f'mark?); {expected}'
        )
    return cells


def _plain(name: str) -> str:
    return ''.join(filter(str.isalnum, name.casefold()))
