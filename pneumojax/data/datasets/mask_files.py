"""Mask files of your own images: PNG files, and the pneumothorax in DICOM Segmentations."""

import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import uid
from pydicom.sr.coding import Code

from pneumojax.data.files import dicom, headers, picture_files
from pneumojax.system import limits

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

PNEUMOTHORAX = Code('36118008', 'SCT', 'Pneumothorax')
_HALF = 0.5  # of a fractional segmentation
# Property types that programs fill in where the user chose none; these leave it to the label.
_UNSPECIFIC = (
    Code('85756007', 'SCT', 'Tissue'), Code('52988006', 'SCT', 'Lesion'),
    Code('49755003', 'SCT', 'Morphologically Abnormal Structure'),
    Code('91723000', 'SCT', 'Anatomical Structure'), Code('123037004', 'SCT', 'Body Structure'),
    Code('404684003', 'SCT', 'Clinical Finding'), Code('121071', 'DCM', 'Finding'),
    Code('111099', 'DCM', 'Selected region'),
)  # fmt: skip
_DENIED = re.compile(
    r'\b(no|not|non|without|absence of|negative for)\b[^,;]*pneumothorax'
    r'|pneumothorax\W+((is |was )?(absent|excluded|negative|none)\b|no\W*$)'
)


class BadMask(ValueError):
    """A file without a usable mask; the message is one line with the reason, without the path."""


def is_segmentation(header: pydicom.Dataset) -> bool:
    """Whether the header is that of a DICOM Segmentation."""
    return headers.sop_class(header) == uid.SegmentationStorage


def read_png(path: str | os.PathLike) -> picture_files.Mask:
    """Reads a PNG mask.

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
      path: the file. Of several segments, those that are a pneumothorax are used, which their code
        decides, and their label only if the code says nothing; a single segment is always used.
      source: SOPInstanceUID of the image.

    Returns:
      uint8 [H, W], 0 or 1 (1 where a fractional segment is at least one half); and whether the
      segment is a pneumothorax by its code or label.

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
            dataset = pydicom.dcmread(file)
        _check_frames(dataset)
        _drop_pixel_measures(dataset)
        segmentation = highdicom.seg.Segmentation.from_dataset(dataset, copy=False)
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


def _check_frames(dataset: pydicom.Dataset) -> None:
    """Refuses frames that state no source where others do: they would be taken for missing ones."""
    frames = dataset.get('PerFrameFunctionalGroupsSequence') or ()
    if int(dataset.get('NumberOfFrames') or 0) != len(frames):
        raise BadMask(f'describes {len(frames)} frames, but states another number of them')
    with_source = sum(
        any(item.get('SourceImageSequence') for item in frame.get('DerivationImageSequence') or ())
        for frame in frames
    )
    if 0 < with_source < len(frames):
        raise BadMask(
            f'{len(frames) - with_source} of its {len(frames)} frames do not state their image; '
            'export it again'
        )


def _drop_pixel_measures(dataset: pydicom.Dataset) -> None:
    """Removes the sizes of pixels, of which nothing here depends.

    highdicom refuses those without SliceThickness, which radiographs lack and which is required
    only within a frame of reference (PS3.3 C.7.6.16.2.1).
    """
    for groups in ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence'):
        for item in dataset.get(groups) or ():
            item.pop('PixelMeasuresSequence', None)


def _segments(segmentation: 'Segmentation') -> tuple[list[int], bool]:
    numbers = list(segmentation.segment_numbers)
    named = [n for n in numbers if _is_pneumothorax(segmentation.get_segment_description(n))]
    if named or len(numbers) == 1:
        return named or numbers, bool(named)
    raise BadMask(
        f'none of its {len(numbers)} segments is a pneumothorax (SNOMED {PNEUMOTHORAX.value}, or '
        'that word in the label of a segment whose code says nothing); code the segment accordingly'
    )


def _is_pneumothorax(segment: pydicom.Dataset) -> bool:
    """Whether a segment's property type, or else its label, is a pneumothorax."""
    coded = (segment.get('SegmentedPropertyTypeCodeSequence') or [pydicom.Dataset()])[0]
    value, scheme = (headers.text(coded, key) for key in ('CodeValue', 'CodingSchemeDesignator'))
    meaning = headers.text(coded, 'CodeMeaning')
    # Code compares the retired SNOMED RT codes (SRT) as well.
    code = Code(value, scheme, meaning)
    if code == PNEUMOTHORAX or _states(meaning):
        return True
    says_nothing = not value or code in _UNSPECIFIC
    return says_nothing and _states(headers.text(segment, 'SegmentLabel'))


def _states(words: str) -> bool:
    words = words.casefold()
    return PNEUMOTHORAX.meaning.casefold() in words and not _DENIED.search(words)


def _damaged(error: Exception) -> BadMask:
    return BadMask(
        f'damaged or unusual DICOM Segmentation ({type(error).__name__}); export it again'
    )
