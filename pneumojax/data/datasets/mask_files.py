"""Mask files of your own images: PNG files, and the pneumothorax in DICOM Segmentations."""

import os
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import uid
from pydicom.sr.coding import Code

from pneumojax.data.files import dicom, headers, picture_files
from pneumojax.system import limits

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

PNEUMOTHORAX = Code('36118008', 'SCT', 'Pneumothorax')
_HALF = 0.5  # of a fractional segmentation


class BadMask(ValueError):
    """A file without a usable mask; the message is one line with the reason, without the path."""


def is_segmentation(header: pydicom.Dataset) -> bool:
    """Whether the header is that of a DICOM Segmentation."""
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
    """SOPInstanceUIDs of the images that a Segmentation states it was made from.

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
    # As in `dicom.decode`: messages may quote the file, so only the type is passed on.
    except Exception as error:
        raise _damaged(error) from error
    return referenced | per_frame


def read_segmentation(path: str | os.PathLike, source: str) -> tuple[np.ndarray, bool]:
    """Reads the pneumothorax of one image from a Segmentation.

    Args:
      path: the file. Of several segments, those named pneumothorax (in code or label) are used; a
        single segment is used whatever its name.
      source: SOPInstanceUID of the image.

    Returns:
      uint8 [H, W], 0 or 1 (1 where a fractional segment is at least one half); and whether the
      segment is named pneumothorax.

    Raises:
      BadMask: the file cannot be read, or none of several segments is a pneumothorax.
    """
    import highdicom  # slow to import

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
            assert_missing_frames_are_empty=True,  # many programs omit empty ones
        )
    except BadMask:
        raise
    except dicom.DicomError as error:
        raise BadMask(str(error)) from None
    except Exception as error:
        raise _damaged(error) from error
    return (pixels[0] >= _HALF).any(axis=-1).astype(np.uint8), sure


def _segments(segmentation: 'Segmentation') -> tuple[list[int], bool]:
    numbers = list(segmentation.segment_numbers)
    named = [n for n in numbers if _is_pneumothorax(segmentation.get_segment_description(n))]
    if named or len(numbers) == 1:
        return named or numbers, bool(named)
    raise BadMask(
        f'none of its {len(numbers)} segments is a pneumothorax (SNOMED {PNEUMOTHORAX.value}, or '
        'that word in its label); name the segment accordingly'
    )


def _is_pneumothorax(segment: 'SegmentDescription') -> bool:
    word = PNEUMOTHORAX.meaning.lower()
    coded = segment.segmented_property_type
    words = f'{segment.segment_label} {coded.meaning}'.lower()
    return coded.value == PNEUMOTHORAX.value or word in words


def _damaged(error: Exception) -> BadMask:
    return BadMask(
        f'damaged or unusual DICOM Segmentation ({type(error).__name__}); export it again'
    )
