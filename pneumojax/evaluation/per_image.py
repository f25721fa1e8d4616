"""Results per image, from which every metric is computed. Their file is per_image.csv."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from pneumojax.errors import UsageError
from pneumojax.system import text

# The columns of the file after ImageId: type and format.
_COLUMNS = {
    'dice': (float, '.6f'), 'true_px': (int, 'd'), 'predicted_px': (int, 'd'),
    'probability': (float, '.6f'),
}  # fmt: skip
_PATIENT = 'patient'  # a number of its own in each file, so that nobody is named


@dataclasses.dataclass(frozen=True)
class PerImage:
    """N images and what one method made of them. A new measurement is a new column here.

    Attributes:
      image_ids: [N].
      patients: [N], the patient of each image; intervals resample whole patients.
      dice: float64 [N], in [0, 1].
      true_px: int64 [N], pixels in the true mask.
      predicted_px: int64 [N], pixels in the predicted mask.
      probability: float64 [N], image-level score, see `metrics.image_probability`.

    Raises:
      ValueError: there are no images, a column has another length, or a score is not finite.
    """

    image_ids: Sequence[str]
    patients: Sequence[str]
    dice: np.ndarray
    true_px: np.ndarray
    predicted_px: np.ndarray
    probability: np.ndarray

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in vars(self).items()}
        if len(set(lengths.values())) > 1 or not lengths['dice']:
            raise ValueError(f'one value per image expected in every column, got {lengths}')
        if not np.isfinite(self.probability).all():
            raise ValueError('image-level probabilities must be finite')

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def positive(self) -> np.ndarray:
        """bool [N]: images with pneumothorax."""
        return self.true_px > 0

    @property
    def marked(self) -> np.ndarray:
        """bool [N]: images with a non-empty predicted mask."""
        return self.predicted_px > 0

    def take(self, rows: Iterable[int]) -> Self:
        """Some of the images, by their indices."""
        rows = list(rows)
        columns: Any = {name: np.asarray(column)[rows] for name, column in vars(self).items()}
        return type(self)(**columns)


def to_csv(images: PerImage, *, with_patients: bool = False) -> str:
    """The content of per_image.csv: one row per image, ImageIds by `system.text.cell`.

    Args:
      images: the results.
      with_patients: add a column that numbers the patients, in the order of the images.
    """
    content = io.StringIO()
    writer = csv.writer(content, lineterminator='\n')
    writer.writerow(['ImageId', *_COLUMNS, *[_PATIENT] * with_patients])
    columns = [[format(v, f) for v in getattr(images, name)] for name, (_, f) in _COLUMNS.items()]
    if with_patients:
        numbers: dict[str, int] = {}
        columns.append([str(numbers.setdefault(p, len(numbers) + 1)) for p in images.patients])
    writer.writerows(zip(map(text.cell, images.image_ids), *columns, strict=True))
    return content.getvalue()


def read_csv(path: pathlib.Path) -> PerImage:
    """Reads a per_image.csv. Where it does not number patients, each image counts as one.

    ImageIds come as `system.text.cell` shows them, whoever wrote the file.

    Args:
      path: of the file, or of the evaluated run directory that holds it.

    Raises:
      UsageError: the file is missing or broken.
    """
    file = path / 'per_image.csv' if path.is_dir() else path
    try:
        with file.open(newline='', encoding='utf-8-sig') as lines:
            rows = {text.cell(row['ImageId']): row for row in csv.DictReader(lines)}
        columns = {
            name: np.array([kind(row[name]) for row in rows.values()])
            for name, (kind, _) in _COLUMNS.items()
        }
        patients = [row.get(_PATIENT) or name for name, row in rows.items()]
        return PerImage(list(rows), patients, **columns)
    except OSError:
        raise UsageError(f'{file} cannot be read; run --mode=evaluate on that run first') from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f'{file} is not a per_image.csv ({error}); expected the columns ImageId, '
            f'{", ".join(_COLUMNS)}'
        ) from None
