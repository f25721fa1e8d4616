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
# Those that only some files have. An empty cell is NaN: undefined for this image.
_MORE: dict[str, tuple[type, str]] = {
    'score': (float, '.6f'), 'surface_dice_narrow': (float, '.6f'),
    'surface_dice_wide': (float, '.6f'), 'hd95': (float, '.3f'), 'boundary_iou': (float, '.6f'),
    'lesions': (int, 'd'), 'lesions_found': (int, 'd'), 'false_marks': (int, 'd'),
    'same_half': (float, '.0f'),
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
      score: float64 [N], ranks the images, see `metrics.image_score`.
      probability: float64 [N] in [0, 1], calibrated on other patients; None where it is not.
      surface_dice_narrow, surface_dice_wide, hd95, boundary_iou: float64 [N], see
        `sections.boundary.compare`; NaN without a true lesion; all are None where not measured.
      lesions, lesions_found, false_marks: int64 [N], see `sections.lesions.match`; or None.
      same_half: float64 [N], see `sections.lesions.same_half`; or None.

    Raises:
      ValueError: there are no images, a column has another length, or a score is not finite.
    """

    image_ids: Sequence[str]
    patients: Sequence[str]
    dice: np.ndarray
    true_px: np.ndarray
    predicted_px: np.ndarray
    score: np.ndarray
    probability: np.ndarray | None = None
    surface_dice_narrow: np.ndarray | None = None
    surface_dice_wide: np.ndarray | None = None
    hd95: np.ndarray | None = None
    boundary_iou: np.ndarray | None = None
    lesions: np.ndarray | None = None
    lesions_found: np.ndarray | None = None
    false_marks: np.ndarray | None = None
    same_half: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(c) for name, c in vars(self).items() if c is not None}
        if len(set(lengths.values())) > 1 or not lengths['dice']:
            raise ValueError(f'one value per image expected in every column, got {lengths}')
        for name in ('score', 'probability'):
            column = getattr(self, name)
            if column is not None and not np.isfinite(column).all():
                raise ValueError(f'{name}: image-level values must be finite')

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
        columns: Any = {
            name: None if column is None else np.asarray(column)[rows]
            for name, column in vars(self).items()
        }
        return type(self)(**columns)


def to_csv(images: PerImage, *, with_patients: bool = False) -> str:
    """The content of per_image.csv: one row per image, ImageIds by `system.text.cell`.

    Args:
      images: the results.
      with_patients: add a column that numbers the patients, in the order of the images.
    """
    content = io.StringIO()
    writer = csv.writer(content, lineterminator='\n')
    # Where nothing is calibrated, the score stands for the probability, as it ever did.
    of = dict(vars(images))
    if images.probability is None:
        of |= {'probability': images.score, 'score': None}
    more = [name for name in _MORE if of[name] is not None]
    writer.writerow(['ImageId', *_COLUMNS, *more, *[_PATIENT] * with_patients])
    columns = [
        ['' if v != v else format(v, (_COLUMNS | _MORE)[name][1]) for v in of[name]]
        for name in (*_COLUMNS, *more)
    ]
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
        for name, (kind, _) in _MORE.items():
            if all(row.get(name) is not None for row in rows.values()):
                columns[name] = np.array([kind(row[name] or 'nan') for row in rows.values()])
        if 'score' not in columns:
            columns['score'] = columns.pop('probability')
        patients = [row.get(_PATIENT) or name for name, row in rows.items()]
        return PerImage(list(rows), patients, **columns)
    except OSError:
        raise UsageError(f'{file} cannot be read; run --mode=evaluate on that run first') from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f'{file} is not a per_image.csv ({error}); expected the columns ImageId, '
            f'{", ".join(_COLUMNS)}'
        ) from None
