"""The outline as lines that a viewer draws over the radiograph and can switch off: a GSPS.

A Grayscale Softcopy Presentation State replaces the tags by which a viewer shows the radiograph, so
it states them again. Sources: PS3.3 A.33.1, C.10.5 and C.11; highdicom.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pydicom
from pydicom import valuerep

from pneumojax.data.files import display_tags, headers
from pneumojax.data.files.display_tags import Rescale, Table, Window
from pneumojax.prediction import reference
from pneumojax.prediction.reference import Algorithm

LAYER = 'PNEUMOTHORAX'
ORANGE = (75.1, 18.3, 75.2)  # `overlay.PREDICTED` in CIELab
_LONGEST = 8000  # points of a line: their tag holds 65,534 bytes
_MOST = 100_000  # points of all lines, of noise and no lung: 2 seconds and some megabytes


def make(
    header: pydicom.Dataset, mask: np.ndarray, *, algorithm: Algorithm, key: str
) -> hd.pr.GrayscaleSoftcopyPresentationState:
    """A presentation of the radiograph with the outline of the mask and a warning.

    Args:
      header: of the radiograph, see `pneumojax.data.files.headers`.
      mask: uint8 [H, W], nonzero in at least one pixel.
      algorithm: stated in the file.
      key: files with different keys get different UIDs.

    Raises:
      reference.NoReference: the radiograph's UIDs are missing or malformed.
      reference.CannotBeMade: the outline has more points than a viewer draws in reasonable time.
    """
    found = list(outlines(mask))
    if sum(map(len, found)) > _MOST:
        raise reference.CannotBeMade(f'the outline has more than {_MOST} points')
    source = reference.reference(header, mask.shape)
    made = reference.instance('gsps', source, key, algorithm)
    layer = hd.pr.GraphicLayer(
        LAYER, order=1, description=reference.DESCRIPTION,
        display_color=hd.color.CIELabColor(*ORANGE),
    )  # fmt: skip
    lines = [
        hd.pr.GraphicObject('POLYLINE', graphic_data=points, units='PIXEL') for points in found
    ]
    words = hd.pr.TextObject(
        text_value=reference.WARNING + algorithm.warning,
        units='DISPLAY',
        bounding_box=(0.02, 0.01, 0.6, 0.05),
    )
    annotation = hd.pr.GraphicAnnotation(
        [source], layer, graphic_objects=lines, text_objects=[words]
    )
    inverted, values = _presentation(header)
    dataset = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        series_number=903,
        content_label=LAYER,
        content_description=reference.DESCRIPTION + algorithm.warning,
        graphic_annotations=[annotation],
        graphic_layers=[layer],
        presentation_lut_transformation=hd.PresentationLUTTransformation(
            presentation_lut_shape='INVERSE' if inverted else 'IDENTITY'
        ),
        contributing_equipment=[reference.equipment(algorithm)],
        **values,
        **reference.identity(header, made, algorithm),
    )
    reference.add_body_part(dataset, header)
    aspect = headers.aspect(header)
    if aspect != 1:
        area = dataset.DisplayedAreaSelectionSequence[0]
        area.PresentationPixelAspectRatio = [round(1000 * aspect), 1000]
    return dataset


def outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Closed lines through the centres of the outermost pixels of each area and around each hole.

    Args:
      mask: uint8 [H, W], nonzero where marked.

    Yields:
      float64 [N, 2] of (column, row), the corner of the image at (0, 0); the last point is the
      first one, except where a line is too long for one object and goes on in the next.
    """
    found, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in found:
        points = contour[:, 0].astype(np.float64) + 0.5  # centres of pixels
        if len(points) == 1:  # a line needs two: the edges of the pixel
            points = points + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
        points = np.concatenate([points, points[:1]])
        for start in range(0, len(points) - 1, _LONGEST - 1):
            yield points[start : start + _LONGEST]


def _presentation(header: pydicom.Dataset) -> tuple[bool, dict[str, Any]]:
    """Whether the radiograph is inverted, and how its values become display values."""
    display, _ = display_tags.read(header, header.BitsStored)
    values: dict[str, Any] = {}
    if isinstance(display.modality, Rescale):
        slope, intercept = map(_decimal, display.modality)
        values['modality_lut_transformation'] = hd.ModalityLUTTransformation(
            rescale_intercept=intercept, rescale_slope=slope, rescale_type='US'
        )
    elif isinstance(display.modality, Table):
        entries = display.modality.entries.astype(np.uint16)
        lut = hd.ModalityLUT('US', display.modality.first, entries)
        values['modality_lut_transformation'] = hd.ModalityLUTTransformation(modality_lut=lut)
    if isinstance(display.voi, Window):
        values['voi_lut_transformations'] = [
            hd.pr.SoftcopyVOILUTTransformation(
                window_center=_decimal(display.voi.center),
                window_width=_decimal(display.voi.width),
                voi_lut_function=display.voi.function,
            )
        ]
    elif isinstance(display.voi, Table):
        lut = hd.VOILUT(display.voi.first, _full_range(display.voi))
        values['voi_lut_transformations'] = [hd.pr.SoftcopyVOILUTTransformation(voi_luts=[lut])]
    return display.inverted, values


def _full_range(table: Table) -> np.ndarray:
    """The entries of a VOI LUT in 16 bits: highdicom knows no tables of 10 or 12."""
    return np.rint(table.entries * (65535 / ((1 << table.bits) - 1))).astype(np.uint16)


def _decimal(value: float) -> valuerep.DSfloat:
    return valuerep.DSfloat(value, auto_format=True)
