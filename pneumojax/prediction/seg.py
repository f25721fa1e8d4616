"""One image's mask as a DICOM Segmentation, which viewers overlay on the radiograph.

The file references its source and copies the source's patient and study, so that an archive files
it in the same study. It therefore holds the patient's name, as the radiograph does.
"""

import io
import os
import re
from typing import Any, Literal, NamedTuple

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import uid, valuerep
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pneumojax.data.datasets.mask_files import PNEUMOTHORAX
from pneumojax.data.files import headers
from pneumojax.system import atomic

SegmentationType = Literal['binary', 'fractional']

CATEGORY = Code('49755003', 'SCT', 'Morphologically Abnormal Structure')
FRACTIONS = 255  # steps of a fractional file

_UIDS = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID')
_COPIED = (
    'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex', 'StudyDate', 'StudyTime',
    'StudyID', 'AccessionNumber', 'ReferringPhysicianName',
)  # fmt: skip


class Algorithm(NamedTuple):
    """What made the mask, as the file states it; other values give other UIDs."""

    version: str  # of this package
    run: str  # which weights, such as a run's name and step
    parameters: dict[str, str]  # thresholds, runtime, and what the network was trained on

    @property
    def warning(self) -> str:
        """What follows 'Not for diagnosis' where that is not all."""
        trained_on = self.parameters.get('trained_on')
        return f'; trained on {trained_on}' if trained_on else ''


class NoReference(ValueError):
    """The source cannot be referenced; the message says why, without quoting it."""


def write(
    path: str | os.PathLike,
    header: pydicom.Dataset,
    result: np.ndarray,
    *,
    kind: SegmentationType,
    algorithm: Algorithm,
    key: str,
) -> None:
    """Writes a SEG atomically.

    Args:
      path: of the file; its folder exists.
      header: of the source image, see `pneumojax.data.files.headers`.
      result: [H, W]; uint8 mask of 0 and 1 for 'binary', probabilities in [0, 1] for 'fractional'.
      kind: 'binary', or 'fractional' in 255 steps of probability.
      algorithm: stated in the file.
      key: files with different keys get different UIDs.

    Raises:
      NoReference: the source's UIDs are missing or malformed.
    """
    dataset = make(header, result, kind=kind, algorithm=algorithm, key=key)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    atomic.write(path, buffer.getvalue())


def make(
    header: pydicom.Dataset,
    result: np.ndarray,
    *,
    kind: SegmentationType,
    algorithm: Algorithm,
    key: str,
) -> Segmentation:
    """The SEG of `write` in memory."""
    source = reference(header, result.shape)
    identification = hd.AlgorithmIdentificationSequence(
        name='pneumojax',
        version=algorithm.version,
        family=codes.DCM.ArtificialIntelligence,
        source=algorithm.run[:64],
        parameters=algorithm.parameters,
    )
    segment = SegmentDescription(
        segment_number=1,
        segment_label='Pneumothorax',
        segmented_property_category=CATEGORY,
        segmented_property_type=PNEUMOTHORAX,
        algorithm_type='AUTOMATIC',
        algorithm_identification=identification,
    )
    mine = algorithm.version, algorithm.run, kind, *sorted(algorithm.parameters.items())
    dataset = Segmentation(
        source_images=[source],
        pixel_array=result[None] if kind == 'binary' else result[None].astype(np.float32),
        segmentation_type=kind.upper(),
        segment_descriptions=[segment],
        max_fractional_value=FRACTIONS,
        series_instance_uid=_uid('series', source.SeriesInstanceUID, *mine),
        series_number=900,
        sop_instance_uid=_uid('instance', source.SOPInstanceUID, key, *mine),
        instance_number=_number(header.get('InstanceNumber')),
        manufacturer='pneumojax',
        manufacturer_model_name='pneumojax',
        software_versions=algorithm.version,
        device_serial_number='none',
        content_label='PNEUMOTHORAX',
        content_description='Not for diagnosis' + algorithm.warning,
        omit_empty_frames=False,  # an empty mask is a result too
    )
    # The General Image module requires it if the plane orientation is unknown; may be empty.
    dataset.PatientOrientation = _orientation(header)
    return dataset


def reference(header: pydicom.Dataset, shape: tuple[int, int]) -> pydicom.Dataset:
    """The parts of the source that a SEG copies; malformed values are emptied.

    Raises:
      NoReference: see `write`.
    """
    source = pydicom.Dataset()
    # The names are decoded already; UTF-8 can encode all of them.
    source.SpecificCharacterSet = 'ISO_IR 192'
    for keyword in _UIDS:
        value = str(header.get(keyword) or '')
        if not value:
            raise NoReference(f'the file has no {keyword}')
        if not uid.UID(value).is_valid:
            raise NoReference(f'the {keyword} is malformed')
        setattr(source, keyword, value)
    for keyword in _COPIED:
        setattr(source, keyword, _clean(header, keyword))
    source.Rows, source.Columns = shape
    return source


def emptied(header: pydicom.Dataset) -> list[str]:
    """Keywords of the tags that the source states and that `reference` empties."""
    return [key for key in _COPIED if headers.text(header, key) and not _clean(header, key)]


def _clean(header: pydicom.Dataset, keyword: str) -> Any:
    """The value, or '' if it is missing or breaks the rules of its type."""
    if keyword not in header:
        return ''
    element = header[keyword]
    if element.value is None:
        return ''
    try:
        if element.VM > 1:
            return ''
        valuerep.validate_value(element.VR, str(element.value), pydicom.config.RAISE)
    except ValueError:
        return ''
    if keyword == 'PatientSex' and str(element.value) not in ('M', 'F', 'O'):
        return ''
    return element.value


def _orientation(header: pydicom.Dataset) -> list[str] | str:
    value = header.get('PatientOrientation')
    pair = [str(part) for part in value] if isinstance(value, MultiValue) else []
    return pair if len(pair) == 2 and all(re.fullmatch('[LRAPHF]{1,3}', p) for p in pair) else ''


def _uid(*parts: object) -> str:
    return uid.generate_uid(entropy_srcs=['pneumojax', *map(str, parts)])


def _number(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return 1
    return number if 1 <= number < 2**31 else 1
