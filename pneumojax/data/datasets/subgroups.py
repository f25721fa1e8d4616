"""Groups of images, by tags of their DICOM headers and by the columns of a user's table.

Nothing that names a patient is read: no name, no number, and of an age only its band is kept.
"""

import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pneumojax.data.datasets import tables
from pneumojax.data.files import chest, dicom, headers, inputs
from pneumojax.data.files.silence import silence_libraries
from pneumojax.errors import UsageError
from pneumojax.system import limits, parallel
from pneumojax.system.text import visible

_TAGS = (
    'SpecificCharacterSet', 'PatientSex', 'PatientAge', 'PatientBirthDate', 'StudyDate',
    'ViewPosition', 'Manufacturer',
)  # fmt: skip
FROM_TAGS = ('Sex', 'Age', 'View position', 'Manufacturer')
_SEXES = {'F': 'female', 'M': 'male', 'O': 'other'}
_AGES = ((18, '0-17'), (40, '18-39'), (60, '40-59'), (80, '60-79'), (121, '80+'))
_VIEWS = ('PA', 'AP', 'LL', 'RL', 'LLD', 'RLD', 'LLO', 'RLO')  # any other text may be a name
_MANY = 10  # different numbers in a column that is divided into quarters
_LONGEST = 40  # characters of a value


@silence_libraries()
def of_headers(paths: Sequence[str]) -> dict[str, list[str]]:
    """The groups of images by what their DICOM headers state; no pixel is read.

    Args:
      paths: of N images. Pictures, and files that cannot be read, state nothing.

    Returns:
      For each of `FROM_TAGS` that any image states: [N] values, '' where it is not stated.
    """
    with ThreadPoolExecutor(parallel.cores()) as threads:
        rows = list(threads.map(_of_header, paths))
    columns = {name: [row[k] for row in rows] for k, name in enumerate(FROM_TAGS)}
    return {name: values for name, values in columns.items() if any(values)}


def _of_header(path: str) -> tuple[str, ...]:
    try:
        if inputs.file_type(path) != 'dicom':
            return ('',) * len(FROM_TAGS)
        with limits.BoundedFile(path) as file:
            dicom.check(file)
            header = headers.read(file, _TAGS)
    except Exception:  # whatever pydicom raises on a damaged file
        return ('',) * len(FROM_TAGS)
    view = headers.text(header, 'ViewPosition').upper()
    return (
        _SEXES.get(headers.text(header, 'PatientSex').upper(), ''),
        _age_band(chest.age(header)),
        view if view in _VIEWS else 'other' * bool(view),
        _shown(headers.text(header, 'Manufacturer')),
    )


def _age_band(years: float | None) -> str:
    if years is None:
        return ''
    return next((band for end, band in _AGES if years < end), '')  # nobody is older than that


def of_table(path: str, image_ids: Sequence[str]) -> dict[str, list[str]]:
    """The groups of images by the columns of a CSV `ImageId,...`.

    Args:
      path: of the CSV. A column PatientId is left out. A column of more than 10 different numbers
        is divided into quarters, by the values of these images.
      image_ids: of N images.

    Returns:
      For each column [N] values, '' where the table states none.

    Raises:
      UsageError: the table cannot be used, or has none of these images.
    """
    key = 'config.evaluation.groups'
    if not os.path.isfile(path):
        raise UsageError(
            f'{key}: there is no file {path!r}; expected a CSV with the column ImageId'
        )
    names = [
        n for n in tables.columns(path) if n.lower() not in ('imageid', 'image_id', 'image id')
    ]
    rows: dict[str, dict[str, str]] = {}
    for line, cells in tables.read(path, ('ImageId',), names):
        name = inputs.stem(cells.pop('ImageId'))
        if rows.setdefault(name, cells) != cells:
            raise UsageError(
                f'{path}, line {line}: ImageId {name} has another row in an earlier line; '
                'remove one'
            )
    if not any(image_id in rows for image_id in image_ids):
        raise UsageError(
            f'{key}: {path} has none of the {len(image_ids)} images, such as {image_ids[0]}, in '
            'its column ImageId'
        )
    groups = {}
    for name in names:
        if re.sub(r'\W|_', '', name).lower() not in ('patient', 'patientid', 'patientname'):
            values = [rows.get(image_id, {}).get(name, '') for image_id in image_ids]
            groups[_shown(name)] = _quarters(values)
    return groups


def _quarters(values: list[str]) -> list[str]:
    """Values as they are shown; many numbers as the quarter that each is in."""
    stated = [value for value in values if value]
    try:
        numbers = np.array([float(value) for value in stated])
    except ValueError:
        numbers = np.array([])
    if not np.isfinite(numbers).all() or len(np.unique(numbers)) <= _MANY:
        return [_shown(value) for value in values]
    edges = np.unique(np.percentile(numbers, [0, 25, 50, 75, 100], method='inverted_cdf'))
    names = [f'{low:g} to {high:g}' for low, high in itertools.pairwise(edges)]
    names = [names[0], *(f'above {name}' for name in names[1:])]
    parts = np.clip(np.searchsorted(edges, numbers, side='left') - 1, 0, None)
    of_stated = iter(parts)
    return [names[next(of_stated)] if value else '' for value in values]


def _shown(value: str) -> str:
    shown = visible(value)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + '…'
