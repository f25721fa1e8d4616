"""What a DICOM header says beside the pixels: the kind of file, the size of a pixel, doubts."""

import math
import os

import pydicom
from pydicom import uid

from pneumojax.system import limits

# All that is ever looked at. The patient's tags go into DICOM SEG files (and, when asked for, the
# name into the report), nowhere else.
KEPT = (
    'SpecificCharacterSet', 'SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID',
    'SeriesInstanceUID', 'StudyDate', 'StudyTime', 'StudyID', 'AccessionNumber',
    'ReferringPhysicianName', 'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex',
    'PatientOrientation', 'Modality', 'BodyPartExamined', 'ViewPosition', 'InstanceNumber',
    'Rows', 'Columns', 'SamplesPerPixel', 'PhotometricInterpretation', 'NumberOfFrames',
    'PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing', 'PixelAspectRatio',
)  # fmt: skip
_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,  # SIIM's files are of this class, with modality CR
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_MODALITIES = ('', 'CR', 'DX', 'DR', 'RG', 'SC', 'OT')
# Texts that may be repeated to a reader; any other may be a name in the wrong place.
_OTHER_MODALITIES = (
    'BI', 'BMD', 'CT', 'DOC', 'ECG', 'EPS', 'ES', 'GM', 'HD', 'IO', 'IVOCT', 'IVUS', 'KO', 'MG',
    'MR', 'NM', 'OCT', 'OP', 'OPT', 'PR', 'PT', 'PX', 'REG', 'RF', 'RTDOSE', 'RTIMAGE', 'RTPLAN',
    'RTSTRUCT', 'SEG', 'SM', 'SR', 'US', 'XA', 'XC',
)  # fmt: skip
_OTHER_PARTS = (
    'ABDOMEN', 'ANKLE', 'ARM', 'BREAST', 'CLAVICLE', 'COCCYX', 'CSPINE', 'ELBOW', 'EXTREMITY',
    'FEMUR', 'FINGER', 'FOOT', 'FOREARM', 'HAND', 'HEAD', 'HEEL', 'HIP', 'HUMERUS', 'JAW', 'KNEE',
    'LEG', 'LSPINE', 'MANDIBLE', 'NECK', 'ORBIT', 'PATELLA', 'PELVIS', 'SACRUM', 'SHOULDER',
    'SKULL', 'SPINE', 'THIGH', 'THUMB', 'TOE', 'TSPINE', 'WHOLEBODY', 'WRIST',
)  # fmt: skip
_SPACINGS = ('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing')
SIZES = (*_SPACINGS, 'PixelAspectRatio')  # what `aspect` looks at


def read(path: str | os.PathLike) -> pydicom.Dataset:
    """Reads the tags of `KEPT`, as far as they are sound.

    pydicom converts a value when it is first asked for, and may raise then: that is done here.

    Raises:
      Exception: whatever pydicom raises on a damaged file.
    """
    with limits.BoundedFile(path) as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(KEPT))
    for tag in list(header.keys()):
        try:
            _ = header[tag]
        except Exception:  # of many kinds
            del header[tag]
    return header


def kind(header: pydicom.Dataset) -> str:
    """The SOP class; '' where the file does not say."""
    return header.get('SOPClassUID') or header.file_meta.get('MediaStorageSOPClassUID') or ''


def other_kind(header: pydicom.Dataset) -> str | None:
    """What the file is, where it is no grey single-frame projection radiograph; else None."""
    sop_class = kind(header)
    if sop_class == uid.MediaStorageDirectoryStorage:
        return 'a DICOMDIR, no image'
    modality = text(header, 'Modality').upper()
    if sop_class and sop_class not in _CLASSES:
        # An unknown UID is the file's own text, and of no use to a reader.
        name = uid.UID(sop_class).name
        known = name if name != sop_class else 'of a class unknown here'
        return f'no projection radiograph: {known}'
    if modality not in _MODALITIES:
        known = modality if modality in _OTHER_MODALITIES else 'unknown here'
        return f'no projection radiograph: modality {known}'
    frames = header.get('NumberOfFrames')
    if frames is not None and frames != '' and int(frames) > 1:
        return f'{int(frames)} frames, expected a single one'
    samples, photometric = header.get('SamplesPerPixel'), text(header, 'PhotometricInterpretation')
    if (samples or 1) != 1 or (photometric and not photometric.startswith('MONOCHROME')):
        return 'a colour image, not a radiograph'
    return None


def spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column; None where the file does not say.

    PixelSpacing where there is one (it may be calibrated to the patient), else at the detector,
    where things appear larger than they are.
    """
    for keyword in _SPACINGS:
        pair = _pair(header, keyword)
        if pair is not None:
            return pair
    return None


def aspect(header: pydicom.Dataset) -> float:
    """Height of a pixel over its width, 1 where the file does not say otherwise."""
    pair = spacing(header) or _pair(header, 'PixelAspectRatio')
    ratio = 1.0 if pair is None else pair[0] / pair[1]
    # Within one per cent is rounding of the spacings; beyond ten is no detector.
    return ratio if 0.1 <= ratio <= 10 and abs(ratio - 1) > 0.01 else 1.0


def notes(header: pydicom.Dataset) -> tuple[str, ...]:
    """What keeps the network from being trusted on this image, as far as the header tells."""
    found = []
    part = text(header, 'BodyPartExamined').upper()
    if part and not any(word in part for word in ('CHEST', 'THORAX', 'LUNG', 'RIB')):
        known = part if part in _OTHER_PARTS else 'other than the chest'
        found.append(f'body part {known}: the network knows only chests')
    view = text(header, 'ViewPosition').upper()
    if view in ('LL', 'RL', 'LLD', 'RLD', 'LATERAL', 'LAT'):
        found.append(f'view {view}: the network knows only frontal views')
    if header.get('SOPClassUID') == uid.DigitalXRayImageStorageForProcessing:
        found.append('raw detector values, not meant for viewing')
    return tuple(found)


def text(header: pydicom.Dataset, keyword: str) -> str:
    """A tag as stripped text; '' where it is missing or empty."""
    value = header.get(keyword)
    return '' if value is None else str(value).strip()


def _pair(header: pydicom.Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        first, second = (float(value) for value in header.get(keyword))
    except (TypeError, ValueError):
        return None
    return (first, second) if 0 < first < math.inf and 0 < second < math.inf else None
