"""What a DICOM header says about the image: what the file is, the pixel size, reasons for doubt."""

import math
import re
from collections.abc import Sequence

import pydicom
from pydicom import uid

from pneumojax.data.files import bare
from pneumojax.system import limits

# The only tags that prediction reads. Those of the patient are written to DICOM SEG files and, on
# request, the name to the report; nowhere else.
KEPT = (
    'SpecificCharacterSet', 'SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID',
    'SeriesInstanceUID', 'StudyDate', 'StudyTime', 'StudyID', 'AccessionNumber',
    'ReferringPhysicianName', 'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex',
    'PatientAge', 'PatientOrientation', 'Modality', 'BodyPartExamined', 'AnatomicRegionSequence',
    'ViewPosition', 'ViewCodeSequence', 'InstanceNumber',
    'Rows', 'Columns', 'SamplesPerPixel', 'PhotometricInterpretation', 'NumberOfFrames',
    'PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing', 'PixelAspectRatio',
    'BitsStored', 'PixelRepresentation', 'ModalityLUTSequence', 'RescaleSlope', 'RescaleIntercept',
    'VOILUTSequence', 'VOILUTFunction', 'WindowCenter', 'WindowWidth', 'LossyImageCompression',
    'LossyImageCompressionRatio', 'LossyImageCompressionMethod',
)  # fmt: skip
STORAGE_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,  # SIIM's files have this class and modality CR
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_MODALITIES = ('', 'CR', 'DX', 'DR', 'RG', 'SC', 'OT')
# Values that may be shown to a reader; any other text could be a name in the wrong tag.
_OTHER_MODALITIES = (
    'BI', 'BMD', 'CT', 'DOC', 'ECG', 'EPS', 'ES', 'GM', 'HD', 'IO', 'IVOCT', 'IVUS', 'KO', 'MG',
    'MR', 'NM', 'OCT', 'OP', 'OPT', 'PR', 'PT', 'PX', 'REG', 'RF', 'RTDOSE', 'RTIMAGE', 'RTPLAN',
    'RTSTRUCT', 'SEG', 'SM', 'SR', 'US', 'XA', 'XC',
)  # fmt: skip
_SPACINGS = ('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing')
SIZES = (*_SPACINGS, 'PixelAspectRatio')  # the tags that `aspect` reads


def read(file: limits.BoundedFile, keywords: Sequence[str] = KEPT) -> pydicom.Dataset:
    """Reads some tags, those that are not damaged, and nothing beyond the header.

    pydicom converts a value, and may raise, on first access; so each is accessed here.

    Args:
      file: a DICOM file at its start that has passed `dicom.check`.
      keywords: of the tags.

    Raises:
      Exception: whatever pydicom raises on a damaged file.
    """
    force = bare.is_data_set(file.read(bare.BYTES))
    file.seek(0)
    header = pydicom.dcmread(
        file, stop_before_pixels=True, specific_tags=list(keywords), force=force
    )
    for tag in list(header.keys()):
        try:
            _ = header[tag]
        except Exception:
            del header[tag]
    return header


def sop_class(header: pydicom.Dataset) -> str:
    """The SOP class UID; '' if the file does not state one."""
    return header.get('SOPClassUID') or header.file_meta.get('MediaStorageSOPClassUID') or ''


def why_not_radiograph(header: pydicom.Dataset) -> str | None:
    """What the file is instead of a grey single-frame projection radiograph; None if it is one."""
    found = sop_class(header)
    if found == uid.MediaStorageDirectoryStorage:
        return 'a DICOMDIR, not an image'
    modality = text(header, 'Modality').upper()
    if found and found not in STORAGE_CLASSES:
        # An unknown UID is free text from the file and means nothing to a reader.
        name = uid.UID(found).name
        return f'not a projection radiograph: {name if name != found else "unknown SOP class"}'
    if modality not in _MODALITIES:
        known = modality if modality in _OTHER_MODALITIES else 'unknown'
        return f'not a projection radiograph: modality {known}'
    count = frames(header)
    if count is not None and count > 1:
        return f'{count} frames, expected a single one'
    return None


def frames(header: pydicom.Dataset) -> int | None:
    """The number of frames, 1 if it is not stated; None if the statement makes no sense."""
    try:
        return int(header.get('NumberOfFrames') or 1)
    except Exception:  # of another type or form
        return None


def photometric(header: pydicom.Dataset) -> str:
    """The photometric interpretation as the standard spells it; '' if there is none."""
    words = re.split('[^A-Z0-9]+', text(header, 'PhotometricInterpretation').upper())
    return '_'.join(filter(None, words))


def spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Millimetres between rows and between columns; None if the file does not state them.

    PixelSpacing is preferred, as it may be calibrated to the patient. The other tags apply to the
    detector, where anatomy appears magnified.
    """
    keyword = spacing_keyword(header)
    return _pair(header, keyword) if keyword else None


def spacing_keyword(header: pydicom.Dataset) -> str | None:
    """The tag that `spacing` takes its values from."""
    return next((keyword for keyword in _SPACINGS if _pair(header, keyword)), None)


def aspect(header: pydicom.Dataset) -> float:
    """Height of a pixel over its width; 1 unless the file states another ratio."""
    pair = spacing(header) or _pair(header, 'PixelAspectRatio')
    ratio = 1.0 if pair is None else pair[0] / pair[1]
    # A difference under 1 % comes from rounded spacings; no detector has a ratio above 10.
    return ratio if 0.1 <= ratio <= 10 and abs(ratio - 1) > 0.01 else 1.0


def notes(header: pydicom.Dataset) -> tuple[str, ...]:
    """What a reader should know about how the image is stored; `chest.notes` is what it shows."""
    if header.get('SOPClassUID') == uid.DigitalXRayImageStorageForProcessing:
        return ('raw detector values, not meant for viewing',)
    return ()


def text(header: pydicom.Dataset, keyword: str) -> str:
    """A tag as stripped text; '' if it is missing or empty."""
    value = header.get(keyword)
    return '' if value is None else str(value).strip()


def _pair(header: pydicom.Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        first, second = (float(value) for value in header.get(keyword))
    except (TypeError, ValueError):
        return None
    return (first, second) if 0 < first < math.inf and 0 < second < math.inf else None
