"""The outline on the radiograph as an ordinary picture, a Secondary Capture, for any viewer.

What is burnt in cannot be switched off, so a strip above the image says what it is: nothing of the
radiograph is covered by words. Sources: PS3.3 A.8.1, C.7.6.1 and C.8.6.1; highdicom.
"""

from collections.abc import Sequence

import cv2
import highdicom as hd
import numpy as np
import pydicom
from pydicom import uid
from pydicom.sr.codedict import codes

from pneumojax.data.files import headers
from pneumojax.drawing import overlay
from pneumojax.prediction import reference
from pneumojax.prediction.reference import Algorithm

SMALLEST, LARGEST = 512, 2048  # pixels of the longer side: words need some, archives suffer of many
_CAPTION = 'Outline drawn by a program'
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def make(
    header: pydicom.Dataset,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    algorithm: Algorithm,
    key: str,
) -> hd.sc.SCImage:
    """A colour picture of the radiograph with its outline, below a strip with a warning.

    Args:
      header: of the radiograph, see `pneumojax.data.files.headers`.
      image: uint8 [H, W], MONOCHROME2 sense.
      mask: uint8 [H, W] of 0 and 1.
      algorithm: stated in the file.
      key: files with different keys get different UIDs.

    Raises:
      reference.NoReference: the radiograph's UIDs are missing or malformed.
    """
    source = reference.reference(header, mask.shape)
    made = reference.instance('secondary capture', source, key, algorithm)
    dataset = hd.sc.SCImage.from_ref_dataset(
        source,
        pixel_array=picture(image, mask, reference.WARNING, _CAPTION + algorithm.warning),
        photometric_interpretation='RGB',
        bits_allocated=8,
        coordinate_system='PATIENT',
        patient_orientation=('L', 'F'),  # it wants a known one, see below
        series_number=902,
        specific_character_set=source.SpecificCharacterSet,
        transfer_syntax_uid=uid.ExplicitVRLittleEndian,
        contributing_equipment=[reference.equipment(algorithm)],
        **reference.identity(header, made, algorithm),
    )
    dataset['PatientOrientation'].value = reference.orientation(header)
    reference.add_body_part(dataset, header)
    dataset.ImageType = ['DERIVED', 'SECONDARY']
    # The radiograph may name the patient in its pixels: who shares the picture has to look.
    dataset.BurnedInAnnotation = 'YES'
    dataset.DerivationDescription = 'Outline of the area that pneumojax marked'
    dataset.ImageComments = reference.WARNING
    used = pydicom.Dataset()
    used.ReferencedSOPClassUID = source.SOPClassUID
    used.ReferencedSOPInstanceUID = source.SOPInstanceUID
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    used.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(purpose)]
    dataset.SourceImageSequence = [used]
    aspect = headers.aspect(header)
    if aspect != 1:
        dataset.PixelAspectRatio = [round(1000 * aspect), 1000]
    _copy_loss(dataset, header)
    return dataset


def picture(image: np.ndarray, mask: np.ndarray, *lines: str) -> np.ndarray:
    """uint8 RGB: the strip, and below it the radiograph with its outline.

    Args:
      image: uint8 [H, W].
      mask: uint8 [H, W], nonzero where marked.
      lines: what the strip says.
    """
    side = min(max(*image.shape, SMALLEST), LARGEST)
    drawn = overlay.overlay(image, mask, side=side)
    return np.concatenate([_strip(drawn.shape[1], lines), drawn])


def _strip(width: int, lines: Sequence[str]) -> np.ndarray:
    """White words on black, as large as the width allows."""
    longest = max(cv2.getTextSize(line, _FONT, 1, 1)[0][0] for line in lines)
    scale = 0.85 * min(width, 1024) / longest
    thickness = max(1, round(1.5 * scale))
    height = round(44 * scale)
    strip = np.zeros((height * len(lines), width, 3), np.uint8)
    for i, line in enumerate(lines):
        place = round(0.05 * min(width, 1024)), height * (i + 1) - round(14 * scale)
        cv2.putText(strip, line, place, _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return strip


def _copy_loss(dataset: pydicom.Dataset, header: pydicom.Dataset) -> None:
    """States that the radiograph was compressed with loss: so are pictures made of it."""
    if headers.text(header, 'LossyImageCompression') != '01':
        return
    keywords = 'LossyImageCompressionRatio', 'LossyImageCompressionMethod'
    values = [reference.clean(header, keyword) for keyword in keywords]
    if all(values):
        dataset.LossyImageCompression = '01'
        dataset.LossyImageCompressionRatio, dataset.LossyImageCompressionMethod = values
