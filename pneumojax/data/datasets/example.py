"""One labelled image of any data set: its file, its patient and its mask."""

import dataclasses

import numpy as np

from pneumojax.data import rle
from pneumojax.data.files import dicom, inputs, picture_files
from pneumojax.errors import UsageError
from pneumojax.system.progress import log


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled image.

    Attributes:
      image_id: its name, the stem of its file.
      path: its file: DICOM, or a picture that `inputs` reads.
      rles: run-length texts whose union is the mask; empty for an image without a mask.
      patient_id: whom it shows; the ImageId if that is unknown.
      mask_shape: height and width in pixels of the mask that the runs were read from; None if
        unknown, as with Kaggle's CSV.
      side: 'train' or 'validation' if the data set itself assigns one, else ''.
    """

    image_id: str
    path: str
    rles: tuple[str, ...]
    patient_id: str
    mask_shape: tuple[int, int] | None = None
    side: str = ''

    @property
    def positive(self) -> bool:
        """Whether the image has a mask."""
        return any(text.strip() != rle.EMPTY for text in self.rles)


def load(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image and draws its mask, see `read` and `draw`."""
    image = read(example)
    return image, draw(example, image.shape)


def read(example: Example) -> np.ndarray:
    """Reads an image: uint8 [H, W], 0..255, larger is brighter.

    Raises:
      UsageError: the file cannot be read, or the mask was made for an image of another shape.
    """
    image = _read(example)
    check_shape(example, image.shape)
    return image


def check_shape(example: Example, shape: tuple[int, int]) -> None:
    """Raises UsageError if the mask was made for an image of another shape than this (H, W)."""
    if example.mask_shape not in (None, shape):
        (height, width), (mask_height, mask_width) = shape, example.mask_shape
        raise UsageError(
            f'ImageId {example.image_id}: the image {example.path} has {height} x {width} pixels '
            f'(height x width), its mask {mask_height} x {mask_width}; save the mask at the size '
            'of the image'
        )


def draw(example: Example, shape: tuple[int, int]) -> np.ndarray:
    """Draws the mask of an image of `shape` (H, W): uint8 [H, W], 0 or 1.

    Raises:
      UsageError: the mask does not fit into the image.
    """
    try:
        return rle.decode_all(example.rles, shape)
    except ValueError as error:
        raise UsageError(
            f'ImageId {example.image_id}: {error}; {example.path} and its rows in the CSV do not '
            'belong together: fix or remove one of them'
        ) from error


def _read(example: Example) -> np.ndarray:
    try:
        if inputs.file_type(example.path) == 'picture':
            return picture_files.read(example.path, max_pixels=dicom.MAX_PIXELS).pixels
        # Masks are drawn and counted on stored pixels, so pixels must be square here. Prediction,
        # which has no mask to keep aligned, resamples other pixels itself.
        image, notes = dicom.read_with_notes(example.path, square=True)
    except dicom.DicomError as error:
        raise UsageError(f'ImageId {example.image_id}: {error}') from error
    except ValueError as error:
        raise UsageError(f'ImageId {example.image_id}: {example.path}: {error}') from error
    if notes:
        log.warning('ImageId %s: %s: %s', example.image_id, example.path, '; '.join(notes))
    return dicom.to_uint8(image)
