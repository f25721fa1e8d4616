"""Masks of one's own images: PNG files, and the pneumothorax of DICOM Segmentations."""

import os

import numpy as np
import pydicom
from pydicom import uid
from pydicom.sr.coding import Code

from pneumojax.data.files import dicom, headers, picture_files
from pneumojax.system import limits

PNEUMOTHORAX = Code('36118008', 'SCT', 'Pneumothorax')
_HALF = 0.5  # of a fractional segmentation


class BadMask(ValueError):
    """A file that gives no mask; one line that says why, without the path."""


def is_segmentation(header: pydicom.Dataset) -> bool:
    """Whether a DICOM file is a Segmentation, by its header."""
    return headers.sop_class(header) == uid.SegmentationStorage


def read_png(path: str | os.PathLike) -> np.ndarray:
    """Reads a PNG mask, uint8 [H, W], 0 or 1; every pixel that is not black is 1.

    Raises:
      BadMask: see `picture_files.read_mask`.
    """
    try:
        return picture_files.read_mask(path, max_pixels=dicom.MAX_PIXELS)
    except ValueError as error:
        raise BadMask(str(error)) from None


def sources(path: str | os.PathLike) -> set[str]:
    """SOPInstanceUIDs of the images that a Segmentation says it was made from.

    Raises:
      BadMask: the file cannot be read.
    """
    try:
        with limits.BoundedFile(path) as file:
            dicom.check(file)
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
        referenced = {
            str(item.ReferencedSOPInstanceUID)
            for series in dataset.get('ReferencedSeriesSequence') or ()
            for item in series.get('ReferencedInstanceSequence') or ()
        }
        per_frame = {
            str(item.ReferencedSOPInstanceUID)
            for element in dataset.iterall()
            if element.keyword == 'SourceImageSequence'
            for item in element.value
        }
    except dicom.DicomError as error:
        raise BadMask(str(error)) from None
    # Foreign input, as in `dicom.read`: only the type is passed on, as messages may quote the file.
    except Exception as error:
        raise _damaged(error) from error
    return referenced | per_frame


def read_segmentation(path: str | os.PathLike, source: str) -> tuple[np.ndarray, bool]:
    """Reads the pneumothorax of one image from a Segmentation.

    Args:
      path: the file. Of several segments those count that say pneumothorax (their code or label);
        a single segment counts whatever it says.
      source: SOPInstanceUID of the image.

    Returns:
      uint8 [H, W], 0 or 1, of fractional segments where they reach one half; and whether the
      segment says pneumothorax.

    Raises:
      BadMask: the file cannot be read, or no segment of several is a pneumothorax.
    """
    import highdicom  # slow to import, and needed here only

    try:
        with limits.BoundedFile(path) as file:
            dicom.check(file)
            header = headers.read(file)
            if int(header.Rows) * int(header.Columns) > dicom.MAX_PIXELS:
                raise BadMask(f'claims more than {dicom.MAX_PIXELS} pixels')
            file.seek(0)
            segmentation = highdicom.seg.segread(file)
        numbers, sure = _segments(segmentation)
        pixels = segmentation.get_pixels_by_source_instance(
            [source],
            segment_numbers=numbers,
            ignore_spatial_locations=True,  # a radiograph has none
            assert_missing_frames_are_empty=True,  # many programs leave empty ones out
        )
    except BadMask:
        raise
    except dicom.DicomError as error:
        raise BadMask(str(error)) from None
    except Exception as error:
        raise _damaged(error) from error
    return (pixels[0] >= _HALF).any(axis=-1).astype(np.uint8), sure


def _segments(segmentation) -> tuple[list[int], bool]:
    numbers = list(segmentation.segment_numbers)
    named = [n for n in numbers if _is_pneumothorax(segmentation.get_segment_description(n))]
    if named or len(numbers) == 1:
        return named or numbers, bool(named)
    raise BadMask(
        f'none of its {len(numbers)} segments is a pneumothorax (SNOMED {PNEUMOTHORAX.value}, or '
        'that word in its label); name the segment so'
    )


def _is_pneumothorax(segment) -> bool:
    word = PNEUMOTHORAX.meaning.lower()
    coded = segment.segmented_property_type
    words = f'{segment.segment_label} {coded.meaning}'.lower()
    return coded.value == PNEUMOTHORAX.value or word in words


def _damaged(error: Exception) -> BadMask:
    return BadMask(
        f'damaged or unusual DICOM Segmentation ({type(error).__name__}); export it again'
    )
