"""One image's mask as a DICOM Segmentation, which viewers overlay on the radiograph.

Sources: PS3.3 A.51 and C.8.20; docs/reference/viewers.md says which viewers and readers open it.
"""

from typing import Literal

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import uid
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pneumojax.data.datasets.mask_files import PNEUMOTHORAX
from pneumojax.data.files import headers
from pneumojax.prediction import reference
from pneumojax.prediction.reference import Algorithm, Instance

SegmentationType = Literal['binary', 'fractional']

CATEGORY = Code('49755003', 'SCT', 'Morphologically Abnormal Structure')
FRACTIONS = 255  # steps of a fractional file


def make(
    header: pydicom.Dataset,
    result: np.ndarray,
    *,
    kind: SegmentationType,
    algorithm: Algorithm,
    key: str,
) -> Segmentation:
    """A SEG with one segment and one frame, in which each pixel is one of the radiograph's.

    Args:
      header: of the radiograph, see `pneumojax.data.files.headers`.
      result: [H, W]; uint8 mask of 0 and 1 for 'binary', probabilities in [0, 1] for 'fractional'.
      kind: 'binary', or 'fractional' in 255 steps of probability.
      algorithm: stated in the file.
      key: files with different keys get different UIDs.

    Raises:
      reference.NoReference: the radiograph's UIDs are missing or malformed.
    """
    source = reference.reference(header, result.shape)
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
    # Single bits cannot be compressed in a way that readers know; bytes can (PS3.5 8.2.2). So an
    # empty mask takes 19 kB instead of 131 kB of zeros, at 1024 x 1024 pixels.
    empty = kind == 'binary' and not result.any()
    stored: SegmentationType = 'fractional' if empty else kind
    dataset = Segmentation(
        source_images=[source],
        pixel_array=result[None] if stored == 'binary' else result[None].astype(np.float32),
        segmentation_type=stored.upper(),
        fractional_type='OCCUPANCY' if kind == 'binary' else 'PROBABILITY',
        segment_descriptions=[segment],
        max_fractional_value=FRACTIONS,
        series_number=900,
        content_label='PNEUMOTHORAX',
        content_description=reference.DESCRIPTION + algorithm.warning,
        omit_empty_frames=False,  # an empty mask is a result too
        **reference.identity(header, instance(source, kind, algorithm, key), algorithm),
    )
    # The General Image module requires it if the plane orientation is unknown; may be empty.
    dataset.PatientOrientation = reference.orientation(header)
    _add_pixel_measures(dataset, header)
    if empty:  # GDCM's encoder, which comes first otherwise, ends the process where sides are odd
        dataset.compress(uid.RLELossless, encoding_plugin='pydicom', generate_instance_uid=False)
    return dataset


def instance(
    source: pydicom.Dataset, kind: SegmentationType, algorithm: Algorithm, key: str
) -> Instance:
    """The UIDs of the SEG that `make` makes."""
    return reference.instance('seg', source, key, algorithm, kind)


def _add_pixel_measures(dataset: Segmentation, header: pydicom.Dataset) -> None:
    """States the spacing, if it is known, and the axes of the image as those of a plane.

    Without a frame of reference, the standard wants neither: each pixel corresponds to one of the
    radiograph's. Readers want all of it or nothing, see docs/reference/viewers.md.
    """
    spacing = headers.spacing(header)
    if spacing is None:
        return
    measures, axes, corner = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [pydicom.valuerep.DSfloat(v, auto_format=True) for v in spacing]
    measures.SliceThickness = 1  # nominal: a projection has no slices
    axes.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    corner.ImagePositionPatient = [0, 0, 0]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [axes]
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = [corner]
