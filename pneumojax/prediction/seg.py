"""One image's mask as a DICOM Segmentation, which viewers lay over the radiograph.

The source is referenced and its patient and study are taken over, so the file belongs to the same
study in an archive. It therefore holds the patient's name, as the radiograph does.
"""

import io
import os
import re
from typing import Literal, NamedTuple

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import uid, valuerep
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pneumojax.data.datasets.mask_files import PNEUMOTHORAX
from pneumojax.system import atomic

Kind = Literal['binary', 'fractional']

CATEGORY = Code('49755003', 'SCT', 'Morphologically Abnormal Structure')
FRACTIONS = 255  # steps of a fractional file

_UIDS = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID')
_TAKEN_OVER = (
    'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex', 'StudyDate', 'StudyTime',
    'StudyID', 'AccessionNumber', 'ReferringPhysicianName',
)  # fmt: skip


class Algorithm(NamedTuple):
    """What made the mask, as the file states it."""

    version: str  # of this package
    run: str  # which weights, such as a run's name and step
    parameters: dict[str, str]  # thresholds and what computed; other values give other UIDs


class NoReference(ValueError):
    """The source cannot be referenced; the message says why."""


def write(
    path: str | os.PathLike,
    header: pydicom.Dataset,
    result: np.ndarray,
    *,
    kind: Kind,
    algorithm: Algorithm,
    key: str,
) -> None:
    """Writes a SEG; the file appears whole or not at all.

    Args:
      path: of the file; its folder exists.
      header: of the source image, see `pneumojax.data.files.headers`.
      result: [H, W]; uint8 mask of 0 and 1 for 'binary', probabilities in [0, 1] for 'fractional'.
      kind: 'binary', or 'fractional' in 255 steps of probability.
      algorithm: stated in the file.
      key: two files with other keys get other UIDs, the same key the same ones.

    Raises:
      NoReference: the source's UIDs are missing or malformed.
    """
    dataset = make(header, result, kind=kind, algorithm=algorithm, key=key)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    atomic.write(path, buffer.getvalue())


def make(
    header: pydicom.Dataset, result: np.ndarray, *, kind: Kind, algorithm: Algorithm, key: str
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
        content_description='Not for diagnosis',
        omit_empty_frames=False,  # an empty mask is a result too
    )
    # General Image asks for it where no plane orientation is known; empty means unknown.
    dataset.PatientOrientation = _orientation(header)
    return dataset


def reference(header: pydicom.Dataset, shape: tuple[int, int]) -> pydicom.Dataset:
    """The source as far as a SEG takes it over; malformed values are emptied.

    Raises:
      NoReference: see `write`.
    """
    source = pydicom.Dataset()
    # Names were decoded; a file in UTF-8 can hold any of them.
    source.SpecificCharacterSet = 'ISO_IR 192'
    for keyword in _UIDS:
        value = str(header.get(keyword) or '')
        if not value:
            raise NoReference(f'the file has no {keyword}')
        if not uid.UID(value).is_valid:
            raise NoReference(f'the {keyword} is malformed')
        setattr(source, keyword, value)
    for keyword in _TAKEN_OVER:
        setattr(source, keyword, _clean(header, keyword))
    if str(source.PatientSex) not in ('M', 'F', 'O'):
        source.PatientSex = ''
    source.Rows, source.Columns = shape
    return source


def _clean(header, keyword):
    """The value, or '' where it is missing or breaks the rules of its type."""
    element = header.get(pydicom.datadict.tag_for_keyword(keyword))
    if element is None or element.value is None:
        return ''
    try:
        if element.VM > 1:
            return ''
        valuerep.validate_value(element.VR, str(element.value), pydicom.config.RAISE)
    except ValueError:
        return ''
    return element.value


def _orientation(header):
    value = header.get('PatientOrientation')
    pair = [str(part) for part in value] if isinstance(value, MultiValue) else []
    return pair if len(pair) == 2 and all(re.fullmatch('[LRAPHF]{1,3}', p) for p in pair) else ''


def _uid(*parts: object) -> str:
    return uid.generate_uid(entropy_srcs=['pneumojax', *map(str, parts)])


def _number(value) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return 1
    return number if 1 <= number < 2**31 else 1
