"""Measures masks against the true ones: outlines, lesions and halves, image by image."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pydicom

from pneumojax.data.datasets.example import Example
from pneumojax.data.files import headers, inputs
from pneumojax.data.files.silence import silence_libraries
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.per_lesion import PerLesion
from pneumojax.evaluation.sections import boundary, lesions
from pneumojax.evaluation.sections.section import Measured
from pneumojax.system import parallel

Spacing = tuple[float, float] | None  # mm between rows and columns, where it is known
Masks = tuple[np.ndarray, np.ndarray, np.ndarray]


class Row(NamedTuple):
    """What one image with a lesion or a mark is found to be."""

    outline: boundary.Boundary
    lesions: list[lesions.Lesion]
    same_half: float


@silence_libraries()
def spacings(examples: Iterable[Example]) -> list[Spacing]:
    """The pixel spacing that each file states, from its header alone."""
    with ThreadPoolExecutor(parallel.cores()) as threads:
        return list(threads.map(_spacing, examples))


def _spacing(example: Example) -> Spacing:
    if inputs.file_type(example.path) != 'dicom':
        return None
    header = pydicom.dcmread(example.path, stop_before_pixels=True, force=True)
    return headers.spacing(header)


def unit_of(positive: Sequence[bool] | np.ndarray, spacing: Sequence[Spacing]) -> str:
    """'mm' if every image with a true lesion states its spacing, otherwise 'px', for all."""
    known = [spacing[int(i)] is not None for i in np.flatnonzero(positive)]
    return 'mm' if all(known) else 'px'


def one(
    predicted: np.ndarray, true: np.ndarray, level: np.ndarray, spacing: Spacing, unit: str
) -> Row:
    """Measures one image.

    Args:
      predicted, true: uint8 0/1 [H, W].
      level: uint8 [H, W], see `levels.of`.
      spacing: of its pixels.
      unit: of distances, see `unit_of`.
    """
    outline = boundary.UNDEFINED
    if true.any():
        scale = spacing if unit == 'mm' and spacing else (1.0, 1.0)
        outline = boundary.compare(predicted, true, scale, boundary.TOLERANCES[unit])
    return Row(outline, lesions.match(predicted, true, level), lesions.same_half(predicted, true))


def of_images(
    images: PerImage, spacing: Sequence[Spacing], masks_of: Callable[[int], Masks]
) -> Measured:
    """Measures all images, in threads.

    Args:
      images: N images.
      spacing: [N].
      masks_of: (predicted, true, level) of image i, as `one` wants them; asked for only where there
        is a lesion or a mark.
    """
    unit = unit_of(images.positive, spacing)
    wanted = [int(i) for i in np.flatnonzero(images.positive | images.marked)]
    with ThreadPoolExecutor(parallel.cores()) as threads:
        rows = parallel.ordered_map(
            threads, lambda i: one(*masks_of(i), spacing[i], unit), wanted, 2 * parallel.cores()
        )
        return add(images, dict(zip(wanted, rows, strict=True)), spacing, unit)


def add(
    images: PerImage, rows: Mapping[int, Row], spacing: Sequence[Spacing], unit: str
) -> Measured:
    """Images with the columns of outlines and lesions, and the table of lesions.

    Args:
      images: N images.
      rows: of those with a lesion or a mark, by position, rising.
      spacing: [N].
      unit: of distances.
    """
    columns: dict[str, Any] = {}
    outlines = np.full((len(images), len(boundary.UNDEFINED)), np.nan)
    same_half = np.full(len(images), np.nan)
    counts = np.zeros((len(images), 3), np.int64)
    found: list[lesions.Lesion] = []
    of_image: list[int] = []
    for i, row in rows.items():
        outlines[i], same_half[i] = row.outline, row.same_half
        true = [lesion for lesion in row.lesions if lesion.is_true]
        hits = sum(lesion.iou > 0 for lesion in true)
        counts[i] = len(true), hits, len(row.lesions) - len(true)
        found += row.lesions
        of_image += [i] * len(row.lesions)
    columns |= zip(boundary.Boundary._fields, outlines.T, strict=True)
    columns |= zip(('lesions', 'lesions_found', 'false_marks'), counts.T, strict=True)
    names = lesions.Lesion._fields
    table = dict(zip(names, np.array(found, np.float64).reshape(-1, len(names)).T, strict=True))
    square_mm = np.array([np.prod(spacing[i] or np.nan) for i in of_image])
    return Measured(
        dataclasses.replace(images, same_half=same_half, **columns),
        unit=unit,
        lesions=PerLesion(
            image=np.array(of_image, np.int64),
            is_true=table.pop('is_true') > 0,
            area_px=table['area_px'].astype(np.int64),
            area_mm2=table.pop('area_px') * square_mm,
            **table,
        ),
    )
