"""Converts the stored values of a DICOM file to display values.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): decode, modality LUT or rescale, VOI LUT or
window, and only then the inversion of MONOCHROME1, which pydicom leaves to its caller. All steps
after decoding act on single values, so they are computed once per value and looked up per pixel.

The input range that becomes 0..65535 is
- with a window or VOI LUT, its output range, as the maker of the image intended;
- otherwise, for up to 8 stored bits, the range of those bits, so 8-bit radiographs are unchanged;
- otherwise the smallest to the largest pixel, as detectors use an unknown part of their range.
Pixels with the file's padding value are ignored for this and become black.
"""

import cv2
import numpy as np

from pneumojax.data.files.display_tags import Display, Rescale, Table, Window

_TABLE_SPAN = 1 << 17  # with more distinct values, compute per pixel instead
_SAMPLES = 4096  # pixels that are enough to tell whether an image is nearly uniform
# Of the range; a radiograph has several times that between its 1st and 99th percentile.
_NEARLY = 0.1


def grey(pixels: np.ndarray, display: Display) -> np.ndarray:
    """Converts stored values to display values in the sense of MONOCHROME2 (larger is brighter).

    Args:
      pixels: integers [H, W] as decoded; bits above `display.bits` may be set.
      display: the transformation.

    Returns:
      uint8 [H, W] for up to 8 stored bits wherever that loses nothing, else uint16 [H, W].
    """
    bits, (lowest, highest) = display.bits, display.ends
    padding = _padding(pixels, display)
    used = pixels if padding is None else pixels[~padding]
    if not used.size:
        return np.zeros(pixels.shape, np.uint8 if bits <= 8 else np.uint16)
    possible = np.iinfo(pixels.dtype)
    if bits <= 8 and lowest <= possible.min and possible.max <= highest:
        low, high = lowest, highest  # 8 of 8 bits: no pixel can lie outside
    else:
        low, high = int(used.min()), int(used.max())
    if low < lowest or high > highest:
        # Bits above the stored ones are not part of the pixel (PS3.5 8.1.1), often old overlays.
        pixels = (pixels.astype(np.int64) - lowest & (1 << bits) - 1) + lowest
        masked = _padding(pixels, display)
        if masked is not None:
            padding = masked if padding is None else padding | masked
        used = pixels if padding is None else pixels[~padding]
        if not used.size:
            return np.zeros(pixels.shape, np.uint8 if bits <= 8 else np.uint16)
        low, high = int(used.min()), int(used.max())
    if bits <= 8:
        low, high = lowest, highest
    if high - low >= _TABLE_SPAN:
        image = _transform(np.clip(pixels, low, high).astype(np.int64), display)
    else:
        values = np.arange(low, high + 1)
        table = _transform(values, display)
        if bits <= 8 and not (table % 257).any():
            table = (table // 257).astype(np.uint8)
        if padding is None and np.array_equal(table, values):
            return pixels.astype(table.dtype, copy=not pixels.flags.writeable)
        if pixels.dtype == np.uint8 and len(values) == 256:
            image = cv2.LUT(pixels, table)
        else:
            image = np.take(table, _offsets(pixels, low), mode='clip')
    if padding is not None:
        image[padding] = 0
    return image


def is_nearly_uniform(image: np.ndarray) -> bool:
    """Whether nearly all pixels of an image [H, W] over the range of its type are about equal."""
    step = max(int((image.size / _SAMPLES) ** 0.5), 1)
    # Of 8 and 16 bits, numpy sorts stably by radix, which is the fastest.
    some = np.sort(image[step // 2 :: step, step // 2 :: step], axis=None, kind='stable')
    if not some.size:
        return False
    spread = int(some[-1 - len(some) // 100]) - int(some[len(some) // 100])
    return spread < _NEARLY * np.iinfo(image.dtype).max


def _offsets(pixels: np.ndarray, low: int) -> np.ndarray:
    """pixels - low as indices. Pixels below `low`, which are padding, wrap around: clip them."""
    unsigned = np.dtype(pixels.dtype.str.replace('i', 'u'))  # no difference overflows in it
    first = np.array(low % (1 << 8 * unsigned.itemsize), unsigned)
    return (pixels.view(unsigned) - first).astype(np.intp)


def _padding(pixels: np.ndarray, display: Display) -> np.ndarray | None:
    """Which pixels are padding (PS3.3 C.7.5.1.1.2), or None if none are."""
    if display.padding is None:
        return None
    low, high = display.padding
    padding = (pixels >= low) & (pixels <= high)
    return padding if padding.any() else None


def _transform(stored: np.ndarray, display: Display) -> np.ndarray:
    """Applies modality, VOI and inversion: int64 of any shape to uint16, 0..65535."""
    values = _modality(stored, display.modality).astype(np.float64)
    if isinstance(display.voi, Table):
        unit = look_up(values, display.voi) / ((1 << display.voi.bits) - 1)
    elif display.voi is not None:
        unit = _window(values, display.voi)
    else:
        span = float(values.max()) - float(values.min())
        unit = (values - values.min()) / span if span else np.zeros(values.shape)
    shown = np.rint(np.clip(unit, 0, 1) * 65535).astype(np.uint16)
    return 65535 - shown if display.inverted else shown


def _modality(stored: np.ndarray, modality: Table | Rescale | None) -> np.ndarray:
    if isinstance(modality, Table):
        return look_up(stored, modality)
    return stored if modality is None else stored * modality.slope + modality.intercept


def look_up(values: np.ndarray, table: Table) -> np.ndarray:
    """Applies a table; inputs outside it get its first or last entry.

    pydicom's functions wrap around in 8-bit tables of more than 256 entries.
    """
    last = len(table.entries) - 1
    return table.entries[np.clip(np.rint(values) - table.first, 0, last).astype(np.int64)]


def _window(values: np.ndarray, window: Window) -> np.ndarray:
    """The output of a window as a fraction of its range; source: PS3.3 C.11.2.1.2, C.11.2.1.3."""
    center, width, function = window
    if function == 'SIGMOID':
        # The same curve as 1 / (1 + exp(-4 (x - c) / w)), without its overflow.
        with np.errstate(over='ignore'):
            return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)
    if function == 'LINEAR':
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    with np.errstate(over='ignore'):
        return np.clip((values - center) / width + 0.5, 0, 1)
