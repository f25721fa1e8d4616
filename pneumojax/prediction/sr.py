"""What was found in one image as a DICOM Structured Report: a Measurement Report (TID 1500).

It says, in codes, what results.csv says: the probability, the area, the side, and what computed
them. Sources: PS3.16 TID 1500, 1410 and 1501; highdicom.
"""

import copy
from typing import Any, NamedTuple

import pydicom
from highdicom import sr
from pydicom import uid
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pneumojax.data.datasets.mask_files import PNEUMOTHORAX
from pneumojax.data.files import headers
from pneumojax.prediction import reference
from pneumojax.prediction.laterality import Side
from pneumojax.prediction.reference import Algorithm, Instance

CHEST_RADIOGRAPH = Code('399208008', 'SCT', 'Plain X-ray of chest')
PRESENT = Code('52101004', 'SCT', 'Present')
ABSENT = Code('2667000', 'SCT', 'Absent')
PIXELS = Code('{pixels}', 'UCUM', 'pixels')
SIDES = {
    'left': codes.SCT.Left,
    'right': codes.SCT.Right,
    'bilateral': codes.SCT.Bilateral,
    'unknown': codes.SCT.Unknown,
}


class Finding(NamedTuple):
    """What is reported about one image."""

    shape: tuple[int, int]  # rows and columns of the image
    probability: float  # of the whole image, in [0, 1]
    area_px: int  # marked pixels
    area_mm2: float | None  # None if the spacing is unknown
    side: Side
    meaning: str  # of the probability, see `wording.probability_sentence`


def make(
    header: pydicom.Dataset,
    finding: Finding,
    *,
    segmentation: Instance | None,
    algorithm: Algorithm,
    key: str,
) -> sr.ComprehensiveSR:
    """A report with one group of measurements.

    Args:
      header: of the radiograph, see `pneumojax.data.files.headers`.
      finding: what to report.
      segmentation: the SEG with the marked area, which is then the region that is measured; without
        it, or if nothing is marked, the measurements are those of the whole image.
      algorithm: stated in the report.
      key: files with different keys get different UIDs.

    Raises:
      reference.NoReference: the radiograph's UIDs are missing or malformed.
    """
    source = reference.reference(header, finding.shape)
    values = [f'{value!r}' for value in finding]
    refers = [segmentation.sop] if segmentation else []
    made = reference.instance('sr', source, key, algorithm, *refers)
    evidence = [source]
    if segmentation is not None:
        evidence.append(_segmentation(source, segmentation))
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(algorithm)),
        procedure_reported=CHEST_RADIOGRAPH,
        imaging_measurements=[
            _group(header, source, finding, segmentation, algorithm, [*refers, *values, key])
        ],
    )
    return sr.ComprehensiveSR(
        evidence=evidence,
        content=content[0],
        series_number=901,
        is_complete=True,
        is_final=False,
        is_verified=False,
        specific_character_set=source.SpecificCharacterSet,
        **reference.identity(header, made, algorithm),
    )


def _observer(algorithm: Algorithm) -> sr.ObserverContext:
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=reference.uid_of('device', algorithm.version, algorithm.run),
            name='pneumojax',
            manufacturer_name='pneumojax',
            model_name=f'pneumojax {algorithm.version}',
        ),
    )


def _group(
    header: pydicom.Dataset,
    source: pydicom.Dataset,
    finding: Finding,
    segmentation: Instance | None,
    algorithm: Algorithm,
    key: list[str],
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations:
    marked = finding.area_px > 0
    identification = sr.AlgorithmIdentification(
        name='pneumojax',
        version=algorithm.version,
        parameters=algorithm.statements(),
        family=codes.DCM.ArtificialIntelligence,
    )
    evaluations = [sr.QualitativeEvaluation(name=PNEUMOTHORAX, value=PRESENT if marked else ABSENT)]
    if marked:
        evaluations.append(
            sr.QualitativeEvaluation(name=codes.SCT.Laterality, value=SIDES[finding.side])
        )
    common: dict[str, Any] = {
        'tracking_identifier': sr.TrackingIdentifier(
            uid=reference.uid_of('tracking', source.SOPInstanceUID, algorithm.run, *key),
            identifier='Pneumothorax',
        ),
        'finding_type': PNEUMOTHORAX if marked else None,
        'algorithm_id': identification,
        'measurements': _measurements(finding),
        'qualitative_evaluations': evaluations,
    }
    image = source.SOPClassUID, source.SOPInstanceUID
    if marked and segmentation is not None:
        region = sr.ReferencedSegmentationFrame(
            sop_class_uid=uid.SegmentationStorage,
            sop_instance_uid=segmentation.sop,
            frame_number=1,
            segment_number=1,
            source_image=sr.SourceImageForSegmentation(*image),
        )
        # Only one of the two may be stated (PS3.3 C.18.4), and the SEG has a single segment.
        del region[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=region, **common
        )
    else:
        group = sr.MeasurementsAndQualitativeEvaluations(
            source_images=[sr.SourceImageForMeasurementGroup(*image)], **common
        )
    group[0].ContentSequence.extend(_comments(header, finding, algorithm))
    return group


def _measurements(finding: Finding) -> list[sr.Measurement]:
    found = [
        sr.Measurement(
            name=codes.DCM.Probability,
            value=round(finding.probability, 6),
            unit=codes.UCUM.NoUnits,
        ),
        sr.Measurement(name=codes.SCT.Area, value=finding.area_px, unit=PIXELS),
    ]
    if finding.area_mm2 is not None:
        area = round(finding.area_mm2, 1)
        found.append(
            sr.Measurement(name=codes.SCT.Area, value=area, unit=codes.UCUM.SquareMillimeter)
        )
    return found


def _comments(
    header: pydicom.Dataset, finding: Finding, algorithm: Algorithm
) -> list[sr.TextContentItem]:
    """What a reader of the report has to know."""
    texts = [
        f'{reference.WARNING}{algorithm.warning}. {finding.meaning}',
    ]
    spacing = headers.spacing_keyword(header)
    if finding.area_mm2 is None:
        texts.append('No area in square millimetres: the image states no pixel spacing.')
    elif spacing != 'PixelSpacing':
        texts.append(
            f'The area in square millimetres is by {spacing}, at the detector or film, where '
            'anatomy appears magnified.'
        )
    return [
        sr.TextContentItem(
            name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
        )
        for text in texts
    ]


def _segmentation(source: pydicom.Dataset, segmentation: Instance) -> pydicom.Dataset:
    """What the list of evidence names of the SEG."""
    named = copy.deepcopy(source)
    named.SOPClassUID, named.SOPInstanceUID = uid.SegmentationStorage, segmentation.sop
    named.SeriesInstanceUID = segmentation.series
    return named
