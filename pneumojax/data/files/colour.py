"""Grey images that are stored as colour: three channels that agree, or a palette of greys."""

import cv2
import numpy as np
import pydicom

from pneumojax.data.files import display, display_tags, headers

CHANNELS = ('RGB', 'YBR_FULL', 'YBR_FULL_422', 'YBR_RCT', 'YBR_ICT')
# Of 255. Lossy compression rounds brightness and colour apart, each by a step or two, so the
# channels of a grey image come back nearly equal; differences this small are not seen as colour.
NEARLY_GREY = 4
_PALETTES = [f'{colour}PaletteColorLookupTable' for colour in ('Red', 'Green', 'Blue')]
PALETTE_TAGS = tuple(f'{palette}{part}' for palette in _PALETTES for part in ('Descriptor', 'Data'))


class Colour(ValueError):
    """The channels differ."""


def is_stored_as_colour(dataset: pydicom.Dataset) -> bool:
    """Whether the tags are those of three channels or a palette that this module knows."""
    photometric, samples = headers.photometric(dataset), dataset.get('SamplesPerPixel')
    return (photometric in CHANNELS and samples == 3) or (
        photometric == 'PALETTE_COLOR' and samples == 1
    )


def grey(pixels: np.ndarray, bits: int, dataset: pydicom.Dataset) -> tuple[np.ndarray, int]:
    """The brightness of an image whose channels agree.

    Args:
      pixels: unsigned [H, W, 3] as stored, or decoded to RGB; the indices [H, W] of a palette.
      bits: of each of them.
      dataset: its tags.

    Returns:
      Unsigned integers [H, W], and their number of bits.

    Raises:
      Colour: the channels differ.
    """
    if dataset.PixelRepresentation:
        raise Colour
    if pixels.ndim == 2:
        return _from_palette(pixels, bits, dataset)
    pixels = pixels & (1 << bits) - 1
    tolerance = NEARLY_GREY * ((1 << bits) - 1) / 255
    first, second, third = (np.ascontiguousarray(pixels[..., i]) for i in range(3))
    middle = np.full_like(first, 1 << bits - 1)
    # Some decoders convert to RGB and some do not. Grey in RGB has three equal channels, in YBR
    # two in the middle of their range, so neither passes for the other unless it is uniform.
    if max(_difference(first, second), _difference(second, third)) <= tolerance:
        return second, bits
    if headers.photometric(dataset) != 'RGB' and (
        max(_difference(second, middle), _difference(third, middle)) <= tolerance
    ):
        return first, bits
    raise Colour


def _from_palette(
    pixels: np.ndarray, bits: int, dataset: pydicom.Dataset
) -> tuple[np.ndarray, int]:
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    try:
        tables = [
            display_tags.table(
                dataset, f'{palette}Descriptor', f'{palette}Data', little=little, signed=False
            )[0]
            for palette in _PALETTES
        ]
    except Exception:  # segmented, or damaged: nothing says that it is grey
        raise Colour from None
    depth = tables[0].bits
    if depth not in (8, 16) or {table.bits for table in tables} != {depth}:
        raise Colour
    red, green, blue = (
        display.look_up(pixels & (1 << bits) - 1, table).astype(np.uint16) for table in tables
    )
    if max(_difference(red, green), _difference(green, blue)) > NEARLY_GREY * (1 << depth - 8):
        raise Colour
    return green, depth


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.dtype.itemsize > 2:
        return float(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())
    return float(cv2.absdiff(one, other).max())
